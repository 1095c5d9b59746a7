from __future__ import annotations

import base64
import gzip
import json
import re
from types import SimpleNamespace

import pytest

from report.test_reading_page import _Page
from run_folders import HOSTILE, labelling_run, loss_run, naming_run, training_run
from selfie_adapters.cli import main
from selfie_adapters.errors import ConfigError, DataError, MissingFileError
from selfie_adapters.report import label_table as tables
from selfie_adapters.report.label_table import ShownLabel, label_table
from selfie_adapters.report.labelling_section import concepts
from selfie_adapters.report.run_page import kind_of_run, write_run_page

pytest.importorskip("matplotlib")


def written(path, *runs):
    write_run_page(path, runs)
    return path.read_text(encoding="utf-8")


def packed(text, number=0):
    blocks = re.findall(r'class="packed" data-for="[^"]+">([^<]*)</script>', text)
    return json.loads(gzip.decompress(base64.b64decode(blocks[number])))


@pytest.fixture
def runs(tmp_path):
    return [
        labelling_run(tmp_path / "labels"),
        training_run(tmp_path / "train"),
        loss_run(tmp_path / "loss", {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 1.5, "y": 1.25}}),
        naming_run(tmp_path / "naming", {"adapter": 0.5, "zero vector": 0.1}),
    ]


def test_runs_are_recognized_by_their_files(runs):
    kinds = [kind_of_run(run) for run in runs]
    assert kinds == ["labelling", "training", "evaluation", "evaluation"]


def test_the_page_asks_for_nothing_from_outside_and_no_text_becomes_markup(tmp_path, runs):
    text = written(tmp_path / "r.html", *runs)
    page = _Page(text)
    assert all(link.startswith(("#run-", "#cross-")) for link in page.links)
    assert page.handlers == []
    assert page.tags.count("script") == 3  # the program, and one table each of two runs
    assert "img" not in page.tags
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    assert "\u202e" not in text


def test_every_label_is_on_the_page_next_to_the_given_one(tmp_path, runs):
    found = packed(written(tmp_path / "r.html", runs[0]))
    columns = found["columns"]
    assert {len(values) for values in columns.values()} == {60}
    assert columns["given"][:4] == ["thing 0", "thing 1", "thing 2", "thing 3"]
    assert columns["label"][1] == "thing 1"
    assert columns["label"][3] == HOSTILE.replace("\u202e", "\\u202e")
    verdicts = [found["verdicts"][code] for code in columns["verdict"]]
    assert verdicts[:3] == ["different", "equal", "equal"]
    assert [i for i, one in enumerate(columns["withheld"]) if one] == [9, 19, 29, 39, 49, 59]
    assert verdicts[9] == "below threshold"
    assert columns["value"][0] == 0.5  # the confidence
    assert columns["gain"][0] == 0.75


def test_further_concepts_of_a_vector_are_among_its_details():
    def concept(number, label, explained):
        return SimpleNamespace(concept_number=number, label=label, explained=explained)

    rows = [concept(2, "tower", 0.18), concept(1, "Paris", 0.42), concept(3, "", 0.05)]
    assert concepts(rows) == (
        ("explained", "42% of the vector"),
        ("further concepts", "tower (18%), ∅ (5%)"),
    )
    assert concepts(rows[1:2]) == (("explained", "42% of the vector"),)
    assert concepts([SimpleNamespace(label="one of several samples")]) == ()
    label = ShownLabel(0, "Paris", 1.0, details=concepts(rows))
    table = label_table("t", "Labels", [label, ShownLabel(1, "x", 1.0)], "gain")
    content = json.loads(gzip.decompress(base64.b64decode(table.packed)))
    assert content["columns"]["details"] == [[list(one) for one in concepts(rows)], []]


def test_failures_are_the_surest_labels_that_differ(tmp_path, runs):
    text = written(tmp_path / "r.html", runs[0])
    gallery = text[text.index("<h3>Failures</h3>") : text.index("<h3>Controls</h3>")]
    shown = re.findall(r"<bdi>(thing \d+)</bdi>.*?confidence (\d+)%", gallery)
    # rows 57, 54, 51, … : multiples of three that are not withheld; confidence rises with the row
    wrong = [i for i in range(0, 60, 3) if i % 10 != 9]
    assert [name for name, _ in shown] == [f"thing {i}" for i in reversed(wrong)]
    assert [int(share) for _, share in shown] == sorted((int(s) for _, s in shown), reverse=True)


def test_controls_have_intervals_and_a_sentence(tmp_path, runs):
    text = written(tmp_path / "r.html", runs[0])
    assert re.search(r"vectors of this run<br>.*?4 vectors.*?2\.00 \[1\.\d+, 2\.\d+\]", text, re.S)
    assert re.search(r"random<br>.*?0\.60 \[0\.5\d, 0\.6\d\]", text, re.S)
    assert "random directions 0.60" in text
    assert "-0.00" not in text
    # 60 labels: 6 withheld, 20 multiples of three of which 2 are withheld (9, 39)
    assert "36 equal (60%), 18 different, 6 withheld" in text


def test_a_training_run_has_its_last_samples_and_its_curve(tmp_path, runs):
    text = written(tmp_path / "r.html", runs[1])
    assert "Labels after step 8" in text
    assert "late " in text
    assert "early " not in text
    assert "Lowest validation loss 0.3750 nats per token, at step 8." in text
    assert text.count('<svg role="img"') == 1
    (figure,) = re.findall(r"<svg.*?</svg>", text, re.S)
    assert not re.search(
        r"#(?!fff)[0-9a-f]{6}\b(?!\))", re.sub(r'(id|href|url\()="?[^"]*', "", figure)
    )
    assert "var(--own)" in figure  # figures take the page's colors
    assert "<script>" not in text


def test_the_matrix_is_over_all_evaluations(tmp_path):
    one = loss_run(tmp_path / "one", {"a": {"x": 1.0}})
    two = loss_run(tmp_path / "two", {"b": {"x": 3.0, "y": 2.0}})
    text = written(tmp_path / "r.html", one, two)
    matrix = text[text.index('<table class="matrix">') :]
    matrix = matrix[: matrix.index("</table>")]
    heads = re.findall(r'<th scope="col">([^<]*)<', matrix)
    assert heads == ["x", "y"]
    rows = {
        name: re.findall(r'--shade: ([\d.]+)">([^<]*)<', cells)
        for name, cells in re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', matrix, re.S)
    }
    assert [*rows] == ["a", "b", "untrained", "a, shuffled", "b, shuffled"]
    assert [text for _, text in rows["a"]] == ["1.000 [0.900, 1.100]", "–"]
    assert [text for _, text in rows["b"]] == ["3.000 [2.900, 3.100]", "2.000 [1.900, 2.100]"]
    # the lowest of a column is the darkest
    assert rows["a"][0][0] == "1.0"
    assert rows["b"][0][0] == "0.5"


def test_equal_names_of_different_files_are_told_apart(tmp_path):
    one = loss_run(tmp_path / "one", {"a": {"x": 1.0}}, "first-")
    two = loss_run(tmp_path / "two", {"a": {"x": 3.0}}, "second-")
    text = written(tmp_path / "r.html", one, two)
    assert "x (first-x)" in text
    assert "x (second-x"[:-1] in text


def test_one_pair_makes_no_matrix(tmp_path):
    text = written(tmp_path / "r.html", loss_run(tmp_path / "one", {"a": {"x": 1.0}}))
    assert "Cross-tests" not in text
    assert "a on x" in text
    worst = text[text.index("<h3>Failures</h3>") :]
    assert worst.index("label 39") < worst.index("label 38") < worst.index("label 37")


def test_a_naming_run_shows_the_adapters_labels_alone(tmp_path, runs):
    text = written(tmp_path / "r.html", runs[3])
    found = packed(text)
    assert len(found["columns"]["label"]) == 20
    assert sorted(set(found["verdicts"])) == ["no concept", "related", "right", "wrong"]
    assert "what zero vector is" in text
    assert re.search(
        r'<tr class="own"><th scope="row">adapter.*?0\.50 \[0\.40, 0\.60\]', text, re.S
    )


def test_more_rows_than_fit_are_counted(monkeypatch):
    monkeypatch.setattr(tables, "ROWS_ON_A_PAGE", 5)
    found = label_table("t", "Labels", (ShownLabel(i, "x", 1.0) for i in range(8)), "gain")
    assert (found.rows, len(found.first)) == (5, 5)
    assert "The first 5 of 8 vectors" in found.note
    assert label_table("t", "Labels", [], "gain") is None


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("reading.json", "{}", ConfigError, "reading.html"),
        ("results.json", '{"places": []}', ConfigError, "report.html"),
        ("other.txt", "", MissingFileError, "not the folder of a run"),
        ("config.json", '{"protocol": "loss"}', MissingFileError, "Run the same selfie eval"),
        ("config.json", "{", DataError, "config.json"),
        ("config.json", '{"settings": {}, "vectors": -1}', DataError, "config.json"),
    ],
)
def test_other_folders_are_refused(tmp_path, file, content, error, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / file).write_text(content)
    with pytest.raises(error, match=message):
        write_run_page(tmp_path / "r.html", [folder])
    assert not (tmp_path / "r.html").exists()


def test_results_of_another_form_are_one_line(tmp_path):
    folder = loss_run(tmp_path / "loss", {"a": {"x": 1.0}})
    results = json.loads((folder / "results.json").read_text())
    del results["cells"][0]["loss"]["trained"]["low"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(DataError, match="not the results of this version's selfie eval loss"):
        write_run_page(tmp_path / "r.html", [folder])


def test_a_protocol_of_another_version_still_has_its_facts(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    results = {"protocol": "unheard of", "settings": {"model": "m"}, "counts": {"things": 3}}
    (folder / "results.json").write_text(json.dumps(results))
    assert "things: 3" in written(tmp_path / "r.html", folder)


def test_the_command_writes_into_the_first_run(tmp_path, runs, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(runs[1]), str(runs[2])])
    said = capsys.readouterr().out
    assert (runs[1] / "report.html").is_file()
    assert "loss: evaluation: loss" in said
    for words, message in (
        ([], "give the folder of at least one run"),
        ([str(runs[1]), str(runs[1] / ".")], "given twice"),
        ([str(tmp_path / "none")], "no such folder"),
        ([str(runs[1]), "--out", str(tmp_path)], "is a folder"),
    ):
        with pytest.raises(SystemExit):
            main(["report", *words])
        assert message in capsys.readouterr().err.replace("\n", " ")


def test_runs_of_one_name_have_their_parents_in_it(tmp_path):
    runs = [training_run(tmp_path / parent / "run") for parent in ("a", "b")]
    names = [one.name for one in write_run_page(tmp_path / "r.html", runs)]
    assert names == ["a/run", "b/run"]
