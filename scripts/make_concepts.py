"""Make the project's list of concepts from WordNet 3.0, as Debian packages it.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
    python scripts/make_concepts.py wordnet/usr/share

Writes concepts.jsonl and WORDNET_LICENSE into src/selfie_adapters/sources. The same input gives the
same bytes. A row: {"name": …, "labels": [name, "name, gloss", a synonym …], "group": …}.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
PLAIN_WORD = re.compile(r"[A-Za-z]{3,}(?:[_-][A-Za-z]{2,})*")


@dataclass(frozen=True)
class Concept:
    name: str
    gloss: str
    synonyms: tuple[str, ...]
    group: str
    count: int  # how often the sense was met in WordNet's tagged texts


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


def choose(concepts: list[Concept], size: int, seed: int = 0) -> list[Concept]:
    """Common words first (by count), then others at random; no group above its share."""
    order = sorted(concepts, key=lambda c: (c.name.lower(), c.group))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda c: -c.count)
    room = Counter(dict.fromkeys(GROUPS.values(), int(size * LARGEST_SHARE)))
    names: set[str] = set()
    chosen: list[Concept] = []
    for concept in order:
        if len(chosen) == size:
            break
        if room[concept.group] and concept.name.lower() not in names:
            room[concept.group] -= 1
            names.add(concept.name.lower())
            chosen.append(concept)
    return sorted(chosen, key=lambda c: (c.name.lower(), c.name))


def row(concept: Concept) -> dict[str, object]:
    labels = [concept.name, f"{concept.name}, {concept.gloss}", *concept.synonyms]
    return {"name": concept.name, "labels": labels, "group": concept.group}


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
    home = Path(__file__).parents[1] / "src/selfie_adapters/sources"
    parser.add_argument("--out", type=Path, default=home)
    parser.add_argument("--size", type=int, default=8000)
    options = parser.parse_args()
    wordnet = options.share / "wordnet"
    counts = read_counts(wordnet / "cntlist.rev")
    first = read_first_senses(wordnet / "index.noun")
    chosen = choose(list(read_concepts(wordnet / "data.noun", first, counts)), options.size)
    text = "".join(json.dumps(row(c), ensure_ascii=False) + "\n" for c in chosen)
    (options.out / "concepts.jsonl").write_text(text, encoding="utf-8")
    licence = licence_of(wordnet / "data.noun")
    (options.out / "WORDNET_LICENSE").write_text(licence, encoding="utf-8")
    common = sum(c.count > 0 for c in chosen)
    print(f"{len(chosen)} concepts ({common} with a sense count), {len(text):,} bytes")
    for group, count in Counter(c.group for c in chosen).most_common():
        print(f"{count:6d}  {group}")


if __name__ == "__main__":
    main()
