import gzip
import json

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.sources.topics.titles import read_titles

TITLES = ["Barn owl", "Éclair", "2+2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", json.dumps({"titles": [*TITLES, "Barn owl"], "more": 1})),
        ("t.json", json.dumps(TITLES)),
        ("t.jsonl", "\n".join(json.dumps({"title": t, "x": 1}) for t in TITLES)),
        ("t.jsonl", "\n".join(json.dumps(t) for t in TITLES)),
        ("t.txt", "Barn  owl \r\n\n Éclair\n2+2\nBarn owl\n"),
        ("t", "\ufeffBarn owl\nÉclair\n2+2"),
        ("t.json", '{"x": NaN, "titles": ["Barn owl", "\\u00c9clair", "2+2", "\\u00c9clair"]}'),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_form(tmp_path, name, text, packed):
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert read_titles(path) == TITLES


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.json", b'{"title": []}', "A list of titles"),
        ("t.json", b'{"titles": ["a", 5]}', "title 2: 5; a string is expected"),
        ("t.json", b'{"titles": ["a", " "]}', "title 2: ' '"),
        ("t.json", b"[" * 100_000, "nested too deeply"),
        ("t.jsonl", b'{"label": "x"}', "title 1: None"),
        ("t.jsonl", b'"a"\n{"ti', "line 2, column 5: not JSON"),
        ("t.txt", b"a" * 301, "301 characters"),
        ("t.txt", b"\xff\xfe", "not UTF-8"),
        ("t.txt", b"\n \n", "no titles"),
        ("t.json", b"[]", "no titles"),
        ("t.json", b'{"titles": ["a", ["b"]]}', "title 2: \\['b'\\]"),
        ("t.json", b'["a", "b"', "line 1, column 10: not JSON"),
        ("t.json", b'{"titles": {"a": "b"}}', "A list of titles"),
    ],
)
def test_files_that_hold_no_titles(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_titles(tmp_path / name)


def test_titles_that_occur_again_are_left_out_where_the_first_stays(tmp_path):
    names = [f"n{number % 700}" for number in range(1000)] + ["once"]
    (tmp_path / "t.txt").write_text("\n".join(names))
    assert [*read_titles(tmp_path / "t.txt")] == [*dict.fromkeys(names)]


def test_a_title_with_half_of_a_character_is_read(tmp_path):
    (tmp_path / "t.json").write_text('["owl \\ud83e", "bee"]')
    assert [*read_titles(tmp_path / "t.json")] == ["owl \ufffd", "bee"]
