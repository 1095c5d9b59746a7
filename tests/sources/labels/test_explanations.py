from __future__ import annotations

import json

import pytest

from export_bucket import FLASH, MINI, SOURCE_ID, row
from selfie_adapters.errors import DataError
from selfie_adapters.sources.labels.explanations import collect_labels, parse_rows


def parsed(*rows):
    return list(parse_rows("b", b"\n".join(json.dumps(one).encode() for one in rows)))


def test_both_shapes_of_embedding_and_of_index():
    rows = parsed(row(3, "three"), row("4", "four", old=True), row(5, "five", index=5))
    assert [(one.latent, one.text) for one in rows] == [(3, "three"), (4, "four"), (5, "five")]
    assert {one.explainer for one in rows} == {MINI}
    assert {one.source_id for one in rows} == {SOURCE_ID}


def test_a_bad_row_is_named_with_its_line():
    with pytest.raises(DataError, match=r"b, line 2: index is 'x3'"):
        parsed(row(3, "three"), row("x3", "four"))


SEVERAL = [
    row(0, "a zero", FLASH),
    row(0, "nought at all", MINI),
    row(1, "a one", MINI),
    row(1, "the first one", MINI),
    row(2, "a two", FLASH),
    row(2, "a pair", (MINI[0], "np_max-act-logits")),
]


def test_by_default_the_explainer_of_most_latents_and_never_a_mixture():
    # latents: gpt-4o-mini/oai 0, 1; gemini 0, 2; gpt-4o-mini/np 2. Of the two with two latents
    # the first by name is gemini-2.0-flash, though gpt-4o-mini/oai has more labels.
    labels = collect_labels(parsed(*SEVERAL))
    assert labels.labels == {0: ["a zero"], 2: ["a two"]}
    assert labels.explainers == {0: [FLASH], 2: [FLASH]}
    assert labels.report == [
        "6 rows, 6 labels",
        "gemini-2.0-flash/np_max-act-logits: 2 labels of 2 latents, kept",
        "gpt-4o-mini/oai_token-act-pair: 3 labels of 2 latents, dropped; "
        "see --explainer and --all-explainers",
        "gpt-4o-mini/np_max-act-logits: 1 labels of 1 latents, dropped; "
        "see --explainer and --all-explainers",
        "rule: the explainer that labels the most latents",
    ]
    assert labels.origin == {
        "label_rule": "the explainer that labels the most latents",
        "label_explainers": [{"explanationModelName": FLASH[0], "typeName": FLASH[1], "labels": 2}],
    }
    assert collect_labels(parsed(*SEVERAL[::-1])).labels == labels.labels


def test_one_more_latent_decides():
    labels = collect_labels(parsed(*SEVERAL, row(7, "a seven", MINI)))
    assert labels.labels == {0: ["nought at all"], 1: ["a one", "the first one"], 7: ["a seven"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o-mini/oai_token-act-pair", {0: ["nought at all"], 1: ["a one", "the first one"]}),
        (
            "gpt-4o-mini",  # both of its types
            {0: ["nought at all"], 1: ["a one", "the first one"], 2: ["a pair"]},
        ),
    ],
)
def test_an_explainer_by_name(name, expected):
    labels = collect_labels(parsed(*SEVERAL), explainer=name)
    assert labels.labels == expected
    assert f"rule: explainer {name}" in labels.report


def test_all_explainers_in_the_order_of_the_rows():
    labels = collect_labels(parsed(*SEVERAL), all_explainers=True)
    assert labels.labels[0] == ["a zero", "nought at all"]
    assert labels.explainers[0] == [FLASH, MINI]
    assert len(labels) == 6


def test_rows_without_explainer_can_be_asked_for():
    rows = parsed(*SEVERAL, row(3, "by hand", (None, None)))
    assert collect_labels(rows, explainer="unknown").labels == {3: ["by hand"]}


def test_an_unknown_explainer_gets_the_nearest():
    with pytest.raises(DataError, match=r'gpt-4-mini. Did you mean "gpt-4o-mini"\?'):
        collect_labels(parsed(*SEVERAL), explainer="gpt-4-mini")


def test_whatever_is_left_out_is_counted():
    rows = parsed(
        row(0, "a cat"),
        row(0, " a cat "),
        row(1, ""),
        row(2, None),
        row(3, "Unclear."),
        row(4, "first token"),
        row(5, "unclear speech"),
        row(6, "cats"),
        row(7, "elsewhere", layer="20-llamascope-res-32k"),
    )
    labels = collect_labels(rows, source_id=SOURCE_ID)
    assert labels.labels == {0: ["a cat"], 5: ["unclear speech"], 6: ["cats"]}
    assert labels.report[:5] == [
        "9 rows, 3 labels",
        "1 repeated rows, dropped",
        "2 empty descriptions, dropped",
        "2 failed explanations (first token, unclear, unsure), dropped",
        "1 rows of another source, dropped",
    ]
    assert labels.report[-1].startswith("1 labels of one word, kept: some may be the top token")
