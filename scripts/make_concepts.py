"""Make the project's list of concepts from WordNet 3.0, as Debian packages it.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
    python scripts/make_concepts.py wordnet/usr/share

Writes concepts.jsonl, more_concepts.jsonl.gz, wordnet_nouns.txt.gz (the graph of synsets, see
wordnet_graph.py) and WORDNET_LICENSE into src/selfie_adapters/sources/topics. The same input
gives the same bytes. A row of the first two:
{"name": …, "labels": [name, "name, gloss", a synonym …], "group": …, "split": …}.

concepts.jsonl has 8,000 nouns, a tenth of them val and a tenth test. Names, synonyms, their
singular forms and the heads of compounds are in one split each (concept_splits.py).
more_concepts.jsonl.gz has further nouns to train on, which share none of these with val or test.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from concept_splits import keys_of, read_irregular, splits_of
from wordnet_graph import graph_text

# Lexicographer files of nouns, `lexnames(5WN)` 03 to 28, in our words.
GROUPS = {
    "03": "general", "04": "act", "05": "animal", "06": "artefact", "07": "attribute",
    "08": "body", "09": "thought", "10": "communication", "11": "event", "12": "feeling",
    "13": "food", "14": "social group", "15": "place", "16": "motive", "17": "natural object",
    "18": "person", "19": "phenomenon", "20": "plant", "21": "possession", "22": "process",
    "23": "quantity", "24": "relation", "25": "shape", "26": "state", "27": "substance",
    "28": "time",
}  # fmt: skip

LONGEST_GLOSS = 80  # characters
LARGEST_SHARE = 0.15  # of all concepts, for one group
# Glosses that mark a word as one a list of everyday concepts can do without.
UNWANTED = re.compile(
    r"offensive|obscen|vulgar|slang|disparag|slur|derogat|ethnic|copulat|sexual|genital|rape",
    re.IGNORECASE,
)
# The further nouns are rarer, so words of which the above leaves some are looked for in names too.
UNWANTED_FURTHER = re.compile(
    r"\b(?:anal|anus|bitch|brothel|bugger|cretin|ejaculat|erection|erotic|eunuch|feeble|fellatio"
    r"|final solution|harlot|imbecile|incest|lewd|masturbat|mulatto|nazi|negro|octoroon|penis|pimp"
    r"|prostitut|quadroon|racial|rape|retard|scrotum|sex acts|shit|sodomy|squaw|vagina|vulva"
    r"|wanton|whore)",
    re.IGNORECASE,
)
NO_CONCEPT = "nothing"  # the label of vectors without a concept, so no concept has it
PLAIN_WORD = re.compile(r"[A-Za-z]{3,}(?:[_-][A-Za-z]{2,})*")


@dataclass(frozen=True)
class Concept:
    name: str
    gloss: str
    synonyms: tuple[str, ...]
    group: str
    count: int  # how often the sense was met in WordNet's tagged corpus

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


def read_counts(cntlist: Path) -> Counter[str]:
    """Counts of each noun's first sense: `lemma%1:… sense_number count` a line."""
    counts: Counter[str] = Counter()
    for line in cntlist.read_text(encoding="utf-8").splitlines():
        key, sense, count = line.split()
        lemma, place = key.split("%")
        if place.startswith("1:") and sense == "1":
            counts[lemma] += int(count)
    return counts


def read_first_senses(index: Path) -> dict[str, str]:
    """Synset offset of each noun's most frequent sense (the first offset of its line)."""
    first: dict[str, str] = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.split()
        pointers = int(fields[3])
        first[fields[0]] = fields[4 + pointers + 2]
    return first


def short_gloss(gloss: str) -> str | None:
    """The definition alone: no examples, no bracketed hints, at most LONGEST_GLOSS characters."""
    text = gloss.split('; "')[0]
    text = re.sub(r"\([^)]*\)", " ", text)
    while len(text) > LONGEST_GLOSS and ";" in text:
        text = text.rsplit(";", 1)[0]
    text = re.sub(r"\s+", " ", text).strip(" ;:,.")
    balanced = text.count("(") == text.count(")") and '"' not in text
    return text if 8 <= len(text) <= LONGEST_GLOSS and balanced else None


def read_concepts(data: Path, first: dict[str, str], counts: Counter[str]) -> Iterator[Concept]:
    """One concept a synset: under its most frequent lemma whose first sense it is."""
    for line in data.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        head, gloss_text = line.split(" | ", 1)
        offset, lexfile, _, words, *rest = head.split()
        lemmas = rest[0 : 2 * int(words, 16) : 2]
        gloss = short_gloss(gloss_text)
        own = [w for w in lemmas if first.get(w.lower()) == offset and PLAIN_WORD.fullmatch(w)]
        if not own or gloss is None or UNWANTED.search(gloss_text):
            continue
        name = max(own, key=lambda w: counts[w.lower()])  # the first of equals
        others = tuple(w.replace("_", " ") for w in own if w != name)
        count = counts[name.lower()]
        yield Concept(name.replace("_", " "), gloss, others[:2], GROUPS[lexfile], count)


def read_mentions(data: Path, first: dict[str, str]) -> Counter[str]:
    """In how many glosses of nouns each noun of one or two words occurs."""
    mentions: Counter[str] = Counter()
    for line in data.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        words = re.findall(r"[a-z]+(?:[-'][a-z]+)*", line.split(" | ", 1)[1].lower())
        pairs = (f"{one}_{other}" for one, other in pairwise(words))
        mentions.update(noun for noun in {*words, *pairs} if noun in first)
    return mentions


def choose(
    concepts: Iterable[Concept], size: int, commonness: Callable[[Concept], Any], seed: int = 0
) -> list[Concept]:
    """Common words first, then others at random; no group above its share."""
    order = sorted(concepts, key=lambda c: (c.name.lower(), c.group))
    random.Random(seed).shuffle(order)
    order.sort(key=commonness, reverse=True)
    room = Counter(dict.fromkeys(GROUPS.values(), int(size * LARGEST_SHARE)))
    names: set[str] = set()
    chosen: list[Concept] = []
    for concept in order:
        if len(chosen) == size:
            break
        if NO_CONCEPT in concept.names:
            continue
        if room[concept.group] and concept.name.lower() not in names:
            room[concept.group] -= 1
            names.add(concept.name.lower())
            chosen.append(concept)
    return sorted(chosen, key=lambda c: (c.name.lower(), c.name))


def further(
    concepts: Iterable[Concept],
    chosen: list[Concept],
    taken: Callable[[Concept], bool],
    mentions: Counter[str],
    size: int,
) -> list[Concept]:
    """More nouns of one or two words, no proper names: the commonest that are not `taken`.

    A noun without a sense count is common if glosses mention it, or else all of its words.
    """
    known = {c.name.lower() for c in chosen}

    def commonness(concept: Concept) -> tuple[int, int, int]:
        words = re.split("[ -]", concept.name)
        parts = min(mentions[word] for word in words) if len(words) > 1 else 0
        return concept.count, mentions[concept.name.replace(" ", "_")], parts

    fit = [
        c for c in concepts
        if c.name.islower() and len(re.split("[ -]", c.name)) <= 2
        and c.name not in known and not UNWANTED_FURTHER.search("; ".join([*c.names, c.gloss]))
        and not taken(c)
    ]  # fmt: skip
    return choose(fit, size, commonness)


def rows_text(concepts: Iterable[Concept], splits: Iterable[str]) -> str:
    """The concepts as JSON lines."""
    lines = []
    for concept, split in zip(concepts, splits, strict=True):
        labels = [concept.name, f"{concept.name}, {concept.gloss}", *concept.synonyms]
        row = {"name": concept.name, "labels": labels, "group": concept.group, "split": split}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def write_gzip(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))  # without a time: always the same bytes


def licence_of(data: Path) -> str:
    """The licence as `data.noun` carries it: its leading lines, without their numbers."""
    lines = []
    for line in data.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            break
        lines.append(re.sub(r"^  \d+ ?", "", line).rstrip())
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("share", type=Path, help="folder that holds wordnet/data.noun")
    home = Path(__file__).parents[1] / "src/selfie_adapters/sources/topics"
    parser.add_argument("--out", type=Path, default=home)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--more", type=int, default=12000, help="size of more_concepts.jsonl.gz")
    options = parser.parse_args()
    wordnet = options.share / "wordnet"
    data = wordnet / "data.noun"
    counts = read_counts(wordnet / "cntlist.rev")
    first = read_first_senses(wordnet / "index.noun")
    irregular = read_irregular(wordnet / "noun.exc")
    concepts = list(read_concepts(data, first, counts))

    chosen = choose(concepts, options.size, lambda c: c.count)
    splits = splits_of([c.names for c in chosen], irregular)
    held_out = keys_of(
        [name for c, split in zip(chosen, splits, strict=True) if split != "train"
         for name in c.names],
        irregular,
    )  # fmt: skip
    more = further(
        concepts,
        chosen,
        lambda c: bool(keys_of(c.names, irregular) & held_out),
        read_mentions(data, first),
        options.more,
    )

    text = rows_text(chosen, splits)
    (options.out / "concepts.jsonl").write_text(text, encoding="utf-8")
    more_text = rows_text(more, ["train"] * len(more))
    write_gzip(options.out / "more_concepts.jsonl.gz", more_text)
    write_gzip(options.out / "wordnet_nouns.txt.gz", graph_text(data, first, irregular))
    (options.out / "WORDNET_LICENSE").write_text(licence_of(data), encoding="utf-8")
    common = sum(c.count > 0 for c in chosen)
    print(f"{len(chosen)} concepts ({common} with a sense count), {len(text):,} bytes")
    for split, count in Counter(splits).most_common():
        print(f"{count:6d}  {split}")
    for group, count in Counter(c.group for c in chosen).most_common():
        print(f"{count:6d}  {group}")
    print(f"{len(more)} more concepts, {len(more_text):,} bytes before compression")


if __name__ == "__main__":
    main()
