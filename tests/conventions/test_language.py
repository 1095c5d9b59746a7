"""Code and documents use standard terms: phrases that readers stumble over are found here.

Each pattern is searched line by line, case aside, in sources, configurations and documents (not in
tests). Where a word has a legitimate use the pattern asks for the context of the other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEARCHED = ("src", "docs", "data", "training", "evaluation", "benchmarks", "scripts", "examples")
SUFFIXES = (".py", ".md", ".html", ".js", ".css", ".yaml", ".toml", ".sh")

_COUNTED = "nats|bytes|numbers|tokens|rows|lines|words|cells|questions|templates|titles|passes"
_EACH = (
    "token|vector|layer|label|row|line|title|second|minute|question|latent|prompt|position|cell"
    "|topic|batch|item|shard|file|case|name|concept|word|part|condition|block|command|column"
)
PHRASES = {
    rf"\b({_COUNTED}|one|two|three|\d+( \w+)?|\w+ing) a ({_EACH})\b": "per, or `in each`",
    r"_(a|an)_(vector|token|layer|label|row|part|line|title|latent|shard|topic)s?\b": "_per_",
    r"\b(go|goes|going|went) on\b|\btaken up\b": "resumes, continues",
    r"\btexts\b": "strings, prompts, completions, generated text",
    r"whole or not at all": "atomically",
    r"\bbeside\b": "next to; compared with, alongside",
    r"\b(stands|stood|lies|lay)\b(?! for\b)": "is, is stored",
    r"\bblanks\b": "whitespace, gaps",
    r"\banew\b": "again, from scratch",
    r"\b(left|leaves?|leaving)( it| them| that)? out\b": "omit, exclude, drop",
    r"\bso many\b": "the first N, this number of",
    r"number.?format": "dtype",
    r"\bplain way\b": "baseline, naive implementation",
    r"\b(parts|pieces) of a batch\b": "micro-batches",
    r"\b(matrix|plain) products?\b": "matmuls",
    r"\bfoils?\b": "distractors, negatives",
    r"\bway of drawing\b|\bdrawn (label|in another way)": "sampling",
    r"\b(wants?|wanted)\b": "requires, requested",
    r"\bfor nothing\b": "for free",
    r"\bturn about\b|\bby turns\b": "alternating",
    r"\bparted by\b": "separated by",
    r"\b(is|are|be|can be) had\b": "is obtained",
    r"\bspelt\b|\bshall\b|\blikewise\b": "written, should, also",
    r"roads lead": "ways to",
    r"normalis|behaviour|optimis|quantis|recognis|initialis|serialis|penalis|tokenis|summaris"
    r"|centr(ed|ing)\b|\bcentre\b|favour|\bgrey\b|\bcolour": "American spelling",
    r"\b(DESIGN|FACTS|STYLE|ECOSYSTEM)\b|\bissue #?\d": "no documents outside the repository",
}

PENDING = (
    *(f"src/selfie_adapters/{name}/" for name in ("evaluation", "sources", "model", "commands")),
    *(f"src/selfie_adapters/{name}/" for name in ("inference", "training")),
    *(f"src/selfie_adapters/{name}/" for name in ("config", "adapters")),
    *(f"src/selfie_adapters/{name}/" for name in ("dataset", "tensor_files")),
    *("docs/", "scripts/", "benchmarks/", "README.md", "CHANGELOG.md", "training/", "evaluation/"),
    *("examples/", "data/"),
)


def searched_files() -> Iterator[Path]:
    for folder in SEARCHED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path
    yield from sorted(ROOT.glob("*.md"))
    yield from (ROOT / "Makefile", ROOT / "pyproject.toml")


def found_in(text: str) -> list[tuple[int, str, str]]:
    """(line number, the phrase, what to use) of every phrase in `text`."""
    return [
        (number, match[0], better)
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, better in _COMPILED
        if (match := pattern.search(line))
    ]


_COMPILED = [
    (re.compile(pattern, 0 if "DESIGN" in pattern else re.IGNORECASE), better)
    for pattern, better in PHRASES.items()
]


def test_sources_and_documents_use_standard_terms():
    files = list(searched_files())
    assert len(files) > 150
    found = [
        f"{path.relative_to(ROOT)}:{number}: {phrase!r}; use {better}"
        for path in files
        if not str(path.relative_to(ROOT)).startswith(PENDING)
        for number, phrase, better in found_in(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "loss in nats a token",
        "one a layer",
        "17 labels a vector",
        "batching a row",
        "labels_a_vector = 2",
        "a run goes on",
        "both texts",
        "beside its controls",
        "the file lies there",
        "Normalise it",
        "see DESIGN",
    ],
)
def test_phrases_are_found(line):
    assert len(found_in(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "An adapter labels a vector.",
        "nats per token",
        "a placeholder stands for the vector",
        "design of the text model",
        "two blocks, a layer and a token",
        "the context a row has",
    ],
)
def test_other_uses_are_not(line):
    assert found_in(line) == []
