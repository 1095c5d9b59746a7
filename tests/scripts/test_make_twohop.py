import json
from pathlib import Path

import make_twohop

ROOT = Path(__file__).parents[2]


def test_the_packaged_file_is_what_the_script_makes():
    text = (ROOT / "src/selfie_adapters/sources/twohop_facts.jsonl").read_text("utf-8")
    assert [json.loads(line) for line in text.splitlines()] == make_twohop.rows()


def test_one_row_by_hand():
    (row,) = (r for r in make_twohop.rows() if r["uid"] == "capital-currency-japan")
    assert row["r1(e1).prompt"] == "The country whose capital is Tokyo is"
    assert row["r2(r1(e1)).prompt"] == "The currency of the country whose capital is Tokyo is"
    assert (row["e1.value"], row["e2.value"], row["e3.value"]) == ("Tokyo", "Japan", "yen")
    assert row["e2.aliases"] == "(('Japan', 'Nippon', 'Nihon'),)"
    assert row["e3.aliases"] == "(('yen', 'Japanese yen', 'JPY', '¥'),)"
