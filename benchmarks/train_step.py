"""Time one training step, ours and the baseline, on the same model and batches.

    python benchmarks/train_step.py                          # SmolLM2 on this machine
    python benchmarks/train_step.py --labels-per-vector 17   # as Wikipedia topics have
    python benchmarks/train_step.py --shape llama-3.1-8b     # random weights, for a GPU
    python benchmarks/train_step.py --json                   # one line for a script

Plain, as the published trainer does it: the whole template and the label padded to the longest for
every row, logits at every position, a Python loop over rows for the loss, gradient checkpointing,
and the library's default attention. `--no-checkpointing` leaves the recomputation out.
Both run in this process, turn by turn, on the same labels; medians and their ratio are printed.
The floor is the step's floating-point operations (a template part that labels of one
vector can share counts once per vector) over the rate of a large matmul in the same dtype,
measured before and after every one of our steps, because a machine's rate moves.
On a machine that others use, `--processor-time` with OMP_NUM_THREADS=1 counts the seconds that this
process computed instead of those that passed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.inference.label_batches import LabelTokens
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, load_model
from selfie_adapters.model.precision import resolve_dtype
from selfie_adapters.model.tokens import encode
from selfie_adapters.sources.topics.reading import packaged_topics
from selfie_adapters.training import Objective

LENGTHS = Path(__file__).with_name("goodfire_label_lengths.json")

# Random weights of a known shape: as fast as the real ones, with nothing to download.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}


@dataclass(frozen=True)
class Batch:
    """Labels of one step; `vector_of[i]` is the row of `vectors` that label i belongs to."""

    labels: LabelTokens
    vectors: Tensor
    vector_of: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def shaped_model(shape: str, dtype: str) -> FrozenModel:
    """A Llama of this shape with random weights and no tokenizer, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(**SHAPES[shape])
    with torch.device(device):
        network = AutoModelForCausalLM.from_config(config, dtype=resolve_dtype(dtype, device))
    return FrozenModel(network, cast("Any", None), shape)


def shaped_prompt(model: FrozenModel) -> BoundPrompt:
    """As many tokens as the published Llama template, 26, its two sites at 11 and 22."""
    placeholder, end, sites = 1, 2, (11, 22)
    ids = torch.randint(3, model.vocab_size, (26,), generator=torch.Generator().manual_seed(0))
    ids[list(sites)] = placeholder
    return BoundPrompt(SoftPrompt("", ""), tuple(ids.tolist()), sites, placeholder, end)


def labels_of_published_lengths(model: FrozenModel, end_id: int, count: int) -> LabelTokens:
    """Text cut to the lengths of published Goodfire labels (a committed histogram).

    English where the model has a tokenizer, random tokens where it has none.
    """
    counts = json.loads(LENGTHS.read_text(encoding="utf-8"))["counts"]
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([int(length) for length in counts])
    weights = torch.tensor(list(counts.values()), dtype=torch.float64)
    lengths = sizes[torch.multinomial(weights, count, replacement=True, generator=generator)]
    total = int(lengths.sum())
    starts = lengths.cumsum(0) - lengths
    if model.tokenizer is None:
        ids = torch.randint(3, model.vocab_size, (total,), generator=generator)
    else:
        topics = packaged_topics()
        text = " ".join(label for topic in topics for label in topic.labels)[: 8 * total]
        ids = torch.tensor(encode(model.tokenizer, text))
        ids = ids.repeat(1 + total // ids.numel())[:total]
        (quote,) = encode(model.tokenizer, '"')
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
    """One forward and backward pass of the baseline; returns the mean loss."""
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


def our_step(objective: Objective, adapter: Adapter, batch: Batch) -> float:
    """One forward and backward pass as the trainer does it; returns the mean loss."""
    total = 0.0
    chosen = torch.arange(len(batch))
    for part in objective.microbatches(batch.labels, chosen, batch.vector_of):
        same = batch.vector_of[part]
        soft = adapter.transform(batch.vectors[same])
        losses = objective.microbatch_loss(soft, batch.labels, chosen[part], same).per_example
        loss = losses.sum() / len(batch)
        loss.backward()
        total += float(loss.detach())
    return total


def step_tokens(prompt: BoundPrompt, batch: Batch) -> int:
    """Tokens that must go through the blocks: prompts after the shared prefix, and labels.

    The prompt counts once per vector. A label's last token is only predicted.
    """
    prompts = torch.unique(batch.vector_of).numel() * len(prompt.suffix_ids)
    return prompts + int((batch.labels.lengths - 1).sum())


def step_flop(model: FrozenModel, prompt: BoundPrompt, batch: Batch) -> float:
    """4 · block parameters · tokens through them + 4 · d · vocabulary · label tokens."""
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    label_tokens = int(batch.labels.lengths.sum())
    head = 4.0 * model.d_model * model.vocab_size * label_tokens
    return 4.0 * blocks * step_tokens(prompt, batch) + head


Clock = Callable[[], float]


def matrix_rate(model: FrozenModel, clock: Clock = time.perf_counter) -> float:
    """Floating-point operations a second of a large product in the model's dtype: the best of 3."""
    size = 1024 if model.device.type == "cpu" else 8192
    a = torch.randn(size, size, device=model.device).to(model.dtype)
    best = float("inf")
    for _ in range(4):
        started = clock()
        a @ a
        wait_for(model)
        best = min(best, clock() - started)
    return 2.0 * size**3 / best


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}"


def measure(
    model: FrozenModel,
    size: int,
    rounds: int,
    labels_per_vector: int = 1,
    checkpointing: bool = True,
    clock: Clock = time.perf_counter,
) -> dict[str, object]:
    """Medians of `rounds` alternating steps on the same batches, and the losses of both."""
    if model.tokenizer is None:
        prompt = shaped_prompt(model)
    else:
        prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    adapter = create_adapter("scalar_affine", model.d_model, init_scale=5.0).to(model.device)
    objective = Objective(model, prompt)
    every = labels_of_published_lengths(model, prompt.end_id, size * (rounds + 1))
    vector_of = torch.arange(size) // labels_per_vector
    generator = torch.Generator().manual_seed(1)

    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    memory: dict[str, list[float]] = {"ours": [], "plain": []}
    rates, shares, floors, tokens, differences = [], [], [], [], []
    for index in range(rounds + 1):  # the first warms both up
        labels = some_labels(every, torch.arange(index * size, (index + 1) * size))
        vectors = torch.randn(int(vector_of[-1]) + 1, model.d_model, generator=generator)
        batch = Batch(labels, vectors, vector_of)
        losses, gradients, took = {}, {}, {}
        rate = 0.0
        for name in ("plain", "ours") if index % 2 else ("ours", "plain"):
            adapter.zero_grad()
            before = matrix_rate(model, clock)
            forget_peak(model)
            with as_published(model, checkpointing) if name == "plain" else nullcontext():
                started = clock()
                if name == "plain":
                    losses[name] = plain_step(model, prompt, adapter, vectors[vector_of], labels)
                else:
                    losses[name] = our_step(objective, adapter, batch)
                wait_for(model)
                took[name] = clock() - started
            if name == "ours":
                rate = max(before, matrix_rate(model, clock))
            peak = peak_memory(model)
            memory[name].append(peak)
            gradients[name] = dict(adapter.named_parameters())["bias"].grad.clone()
        floor = step_flop(model, prompt, batch) / rate
        if index:
            for name, value in took.items():
                seconds[name].append(value)
            rates.append(rate)
            floors.append(floor)
            shares.append(floor / took["ours"])
            tokens.append(step_tokens(prompt, batch) / took["ours"])
        differences.append(abs(losses["ours"] - losses["plain"]) / losses["plain"])
        apart = (gradients["ours"] - gradients["plain"]).norm() / gradients["plain"].norm()
        print(
            f"round {index}/{rounds}: ours {took['ours']:.2f} s, plain {took['plain']:.2f} s, "
            f"floor {floor:.2f} s; loss ours {losses['ours']:.5f}, plain {losses['plain']:.5f}; "
            f"gradient of the bias {float(apart):.1e} apart",
            file=sys.stderr,
        )
    ours, plain = statistics.median(seconds["ours"]), statistics.median(seconds["plain"])
    return {
        "ratio": round(plain / ours, 2),
        "ours_seconds": round(ours, 4),
        "plain_seconds": round(plain, 4),
        "ours_examples_per_second": round(size / ours, 1),
        "plain_examples_per_second": round(size / plain, 1),
        "ours_tokens_per_second": round(statistics.median(tokens)),
        "share_of_floor": round(statistics.median(shares), 3),
        "floor_seconds": round(statistics.median(floors), 4),
        "matrix_gflop_per_second": round(statistics.median(rates) / 1e9, 1),
        "ours_peak_memory_gib": round(max(memory["ours"]), 2),
        "plain_peak_memory_gib": round(max(memory["plain"]), 2),
        "largest_relative_loss_difference": float(f"{max(differences):.2g}"),
        "plain_checkpoints_gradients": checkpointing,
        "batch": size,
        "labels_per_vector": labels_per_vector,
        "rounds": rounds,
        "clock": "processor" if clock is time.process_time else "wall",
        "model": model.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": machine(),
        "torch": torch.__version__,
    }


def forget_peak(model: FrozenModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif (marks := Path("/proc/self/clear_refs")).exists():
        marks.write_text("5")  # Linux: the high-water mark starts again


def peak_memory(model: FrozenModel) -> float:
    """GiB since `forget_peak`; of the GPU, or of this process (0 where it is unknown)."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if "VmHWM" in line), 0.0)


@contextmanager
def as_published(model: FrozenModel, checkpointing: bool) -> Iterator[None]:
    """What the baseline runs with: the library's default attention, and checkpointing if asked."""
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


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print every figure: one per line, or all of them as one line of JSON."""
    if as_json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:34s} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--shape", choices=SHAPES, help="random weights instead of --model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=int, help="labels per step (64; with --shape 80)")
    parser.add_argument("--labels-per-vector", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    parser.add_argument("--no-checkpointing", action="store_true", help="in the baseline")
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # transformers renames checkpointing
    if options.shape:
        model = shaped_model(options.shape, options.dtype)
    else:
        model = load_model(options.model, options.dtype)
    size = options.batch or (80 if options.shape else 64)
    result = measure(
        model,
        size,
        options.rounds,
        options.labels_per_vector,
        not options.no_checkpointing,
        time.process_time if options.processor_time else time.perf_counter,
    )
    show(result, options.json)


if __name__ == "__main__":
    main()
