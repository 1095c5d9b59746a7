"""Time one training step, ours against the plain way, on the same model and batches.

    python benchmarks/train_step.py            # SmolLM2 on this machine
    python benchmarks/train_step.py --json     # one line for a script

Plain, as the published trainer does it: the whole template and the label padded to the longest for
every row, logits at every position, a Python loop over rows for the loss, gradient checkpointing,
and the library's default attention. `--plain-without checkpointing` leaves that out.
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
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, load_model
from selfie_adapters.training import Objective
from selfie_adapters.training.batches import LabelTokens

LENGTHS = Path(__file__).with_name("goodfire_label_lengths.json")


def labels_of_published_lengths(model: FrozenModel, end_id: int, count: int) -> LabelTokens:
    """Random token ids with the lengths of the published Goodfire labels (a committed histogram)."""
    counts = json.loads(LENGTHS.read_text(encoding="utf-8"))["counts"]
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([int(length) for length in counts])
    weights = torch.tensor(list(counts.values()), dtype=torch.float64)
    lengths = sizes[torch.multinomial(weights, count, replacement=True, generator=generator)]
    special = torch.tensor(sorted(model.tokenizer.all_special_ids))
    low = int(special[special < model.vocab_size // 2].max()) + 1 if len(special) else 0
    ids = torch.randint(low, model.vocab_size, (int(lengths.sum()),), generator=generator)
    starts = lengths.cumsum(0) - lengths
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
    return float(loss)


def our_step(objective: Objective, adapter: Adapter, vectors: Tensor, labels: LabelTokens) -> float:
    """One forward and backward pass as the trainer does it; returns the mean loss."""
    total = 0.0
    chosen = torch.arange(len(labels))
    for part in objective.parts(labels, chosen):
        soft = adapter.transform(vectors[part])
        loss = objective.part_loss(soft, labels, chosen[part]).per_example.sum() / len(labels)
        loss.backward()
        total += float(loss)
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
    return 2.0 * size**3 / min(_timed(lambda: a @ a, model) for _ in range(6))


def _timed(step, model: FrozenModel) -> float:
    started = time.perf_counter()
    step()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


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
    ours_seconds, plain_seconds, differences = [], [], []
    for index in range(rounds + 1):  # the first warms both up
        rows = torch.arange(index * batch, (index + 1) * batch)
        starts = every.starts[rows]
        begin, end = int(starts[0]), int(starts[-1] + every.lengths[rows[-1]])
        labels = LabelTokens(every.ids[begin:end], starts - begin, every.lengths[rows])
        losses, gradients = {}, {}
        for name in ("plain", "ours") if index % 2 else ("ours", "plain"):
            adapter.zero_grad()
            if name == "plain":
                _as_published(model, checkpointing)
                take = lambda: plain_step(model, prompt, adapter, vectors[rows], labels)  # noqa: E731
            else:
                take = lambda: our_step(objective, adapter, vectors[rows], labels)  # noqa: E731
            seconds = _timed(lambda name=name, take=take: losses.__setitem__(name, take()), model)
            _as_ours(model)
            gradients[name] = adapter.bias.grad.clone()  # type: ignore[union-attr]
            if index:
                (plain_seconds if name == "plain" else ours_seconds).append(seconds)
        differences.append(abs(losses["ours"] - losses["plain"]) / losses["plain"])
        apart = (gradients["ours"] - gradients["plain"]).norm() / gradients["plain"].norm()
        print_progress(index, rounds, losses, float(apart))
    ours, plain = statistics.median(ours_seconds), statistics.median(plain_seconds)
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


def _as_published(model: FrozenModel, checkpointing: bool) -> None:
    """What the plain way runs with: the library's default attention, and checkpointing if asked."""
    model.network.set_attn_implementation("sdpa")
    if checkpointing:
        model.network.gradient_checkpointing_enable({"use_reentrant": False})
        model.network.train()  # transformers checkpoints in training mode only; there is no dropout


def _as_ours(model: FrozenModel) -> None:
    model.network.set_attn_implementation("eager" if model.device.type == "cpu" else "sdpa")
    if model.network.is_gradient_checkpointing:
        model.network.gradient_checkpointing_disable()
    model.network.eval()


def print_progress(index: int, rounds: int, losses: dict[str, float], apart: float) -> None:
    import sys

    print(
        f"round {index}/{rounds}: loss ours {losses['ours']:.5f}, plain {losses['plain']:.5f}; "
        f"gradient of the bias {apart:.1e} apart",
        file=sys.stderr,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-checkpointing", action="store_true", help="in the plain way")
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    model = load_model(options.model, options.dtype)
    result = measure(model, options.batch, options.rounds, not options.no_checkpointing)
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:34s} {value}")


if __name__ == "__main__":
    main()
