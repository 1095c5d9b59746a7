import csv
import gzip
import json

import pytest

from hub_server import hub_server
from selfie_adapters.errors import DataError, DownloadError, MissingFileError
from selfie_adapters.evaluation.bridge.entities import names_entity
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion, read_twohop

ROW = {
    "uid": "q7",
    "category": "city-country",
    "fact_comp_type": "x",
    "e1.value": "Paris",
    "e2.value": "France",
    "e3.value": "euro",
    "e1.aliases": "()",
    "e2.aliases": "(('France', 'the Hexagon'), ('République française',))",
    "e3.aliases": "('euro', ('EUR', ('€',)))",
    "r1(e1).prompt": "The country whose capital is Paris is",
    "r2(r1(e1)).prompt": "The currency of the country whose capital is Paris is ",
}
QUESTION = TwoHopQuestion(
    uid="q7",
    category="city-country",
    e1="Paris",
    bridge=Entity("France", ("France", "the Hexagon", "République française")),
    answer=Entity("euro", ("euro", "EUR", "€")),
    bridge_prompt="The country whose capital is Paris is",
    prompt="The currency of the country whose capital is Paris is",
)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["q.parquet", "q.csv", "q.jsonl", "q.jsonl.gz", "q.json"])
def test_every_kind_of_file_gives_the_same_questions(tmp_path, name):
    other = {**ROW, "uid": "q8", "e2.aliases": "(('US', 'U.S.'),)", "e2.value": "USA"}
    first, second = read_twohop(write(tmp_path / name, [ROW, other]))
    assert first == QUESTION
    assert second.bridge == Entity("USA", ("USA", "US", "U.S."))


def test_a_data_set_on_the_hub(tmp_path, monkeypatch):
    write(tmp_path / "hub/some/twohop/TwoHop.csv", [ROW])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server(tmp_path / "hub") as (address, _):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        assert read_twohop("some/twohop") == [QUESTION]
        with pytest.raises(DownloadError, match="some/other"):
            read_twohop("some/other")


def test_questions_without_uid_or_aliases(tmp_path):
    bare = {k: v for k, v in ROW.items() if k not in ("uid", "category", "e2.aliases")}
    first, second = read_twohop(write(tmp_path / "q.jsonl", [bare, bare]))
    assert (first.uid, second.uid) == ("0", "1")
    assert first.bridge == Entity("France", ("France",))
    assert first.category == "x"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"e2.aliases": "__import__('os').system('false')"}, None),  # no tuple: a name, as it is
        ({"e2.aliases": "(__import__('os').getcwd(),)"}, "row 1: e2.aliases is not nested tuples"),
        ({"e2.aliases": "('a', 5)"}, "e2.aliases holds 5"),
        ({"e2.aliases": "(('a',)"}, "not nested tuples"),
        ({"e2.aliases": "(" * 100_000}, "not nested tuples"),
        ({"e2.aliases": "('" + "a" * 300_000 + "',)"}, "300,0.. characters"),
        ({"e2.aliases": "('a', -" + "-" * 50_000 + "1)"}, "e2.aliases"),
        ({"e2.aliases": {"a": 1}}, "e2.aliases holds {'a': 1}"),
        ({"e2.value": " "}, "e2.value is ' '; a string is expected"),
        ({"e3.value": 5}, "e3.value is 5"),
        ({"r1(e1).prompt": None}, r"r1\(e1\).prompt is None"),
    ],
)
def test_rows_that_are_no_questions(tmp_path, changes, words):
    path = write(tmp_path / "q.jsonl", [{**ROW, **changes}])
    if words is None:
        assert read_twohop(path)[0].bridge.aliases[1] == changes["e2.aliases"]
        return
    with pytest.raises(DataError, match=words):
        read_twohop(path)


def test_files_that_are_none(tmp_path):
    slip = {("e2.valeu" if k == "e2.value" else k): v for k, v in ROW.items()}
    with pytest.raises(DataError, match=r'no column e2.value. Did you mean "e2.valeu"'):
        read_twohop(write(tmp_path / "q.jsonl", [slip]))
    with pytest.raises(DataError, match="uid q7 is in an earlier row"):
        read_twohop(write(tmp_path / "q.jsonl", [ROW, ROW]))
    (tmp_path / "q.jsonl").write_text("")
    with pytest.raises(DataError, match="no questions"):
        read_twohop(str(tmp_path / "q.jsonl"))
    with pytest.raises(MissingFileError):
        read_twohop(str(tmp_path / "absent.jsonl"))
    (tmp_path / "q.txt").write_text("x")
    with pytest.raises(DataError, match=r"not one of .*\.csv"):
        read_twohop(str(tmp_path / "q.txt"))
    for name, data in {
        "a.csv": b"x,y\n1,2,3\n",
        "b.jsonl": b"[1]\n",
        "c.jsonl": b'{"a"',
        "d.jsonl": b"\xff\xfe",
        "e.parquet": b"PAR1 no",
        "f.json": b"[" * 100_000,
        "g.csv": b'x\n"' + b"a" * 11_000_000 + b'"',
        "h.jsonl.gz": gzip.compress(b"{}")[:-6],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            read_twohop(str(tmp_path / name))


def test_the_projects_own_facts_do_not_give_the_bridge_away():
    questions = read_twohop("facts")
    assert 50 <= len(questions) <= 100
    assert len({question.prompt for question in questions}) == len(questions)
    for question in questions:
        assert question.e1 in question.bridge_prompt
        assert question.e1 in question.prompt
        assert not names_entity(question.prompt, question.bridge.aliases)
        assert not names_entity(question.prompt, question.answer.aliases)
