"""Time one training step, ours against the plain way, on the same model and batches.

    python benchmarks/train_step.py            # SmolLM2 on this machine
    python benchmarks/train_step.py --json     # one line for a script

Plain, as the published trainer does it: the whole template and the label padded to the longest for
every row, logits at every position, a Python loop over rows for the loss, gradient checkpointing,
and the library's default attention. `--no-checkpointing` leaves the recomputation out.
Both run in this process, turn by turn, on the same labels; medians and their ratio are printed.
The floor is the step's floating-point operations (DESIGN §5) over the rate of a large matrix
product in the same dtype, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, load_model
from selfie_adapters.model.prompt import encode
from selfie_adapters.sources.topics import packaged_topics
from selfie_adapters.training import Objective
from selfie_adapters.training.batches import LabelTokens

LENGTHS = Path(__file__).with_name("goodfire_label_lengths.json")


def labels_of_published_lengths(model: FrozenModel, end_id: int, count: int) -> LabelTokens:
    """English text cut to the lengths of published Goodfire labels (a committed histogram)."""
    counts = json.loads(LENGTHS.read_text(encoding="utf-8"))["counts"]
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([int(length) for length in counts])
    weights = torch.tensor(list(counts.values()), dtype=torch.float64)
    lengths = sizes[torch.multinomial(weights, count, replacement=True, generator=generator)]
    total = int(lengths.sum())
    text = " ".join(label for topic in packaged_topics()[: total // 4] for label in topic.labels)
    ids = torch.tensor(encode(model.tokenizer, text)[:total])
    (quote,) = encode(model.tokenizer, '"')
    starts = lengths.cumsum(0) - lengths
    ids[starts + lengths - 2] = quote
    ids[starts + lengths - 1] = end_id
    return LabelTokens(ids, starts, lengths)


def plain_step(
    model: FrozenModel,
    prompt: BoundPrompt,
    adapter: Adapter,
    vectors: Tensor,
    labels: LabelTokens,
) -> float:
    """One forward and backward pass the plain way; returns the mean loss."""
    device = model.device
    template = torch.tensor(prompt.ids)
    rows = len(labels)
    width = int(labels.lengths.max())
    ids = torch.full((rows, len(template) + width), prompt.end_id)
    attention = torch.zeros_like(ids)
    for row in range(rows):
        start, length = int(labels.starts[row]), int(labels.lengths[row])
        ids[row, : len(template)] = template
        ids[row, len(template) : len(template) + length] = labels.ids[start : start + length]
        attention[row, : len(template) + length] = 1
    ids, attention = ids.to(device), attention.to(device)
    soft = adapter.transform(vectors)
    embedded = model.embedding(ids).clone()
    for row in range(rows):
        for site in prompt.sites:
            embedded[row, site] = soft[row].to(embedded)
    logits = model.network(inputs_embeds=embedded, attention_mask=attention, use_cache=False).logits
    losses = []
    for row in range(rows):
        length = int(labels.lengths[row])
        begin = len(template)
        predicted = logits[row, begin - 1 : begin - 1 + length].float()
        losses.append(cross_entropy(predicted, ids[row, begin : begin + length]))
    loss = torch.stack(losses).mean()
    loss.backward()
    return float(loss.detach())


def our_step(objective: Objective, adapter: Adapter, vectors: Tensor, labels: LabelTokens) -> float:
    """One forward and backward pass as the trainer does it; returns the mean loss."""
    total = 0.0
    chosen = torch.arange(len(labels))
    for part in objective.parts(labels, chosen):
        soft = adapter.transform(vectors[part])
        loss = objective.part_loss(soft, labels, chosen[part]).per_example.sum() / len(labels)
        loss.backward()
        total += float(loss.detach())
    return total


def step_flop(model: FrozenModel, prompt: BoundPrompt, labels: LabelTokens) -> float:
    """4 · block parameters · tokens after the shared prefix + 4 · d · vocabulary · label tokens."""
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    label_tokens = int(labels.lengths.sum())
    tokens = len(labels) * (len(prompt.suffix_ids) - 1) + label_tokens
    return 4.0 * blocks * tokens + 4.0 * model.d_model * model.vocab_size * label_tokens


def matrix_rate(model: FrozenModel) -> float:
    """Floating-point operations a second of a large product in the model's dtype: the best of 5."""
    size = 2048 if model.device.type == "cpu" else 8192
    a = torch.randn(size, size, device=model.device).to(model.dtype)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        a @ a
        wait_for(model)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}"


def measure(model: FrozenModel, batch: int, rounds: int, checkpointing: bool) -> dict[str, object]:
    """Medians of `rounds` alternating steps on the same batches, and the losses of both."""
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    adapter = create_adapter("scalar_affine", model.d_model, init_scale=5.0).to(model.device)
    objective = Objective(model, prompt)
    every = labels_of_published_lengths(model, prompt.end_id, batch * (rounds + 1))
    vectors = torch.randn(
        batch * (rounds + 1), model.d_model, generator=torch.Generator().manual_seed(1)
    )
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    differences = []
    labels = every
    for index in range(rounds + 1):  # the first warms both up
        rows = torch.arange(index * batch, (index + 1) * batch)
        labels = some_labels(every, rows)
        some_vectors = vectors[rows]
        losses, gradients = {}, {}
        for name in ("plain", "ours") if index % 2 else ("ours", "plain"):
            adapter.zero_grad()
            started = time.perf_counter()
            if name == "plain":
                with as_published(model, checkpointing):
                    losses[name] = plain_step(model, prompt, adapter, some_vectors, labels)
            else:
                losses[name] = our_step(objective, adapter, some_vectors, labels)
            wait_for(model)
            if index:
                seconds[name].append(time.perf_counter() - started)
            gradients[name] = dict(adapter.named_parameters())["bias"].grad.clone()
        differences.append(abs(losses["ours"] - losses["plain"]) / losses["plain"])
        apart = (gradients["ours"] - gradients["plain"]).norm() / gradients["plain"].norm()
        print(
            f"round {index}/{rounds}: loss ours {losses['ours']:.5f}, plain {losses['plain']:.5f}; "
            f"gradient of the bias {float(apart):.1e} apart",
            file=sys.stderr,
        )
    ours, plain = statistics.median(seconds["ours"]), statistics.median(seconds["plain"])
    floor = step_flop(model, prompt, labels) / matrix_rate(model)
    return {
        "ratio": round(plain / ours, 2),
        "ours_seconds": round(ours, 3),
        "plain_seconds": round(plain, 3),
        "ours_examples_per_second": round(batch / ours, 1),
        "plain_examples_per_second": round(batch / plain, 1),
        "share_of_floor": round(floor / ours, 3),
        "floor_seconds": round(floor, 3),
        "largest_relative_loss_difference": float(f"{max(differences):.2g}"),
        "plain_checkpoints_gradients": checkpointing,
        "batch": batch,
        "rounds": rounds,
        "dtype": str(model.dtype).removeprefix("torch."),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "machine": machine(),
        "torch": torch.__version__,
    }


@contextmanager
def as_published(model: FrozenModel, checkpointing: bool) -> Iterator[None]:
    """What the plain way runs with: the library's default attention, and checkpointing if asked."""
    ours = model.network.config._attn_implementation
    model.network.set_attn_implementation("sdpa")
    if checkpointing:
        model.network.gradient_checkpointing_enable({"use_reentrant": False})
        model.network.train()  # transformers checkpoints in training mode only; there is no dropout
    try:
        yield
    finally:
        model.network.gradient_checkpointing_disable()
        model.network.eval()
        model.network.set_attn_implementation(ours)


def some_labels(labels: LabelTokens, rows: Tensor) -> LabelTokens:
    """The labels `rows` (neighbours) on their own."""
    starts, lengths = labels.starts[rows], labels.lengths[rows]
    begin, end = int(starts[0]), int(starts[-1] + lengths[-1])
    return LabelTokens(labels.ids[begin:end], starts - begin, lengths)


def wait_for(model: FrozenModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-checkpointing", action="store_true", help="in the plain way")
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # transformers renames checkpointing
    model = load_model(options.model, options.dtype)
    result = measure(model, options.batch, options.rounds, not options.no_checkpointing)
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:34s} {value}")


if __name__ == "__main__":
    main()
