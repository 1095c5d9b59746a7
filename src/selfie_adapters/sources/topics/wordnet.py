"""The nouns of WordNet 3.0 as a graph: synsets with their lemmas and direct hypernyms.

The package holds it as `wordnet_nouns.txt.gz`, which scripts/make_concepts.py writes. A line is a
synset: its lemmas, separated by spaces and with "_" for a space, each with a "*" if this is its
first sense; then, each after a tab, how many lines before this one a direct hypernym is. After an
empty line come irregular plurals, each with its singular forms.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as package_files

from selfie_adapters.sources.topics.noun_forms import Irregular, noun_forms

_JOINED = str.maketrans("", "", " '.-_")


@dataclass(frozen=True)
class Nouns:
    """Synsets by number. A hypernym is that of a kind, or of an instance (Paris → capital)."""

    lemmas: list[tuple[str, ...]]
    """Those of each synset, as WordNet writes them, with spaces."""
    hypernyms: list[tuple[int, ...]]
    """Direct ones of each synset."""
    irregular: Irregular
    """Irregular plurals with their singular forms."""
    _hyponyms: dict[int, list[int]] = field(repr=False)
    _senses: dict[str, list[int]] = field(repr=False)
    _first_senses: dict[str, list[int]] = field(repr=False)

    def senses(self, text: str) -> set[int]:
        """All synsets of a noun or of what it may be a plural of, commonest or not."""
        forms = noun_forms(text, self.irregular)
        return {synset for form in forms for synset in self._senses.get(form, ())}

    def first_senses(self, text: str) -> set[int]:
        """The first sense of a noun; for one that WordNet lists in the singular only, of that.

        Spellings that differ by hyphens, spaces or capitals may have a first sense each.
        """
        own = noun_forms(text, self.irregular, plurals=False)
        forms = own if own & self._first_senses.keys() else noun_forms(text, self.irregular)
        return {synset for form in forms for synset in self._first_senses.get(form, ())}

    def names(self, synset: int) -> list[str]:
        """The lemmas of a synset whose first sense it is: "owl", not "hooter", names the bird."""
        return [
            word for word in self.lemmas[synset] if synset in self._first_senses.get(_key(word), ())
        ]

    def related(self, synsets: Iterable[int]) -> set[int]:
        """Direct hypernyms and hyponyms of `synsets`, and siblings: what shares a hypernym."""
        own = set(synsets)
        found: set[int] = set()
        for synset in own:
            found.update(self._hyponyms.get(synset, ()))
            for above in self.hypernyms[synset]:
                found.add(above)
                found.update(self._hyponyms[above])
        return found - own


@cache
def packaged_nouns() -> Nouns:
    """WordNet's nouns as the package brings them: 82,115 synsets. Read once, in half a second."""
    data = (package_files("selfie_adapters.sources.topics") / "wordnet_nouns.txt.gz").read_bytes()
    return read_nouns(gzip.decompress(data).decode())


def read_nouns(text: str) -> Nouns:
    """The graph from its text, whose form is that of this module's docstring."""
    synsets, _, plurals = text.partition("\n\n")
    lemmas: list[tuple[str, ...]] = []
    hypernyms: list[tuple[int, ...]] = []
    hyponyms: defaultdict[int, list[int]] = defaultdict(list)
    senses: defaultdict[str, list[int]] = defaultdict(list)
    first_senses: defaultdict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(synsets.split("\n")):
        words, *above = line.split("\t")
        for word in words.split(" "):
            key = _key(word.rstrip("*"))
            senses[key].append(number)
            if word.endswith("*"):
                first_senses[key].append(number)
        plain = words.replace("*", "").split(" ")
        lemmas.append(tuple(word.replace("_", " ") for word in plain))
        hypernyms.append(tuple(number - int(back) for back in above))
        for upper in hypernyms[-1]:
            hyponyms[upper].append(number)
    irregular = {
        plural: tuple(singular)
        for plural, *singular in (line.split(" ") for line in plurals.split("\n") if line)
    }
    return Nouns(lemmas, hypernyms, irregular, dict(hyponyms), dict(senses), dict(first_senses))


def _key(lemma: str) -> str:
    """A lemma as `noun_forms` writes it."""
    return lemma.lower().translate(_JOINED)
