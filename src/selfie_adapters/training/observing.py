"""What a run shows of the adapter on its way: singular values, sample labels, the mixture."""

from __future__ import annotations

import torch

from selfie_adapters.inference.generate import (
    answer_text,
    generate_labels,
    label_in,
    quote_tokens,
)
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.model import SharedPrefix
from selfie_adapters.model.prefix import shareable
from selfie_adapters.training.setup import Setup
from selfie_adapters.training.tracking import Tracker

_SINGULAR_VALUES = 64  # at most this number is recorded


def observe(setup: Setup, tracker: Tracker, step: int) -> None:
    """Write what the configuration asks for after `step` optimizer steps."""
    logging = setup.config.logging
    every = logging.log_singular_values_every_n_steps
    if every and step % every == 0:
        show_singular_values(setup, tracker, step)
    samples = logging.log_sample_generations
    if samples and step % logging.log_generations_every_n_steps == 0:
        show_samples(setup, tracker, step, samples)


def show_singular_values(setup: Setup, tracker: Tracker, step: int) -> None:
    """Singular values of the adapter's matrix and its share; nothing for kinds without one."""
    values = setup.adapter.singular_values()
    if values is None:
        return
    share = setup.adapter.low_rank_share()
    shown = "" if share is None else f", low-rank share {share:.1%}"
    tracker.event(
        "singular_values",
        f"step {step}: largest singular value {float(values[0]):.4g}{shown}",
        step=step,
        scale=setup.adapter.scale(),
        bias_norm=setup.adapter.bias_norm(),
        low_rank_share=share,
        singular_values=values[:_SINGULAR_VALUES].tolist(),
    )


def show_samples(setup: Setup, tracker: Tracker, step: int, count: int) -> None:
    """Labels that the model generates now, with the given ones; the same vectors each time."""
    split = setup.val if len(setup.val) else setup.train
    rows = torch.linspace(0, len(split) - 1, min(count, len(split))).long().unique()
    with torch.no_grad():
        soft = setup.adapter(split.vectors(rows))
    model, prompt = setup.model, shareable(setup.model, setup.prompt)
    prefix = SharedPrefix(model, prompt.prefix_ids)
    answers = generate_labels(
        model, prompt, prefix, soft, [0] * len(rows), Sampling(), quote_tokens(model)
    )
    samples = [
        {**split.describe(row), "written": label_in(answer_text(model.tokenizer, answer.ids))}
        for row, answer in zip(rows.tolist(), answers, strict=True)
    ]
    lines = [f"  {one['label']!r:.40} → {one['written']!r:.60}" for one in samples]
    said = f"step {step}: label → what is written\n" + "\n".join(lines)
    tracker.event("samples", said, step=step, samples=samples)


def show_mixture(setup: Setup, tracker: Tracker, step: int, epoch: int) -> None:
    """How many examples each dataset gives to an epoch."""
    counts = setup.order.counts(epoch)
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    tracker.event("mixture", f"epoch {epoch}: {shown}", step=step, epoch=epoch, examples=counts)
