"""Code and documents use standard terms: phrases that readers stumble over are found here.

What is searched, case aside: comments, docstrings, messages and help in Python files, names in
them (for the patterns in NAMES), and lines of other files without code. Tests are not searched.
Where a word has a legitimate use the pattern requires the context of the other one.
"""

from __future__ import annotations

import io
import re
import tokenize
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
_BRITISH = (
    "normalis|behaviour|optimis|quantis|recognis|initialis|serialis|penalis|tokenis|summaris"
    r"|centr(ed|ing)\b|\bcentre\b|favour|\bgrey\b|\bcolour"
)
PHRASES = {
    rf"\b({_COUNTED}|one|two|three) a (?!name)({_EACH})\b(?! (has|can|of)\b)": "per, or `in each`",
    rf"\b\d+( (ms|s|[kMG]B|MiB|GiB|bytes|tokens|rows|vectors))? a ({_EACH})\b": "per, or `in each`",
    r"\b(\d+|many|several|more|fewer) labels a vector\b": "labels per vector",
    r"\b(go|goes|going|went) on\b|\btaken up\b": "resumes, continues",
    r"\btexts\b": "strings, prompts, completions, generated text",
    r"whole or not at all": "atomically",
    r"\bbeside\b": "next to; compared with, alongside",
    r"\b(stands|stood|lies|lay)\b(?! for\b)": "is, is stored",
    r"\bblanks\b": "whitespace, gaps",
    r"\banew\b": "again, from scratch",
    r"\b(left|leaves?|leaving)( it| them| that)? out\b": "omit, exclude, drop",
    r"\bso many\b": "the first N, this number of",
    r"number format": "dtype",
    r"\bplain way\b": "baseline, naive implementation",
    r"\b(parts|pieces) of a batch\b": "micro-batches",
    r"\b(matrix|plain) products?\b": "matmuls",
    r"\bway of drawing\b|\bdrawn (label|in another way)": "sampling",
    r"\b(wants?|wanted)\b": "requires, requested",
    r"\b(file|source|settings|configuration|config|registry|listing|row|header|nothing) says?\b"
    r"|\bunless told\b": "states, reports, contains",
    r"\bfor nothing\b": "for free",
    r"\bturn about\b|\bby turns\b": "alternating",
    r"\bparted by\b": "separated by",
    r"\b(is|are|be|can be) had\b": "is obtained",
    r"\bspelt\b|\bshall\b|\blikewise\b": "written, should, also",
    r"roads lead": "ways to",
    _BRITISH: "American spelling",
    r"\b(DESIGN|FACTS|STYLE|ECOSYSTEM)\b|\bissue #?\d": "no documents outside the repository",
}
NAMES = {
    r"_(a|an)_(vector|token|layer|label|row|part|line|title|latent|shard|topic)s?$": "_per_",
    r"number_?format|anew|spelt": "dtype, again, written",
    _BRITISH.replace(r"\b", ""): "American spelling",
}
KEPT = (
    "left out: every alias stands in the question",  # a key of results.json
    '"Go on."',  # a sentence that a model reads
)


def searched_files() -> Iterator[Path]:
    for folder in SEARCHED:
        for path in sorted((ROOT / folder).rglob("*")):
            known = path.suffix in SUFFIXES and path.name != "make_sample_data.py"  # it has labels
            if known and "__pycache__" not in path.parts:
                yield path
    yield from sorted(ROOT.glob("*.md"))
    yield from (ROOT / "Makefile", ROOT / "pyproject.toml")


def prose_and_names(path: Path, text: str) -> Iterator[tuple[int, str, bool]]:
    """(line number, text, whether it is a name) of everything that is searched in a file."""
    for content in KEPT:
        text = text.replace(content, "''")
    if path.suffix != ".py":
        if path.suffix == ".md":  # code is not prose; line numbers stay
            text = re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), text, flags=re.S)
            text = re.sub(r"`[^`\n]*`", "`", text)
        if path.suffix == ".yaml":
            text = re.sub(r"^(\s*#?\s*)\w+:", r"\1", text, flags=re.MULTILINE)
        yield from ((number, line, False) for number, line in enumerate(text.splitlines(), 1))
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string, True
        elif token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False
        elif token.type == tokenize.STRING and re.search(r"\s", token.string):  # else it is a key
            shown = token.string
            if "f" in re.split("[\"']", shown, maxsplit=1)[0].lower():
                shown = re.sub(r"\{[^{}]*\}", "{}", shown)
            shown = re.sub(r"`[^`\n]*`", "`", shown)
            for number, line in enumerate(shown.splitlines(), token.start[0]):
                yield number, line, False


def found_in(path: Path, text: str) -> list[tuple[int, str, str]]:
    """(line number, the phrase, what to use) of every phrase in `text`."""
    return [
        (number, match[0], better)
        for number, part, is_name in prose_and_names(path, text)
        for pattern, better in (_COMPILED_NAMES if is_name else _COMPILED)
        if (match := pattern.search(part))
    ]


def _compiled(phrases: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(pattern, 0 if "DESIGN" in pattern else re.IGNORECASE), better)
        for pattern, better in phrases.items()
    ]


_COMPILED, _COMPILED_NAMES = _compiled(PHRASES), _compiled(NAMES)


def test_sources_and_documents_use_standard_terms():
    files = list(searched_files())
    assert len(files) > 150
    found = [
        f"{path.relative_to(ROOT)}:{number}: {phrase!r}; use {better}"
        for path in files
        for number, phrase, better in found_in(path, path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "loss in nats a token",
        "one a layer",
        "17 labels a vector",
        "1.5 GB a file",
        "a run goes on",
        "both texts",
        "beside its controls",
        "the file lies there",
        "Normalise it",
        "see DESIGN",
    ],
)
def test_phrases_are_found(line):
    assert len(found_in(Path("page.md"), line)) == 1
    assert len(found_in(Path("code.py"), f"x = 1  # {line}\n")) == 1
    assert len(found_in(Path("code.py"), f'"""First line.\n\n    {line}"""\n')) == 1


@pytest.mark.parametrize(
    "line",
    [
        "An adapter labels a vector.",
        "nats per token",
        "a placeholder stands for the vector",
        "design of the text model",
        "two blocks, a layer and a token",
        "the context a row has",
        "`selfie eval detection --texts FILE`",
    ],
)
def test_other_uses_are_not(line):
    assert found_in(Path("page.md"), line) == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("labels_a_vector = colours = 2", 2),
        ("row['texts'] = texts", 0),
        ("f'{wanted} is unknown'", 0),
        ("f'{wanted} is wanted'", 1),
        ("mean_of_a_row = 1", 1),
        ("def centred(): ...", 1),
    ],
)
def test_names_in_code(code, count):
    assert len(found_in(Path("code.py"), code)) == count
