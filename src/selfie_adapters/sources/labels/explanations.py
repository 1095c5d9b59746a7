"""Explanation rows as Neuronpedia exports them, and which of them become labels.

Every row that does not become a label is counted in the report.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files.json_text import mend_surrogates, parse_json
from selfie_adapters.sources.labels.label_set import NOBODY, Explainer, LabelColumns, LabelSet

_BLOCK = 2**18  # bytes of lines that are decoded at once

# What an explainer answers when it finds nothing. Newer exports put the token that excites the
# latent most in its place, which a row does not tell from a label of one word.
FAILED = {"unclear", "unsure", "first token"}


class ExplanationRow(msgspec.Struct, rename="camel"):
    """The fields of a row that matter; others, embeddings of either shape too, are skipped."""

    index: str | int
    description: str | None
    model_id: str | None = None
    layer: str | None = None  # the source, not a number
    type_name: str | None = None
    explanation_model_name: str | None = None


class Explanation(NamedTuple):
    latent: int
    text: str
    explainer: Explainer
    source_id: str | None  # model/source, where the row states it


_decoder = msgspec.json.Decoder(ExplanationRow)


def parse_rows(place: str, content: bytes) -> Iterator[Explanation]:
    """Rows of a JSONL file. Raises DataError with `place`, the line, and what is wrong in it."""
    lines, first = io.BytesIO(content), 1
    while block := lines.readlines(_BLOCK):
        try:
            rows = _decoder.decode_lines(b"".join(block))
            explanations = [_explanation(row) for row in rows]
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # read it again line by line, to name the line
            explanations = [
                _explanation_in(place, line, number)
                for number, line in enumerate(block, start=first)
                if line.strip()
            ]
        yield from explanations
        first += len(block)


def _explanation_in(place: str, line: bytes, number: int) -> Explanation:
    try:
        # A text that was cut in the middle of an emoji is no reason to lose the others.
        return _explanation(_decoder.decode(mend_surrogates(line)))
    except msgspec.ValidationError as error:
        shape = _expected(place, line, number)
        raise DataError(f"{place}, line {number}: {error}. {shape}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        parse_json(line, place, "One JSON object per line is expected.", line=number)
        raise DataError(f"{place}, line {number}: not an explanation ({error}).") from error
    except ValueError as error:
        raise DataError(f"{place}, line {number}: {error}") from error


def latent_number(index: str | int) -> int:
    """The latent that `index` names. Raises ValueError that states what is wrong."""
    text = str(index)
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError(f"index is {index!r:.40}; an integer from 0 is expected.")
    return int(text)


def explainer_name(explainer: Explainer) -> str:
    """How an explainer is written and asked for: model/type."""
    model, kind = explainer
    return f"{model or 'unknown'}/{kind or 'unknown'}"


def collect_labels(
    explanations: Iterable[Explanation],
    *,
    source_id: str | None = None,
    explainer: str | None = None,
    all_explainers: bool = False,
) -> LabelSet:
    """Labels by latent, of one explainer by default.

    source_id: rows that name another model/source are omitted. explainer: a model, or model/type.
    Without it the explainer (model and type) that labels the most latents is taken, the first by
    name among equals. Raises DataError for an explainer that wrote nothing.
    """
    usable, report = _usable(explanations, source_id)
    counts, latents = Counter[Explainer](), Counter[Explainer]()
    for _, rows in usable.rows():
        who_wrote = [who for _, who in rows]
        counts.update(who_wrote)
        latents.update({*who_wrote})
    by_size = sorted(latents, key=lambda who: (-latents[who], explainer_name(who)))
    if all_explainers:
        rule, kept = "all explainers", set(by_size)
    elif explainer is not None:
        rule, kept = f"explainer {explainer}", _named(explainer, by_size)
    else:
        rule, kept = "the explainer that labels the most latents", set(by_size[:1])
    labels = usable.of(kept)
    if by_size != [NOBODY]:  # rows that name no explainer leave nothing to say about them
        for who in by_size:
            what = "kept" if who in kept else "dropped; see --explainer and --all-explainers"
            size = f"{counts[who]} labels of {latents[who]} latents"
            report.append(f"{explainer_name(who)}: {size}, {what}")
        report.append(f"rule: {rule}")
        if words := sum(" " not in text for text in labels.texts()):
            report.append(
                f"{words} labels of one word, kept: some may be the top token, which is in "
                "where an explanation failed; the rows do not say"
            )
    origin = {
        "label_rule": rule,
        "label_explainers": [
            {"explanationModelName": who[0], "typeName": who[1], "labels": counts[who]}
            for who in by_size
            if who in kept
        ],
    }
    return LabelSet(labels, origin=origin, report=report, explainers=labels.explainers)


def _usable(
    explanations: Iterable[Explanation], source_id: str | None
) -> tuple[LabelColumns, list[str]]:
    """Rows that can be labels, each once, and lines that count the others."""
    found = LabelColumns()
    gone: Counter[str] = Counter()
    for one in explanations:
        if source_id and one.source_id and one.source_id != source_id:
            gone["rows of another source"] += 1
        elif not one.text:
            gone["empty descriptions"] += 1
        elif one.text.casefold().strip(" .\"'") in FAILED:
            gone[f"failed explanations ({', '.join(sorted(FAILED))})"] += 1
        else:
            found.add(one.latent, one.text, one.explainer)
    total = found.count + sum(gone.values())
    usable = found
    if next(found.repeats(), None) is not None:
        usable = LabelColumns()
        for latent, rows in found.rows():
            for text, who in dict.fromkeys(rows):
                usable.add(latent, text, who)
    dropped = {"repeated rows": found.count - usable.count, **gone}
    report = [f"{total} rows, {usable.count} labels"]
    report += [f"{count} {what}, dropped" for what, count in dropped.items() if count]
    return usable, report


def _named(name: str, explainers: Sequence[Explainer]) -> set[Explainer]:
    kept = {who for who in explainers if name in (who[0] or "unknown", explainer_name(who))}
    if not kept:
        models = dict.fromkeys(who[0] or "unknown" for who in explainers)
        known = [*models, *map(explainer_name, explainers)]
        hint = nearest(name, known) if known else "There are no labels at all."
        raise DataError(f"no label is by the explainer {name}. {hint}")
    return kept


def _explanation(row: ExplanationRow) -> Explanation:
    named = row.model_id is not None and row.layer is not None
    return Explanation(
        latent_number(row.index),
        (row.description or "").strip(),
        (row.explanation_model_name, row.type_name),
        f"{row.model_id}/{row.layer}" if named else None,
    )


def _expected(place: str, line: bytes, number: int) -> str:
    """The hint for a row of the wrong shape: a key that was meant, or the shape.

    Raises DataError where the row is no JSON at all, which its types hid.
    """
    shape = 'Expected {"index": "12", "description": "…"}.'
    row = parse_json(line, place, line=number)
    if not isinstance(row, dict) or {"index", "description"} <= set(row):
        return shape
    shown = ", ".join(f"{key:.40}" for key in list(row)[:12])
    return f"Found the keys {shown or 'none'}. {shape}"
