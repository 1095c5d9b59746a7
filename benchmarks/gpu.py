"""Check and time everything that a GPU makes faster, in one command and under four minutes.

    python benchmarks/gpu.py                  # 8B shape, random weights, nothing to download
    python benchmarks/gpu.py --shape tiny     # seconds, also on a CPU: for the tests

Where the package is not installed: PYTHONPATH=src python benchmarks/gpu.py

First equality: fast and reference paths on the tiny shape in float32 and bfloat16 (of compiled
blocks, the timings state how far the loss is from the published step's). Then timings on
`--shape`: training steps against the published trainer's (checkpointing included) and against the
floor, labelling at four batch sizes, 400 vectors against 400 labels. Last, unless --no-tests, the
fast tests of model, inference, training and labelling on this machine. Results are written after
each figure to gpu.json and gpu.md in --output, so that an interrupted run leaves what it has.

Floors are floating-point operations over the rate of a large matmul measured in this run: per token
2 · parameters of the blocks (twice that with the gradient), per label token 2 · d · vocabulary.
Label lengths are those of published labels; rows of a labelling run end at such lengths, or all run
to 30 tokens.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from gpu_results import Results
from train_step import (
    SHAPES,
    Batch,
    as_published,
    labels_of_published_lengths,
    machine,
    matrix_rate,
    our_step,
    plain_step,
    shaped_model,
    shaped_prompt,
    some_labels,
    step_flop,
    wait_for,
)

from selfie_adapters.adapters import create_adapter
from selfie_adapters.config.shared import Sampling
from selfie_adapters.inference import label_loss, slot_rows
from selfie_adapters.inference.generate import generate
from selfie_adapters.inference.label_loss import Objective
from selfie_adapters.inference.label_scores import (
    prefill,
    score_generated,
    score_tokens,
)
from selfie_adapters.model import FrozenModel, SharedPrefix
from selfie_adapters.model.compiled import compile_blocks
from selfie_adapters.model.packed_pass import packs, tried_outputs

ROOT = Path(__file__).resolve().parents[1]
CASES = {"80 labels": (80, 1), "85 labels of 5 vectors": (85, 17), "640 labels": (640, 1)}
TESTS = ("model", "inference", "training", "labelling")


def equality(dtype: str) -> dict[str, Any]:
    """Largest differences of packed and replayed passes from padded ones over a plain cache."""
    model = shaped_model("tiny", dtype)
    with torch.no_grad():
        for weight in model.network.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.1)
    if not packs(model):
        expected, found = tried_outputs(model)  # states why
        raise RuntimeError(f"packed rows are {float((found - expected).abs().max())} apart")
    prompt = shaped_prompt(model)
    vectors = torch.randn(12, model.d_model, generator=torch.Generator().manual_seed(0))
    labels = labels_of_published_lengths(model, prompt.end_id, 60)

    def losses(packed: bool, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
        label_loss.packing_pays = packs if packed else lambda _model: False
        objective = Objective(model, prompt)
        assert (objective._packed is not None) == packed
        objective._tokens_per_microbatch = 500  # several wait for their backward pass
        of = torch.arange(60) // 5
        soft = vectors[of].to(model.device).requires_grad_()
        found = []
        for _ in range(4 if packed else 1):  # eager, then captured, then replayed
            total = objective.all_losses(soft, labels, torch.arange(60), of if shared else None)
            (slope,) = torch.autograd.grad(total.per_example.sum(), soft)
            found.append((total.per_example.detach(), slope))
        for loss, slope in found[1:]:
            torch.testing.assert_close(loss, found[0][0], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(
                slope, found[0][1], rtol=0.1, atol=float(slope.abs().max()) / 50
            )
        return found[-1]

    def scores(packed: bool) -> torch.Tensor:
        slot_rows.packing_pays = packs if packed else lambda _model: False
        return score_tokens(model, prompt, vectors[:4], labels).log_probs

    def answers(packed: bool) -> list[list[int]]:
        slot_rows.packing_pays = packs if packed else lambda _model: False
        sampling = Sampling(max_new_tokens=12)
        limits = [12 - i % 9 for i in range(48)]  # rows leave on the way
        ends = torch.zeros(model.vocab_size, dtype=torch.bool, device=model.device)
        prefix = SharedPrefix(model, prompt.prefix_ids)
        for _ in range(3 if packed else 1):
            soft = 5 * vectors.repeat(4, 1).to(model.device)
            read = slot_rows.after_prompt(model, prompt, prefix, soft)
            found = dict(generate(read, list(range(48)), sampling, ends, limits))
            del read
        return [found[i].ids for i in range(48)]

    figures: dict[str, Any] = {}
    pays = label_loss.packing_pays
    try:
        for shared in (False, True):
            (loss, slope), (mine, gradient) = losses(False, shared), losses(True, shared)
            name = "shared" if shared else "alone"
            apart = (mine - loss).abs().max() / loss.abs().max()
            figures[f"loss, {name}"] = f"{float(apart):.1e}"
            apart = (gradient - slope).norm() / slope.norm()
            figures[f"gradient, {name}"] = f"{float(apart):.1e}"
        apart = (scores(True) - scores(False)).abs().max()
        figures["scores"] = f"{float(apart):.1e} nats"
        same = [mine == theirs for mine, theirs in zip(answers(True), answers(False), strict=True)]
        figures["equal greedy answers"] = f"{sum(same)} of {len(same)}"
    finally:
        label_loss.packing_pays = slot_rows.packing_pays = pays
    return figures


def training(model: FrozenModel, size: int, per_vector: int, rate: float) -> dict[str, Any]:
    """Medians over batches of different labels, after as many for graphs to be captured."""
    prompt = shaped_prompt(model)
    adapter = create_adapter("scalar_affine", model.d_model, init_scale=5.0).to(model.device)
    objective = Objective(model, prompt)
    small = model.device.type == "cpu"
    warm, rounds = (1, 1) if small else (12, 8) if size < 200 else (4, 4)
    every = labels_of_published_lengths(model, prompt.end_id, size * (warm + rounds))
    vector_of = torch.arange(size) // per_vector
    vectors = torch.randn(int(vector_of[-1]) + 1, model.d_model)
    torch.cuda.reset_peak_memory_stats() if not small else None
    ours, floors, losses, first = [], [], [], 0.0
    for index in range(warm + rounds):
        labels = some_labels(every, torch.arange(index * size, (index + 1) * size))
        batch = Batch(labels, vectors, vector_of)
        adapter.zero_grad()
        started = time.perf_counter()
        losses.append(our_step(objective, adapter, batch))
        wait_for(model)
        first += (time.perf_counter() - started) * (index < warm)
        if index >= warm:
            ours.append(time.perf_counter() - started)
            floors.append(step_flop(model, prompt, batch) / rate)
    memory = 0.0 if small else torch.cuda.max_memory_allocated() / 2**30
    plain = []
    for _ in range(2 if size < 200 else 0):
        adapter.zero_grad()
        with as_published(model, checkpointing=True):
            started = time.perf_counter()
            plain_loss = plain_step(model, prompt, adapter, vectors[vector_of], labels)
            wait_for(model)
        plain.append(time.perf_counter() - started)
    found = {
        "seconds": round(statistics.median(ours), 4),
        "mean": round(statistics.mean(ours), 4),
        "floor": round(statistics.median(floors), 4),
        "share of the floor": round(statistics.median(floors) / statistics.median(ours), 3),
        "GiB": round(memory, 1),
        f"first {warm} steps": round(first, 1),
    }
    if plain:
        found["published step"] = round(plain[-1], 3)
        found["times faster"] = round(plain[-1] / statistics.median(ours), 2)
        found["loss apart"] = f"{abs(losses[-1] - plain_loss) / plain_loss:.1e}"
    return found


def labelling(model: FrozenModel, rows: int, full: bool, rate: float) -> dict[str, Any]:
    """Labels per second with scores of vector and zero vector; full: all rows run to 30 tokens."""
    prompt = shaped_prompt(model)
    soft = 5 * torch.randn(rows, model.d_model, device=model.device)
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=30)
    ends = torch.zeros(model.vocab_size, dtype=torch.bool, device=model.device)
    lengths = labels_of_published_lengths(model, prompt.end_id, rows).lengths.clamp(max=30)
    limits = [30] * rows if full else lengths.tolist()
    prefix = SharedPrefix(model, prompt.prefix_ids)
    zero = prefill(model, prompt, prefix, torch.zeros(1, model.d_model, device=model.device))
    seconds: dict[str, float] = {}
    for _ in range(2):  # the first warms up
        wait_for(model)
        times = [time.perf_counter()]
        with torch.inference_mode():
            read = slot_rows.after_prompt(model, prompt, prefix, soft)
        wait_for(model)
        times.append(time.perf_counter())
        answers = dict(generate(read, list(range(rows)), sampling, ends, limits))
        wait_for(model)
        times.append(time.perf_counter())
        score_generated(model, zero, [answers[i].ids for i in range(rows)])
        times.append(time.perf_counter())
        seconds = {k: times[i + 1] - times[i] for i, k in enumerate(("prompt", "tokens", "zero"))}
        del read
    assert [len(answers[i].ids) for i in range(rows)] == limits
    blocks = sum(p.numel() for p in model.blocks.parameters())
    new = sum(limits)
    passed = rows * len(prompt.suffix_ids) + 2 * (new - rows)
    floor = (2 * blocks * passed + 2 * model.d_model * model.vocab_size * 2 * new) / rate
    total = sum(seconds.values())
    parts = {k: round(v, 3) for k, v in seconds.items()}
    return {
        "labels per second": round(rows / total),
        "floor allows": round(rows / floor),
        **parts,
    }


def candidates(model: FrozenModel, vectors: int, count: int, rate: float) -> dict[str, Any]:
    prompt = shaped_prompt(model)
    labels = labels_of_published_lengths(model, prompt.end_id, count)
    soft = 5 * torch.randn(vectors, model.d_model, device=model.device)
    some = min(vectors, 128)  # the time is proportional to them
    score_tokens(model, prompt, soft[:8], labels)  # warms up
    started = time.perf_counter()
    scores = score_tokens(model, prompt, soft[:some], labels)
    took = (time.perf_counter() - started) * vectors / some
    assert scores.log_probs.isfinite().all()
    blocks = sum(p.numel() for p in model.blocks.parameters())
    inner = vectors * int((labels.lengths - 1).sum())
    flop = 2 * blocks * (inner + vectors * len(prompt.suffix_ids))
    flop += 2 * model.d_model * model.vocab_size * inner
    return {"seconds": round(took, 2), "floor": round(flop / rate, 2), "of vectors measured": some}


def run_tests() -> dict[str, Any]:
    """The fast tests here; models are loaded onto the GPU where a test leaves the device open."""
    folders = [str(ROOT / "tests" / name) for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "8", "-p", "no:cacheprovider"]
    command += ["-p", "no:benchmark", *folders]  # it warns with xdist, where it is installed
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired as stopped:
        return {"stopped after": "60 s", "output": str(stopped.stdout)[-300:]}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
    return {"result": done.stdout.strip().splitlines()[-1], "failed": failed[:40]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"))
    parser.add_argument("--no-tests", action="store_true")
    options = parser.parse_args()
    tiny = options.shape == "tiny"
    results = Results(options.output)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    results.add("machine", machine(), **versions)
    for dtype in ("float32", "bfloat16"):
        results.attempt("equality", dtype, lambda dtype=dtype: equality(dtype))
    model = shaped_model(options.shape, "float32" if tiny else "bfloat16")
    with torch.no_grad():  # a real model's next tokens are few; random weights' are all alike
        model.network.get_output_embeddings().weight.mul_(6)
    rate = max(matrix_rate(model) for _ in range(3))
    results.add("machine", "matmul", **{"TFLOP/s": round(rate / 1e12, 1)})
    for stage in ("", ", compiled"):
        if stage:
            if model.device.type != "cuda":
                break
            compile_blocks(model)
        for name, (size, per) in CASES.items():
            if model.device.type == "cuda" and not stage and size != 80:
                continue  # uncompiled blocks in one case, for comparison
            results.attempt(
                "training step", name + stage, lambda s=size, p=per: training(model, s, p, rate)
            )
        for rows in (4, 8) if tiny else (256, 1024, 2048, 4096) if stage else ():
            for full in (True, False):
                if full and rows not in (4, 1024):
                    continue
                name = f"{rows} rows, {'30 tokens each' if full else 'published lengths'}{stage}"
                results.attempt(
                    "labelling", name, lambda r=rows, f=full: labelling(model, r, f, rate)
                )
        n = 6 if tiny else 400
        if stage or tiny:
            results.attempt("candidates", f"{n} × {n}", lambda n=n: candidates(model, n, n, rate))
    if not options.no_tests and not tiny:
        results.attempt("tests", ", ".join(TESTS), run_tests)


if __name__ == "__main__":
    main()
