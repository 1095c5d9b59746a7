"""WordNet's nouns as a graph in one small text: synsets with lemmas and hypernyms, and plurals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfie_adapters.sources.topics.noun_forms import Irregular

HYPERNYMS = ("@", "@i")  # of a kind, and of an instance: owl → bird of prey, Paris → capital


def graph_text(data: Path, first: Mapping[str, str], irregular: Irregular) -> str:
    """What `selfie_adapters.sources.topics.wordnet` reads, from `data.noun` of WordNet.

    first: the offset of each lemma's first sense, as in `index.noun`.
    """
    synsets: dict[str, tuple[list[str], list[str]]] = {}
    for line in data.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        offset, _lexfile, _kind, words, *rest = line.split(" | ")[0].split()
        lemmas, rest = rest[: 2 * int(words, 16) : 2], rest[2 * int(words, 16) + 1 :]
        above = [
            to for symbol, to in zip(rest[::4], rest[1::4], strict=True) if symbol in HYPERNYMS
        ]
        synsets[offset] = lemmas, above
    number = {offset: i for i, offset in enumerate(synsets)}
    lines = []
    for i, (offset, (lemmas, above)) in enumerate(synsets.items()):
        marked = [word + "*" * (first.get(word.lower()) == offset) for word in lemmas]
        # Numbers that count from this line are short, and repeat from line to line.
        lines.append("\t".join([" ".join(marked), *(str(i - number[to]) for to in above)]))
    plurals = [" ".join([plural, *singular]) for plural, singular in irregular.items()]
    return "\n".join([*lines, "", *plurals]) + "\n"
