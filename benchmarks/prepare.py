"""Peak memory and time of preparing an SAE, ours against SAELens and `torch.save`.

    python benchmarks/prepare.py                       # Goodfire 8B's shape, 65,536 × 4,096
    python benchmarks/prepare.py --d-in 8192 --json    # 70B's; one line for a script

A Goodfire-format file (encoder and decoder, float32) of random numbers is written to a temporary
folder and both ways read it as it is in the page cache, each in a process of its own:

- ours: `selfie prepare sae --sae-path FILE`, labels for every latent included;
- SAELens: its Goodfire loader with the release's own sizes, `SAE.from_pretrained` up to `W_dec`,
  then `torch.save`. No labels.

Memory is the process's largest resident set (`ru_maxrss`), which counts mapped pages and the
libraries too. Seconds by the clock mean little on a busy machine (`load_average`); those of the
processors stay. `ratio_of_w_dec` is ours over the size of `W_dec`: 1.3 is the promise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

RELEASES = {
    4096: ("goodfire-llama-3.1-8b-instruct", "layer_19"),
    8192: ("goodfire-llama-3.3-70b-instruct", "layer_50"),
}

WRITE = """
import sys, torch
path, d_sae, d_in = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
g = torch.Generator().manual_seed(0)
w = {
    "encoder_linear.weight": torch.randn(d_sae, d_in, generator=g),
    "encoder_linear.bias": torch.zeros(d_sae),
    "decoder_linear.weight": torch.randn(d_in, d_sae, generator=g),
    "decoder_linear.bias": torch.zeros(d_in),
}
torch.save(w, path)
"""

SAELENS = """
import sys, warnings
warnings.simplefilter("ignore")
import huggingface_hub, torch
import sae_lens.loading.pretrained_sae_loaders as loaders
loaders.hf_hub_download = lambda **_: sys.argv[1]  # the file is here; nothing is downloaded
sizes = {"d_sae": int(sys.argv[5]), "d_in": int(sys.argv[6])}
from sae_lens import SAE
goodfire = loaders.NAMED_PRETRAINED_SAE_LOADERS["goodfire"]
def sized(**given):
    return goodfire(**{**given, "cfg_overrides": {**given["cfg_overrides"], **sizes}})
sae = SAE.from_pretrained(sys.argv[3], sys.argv[4], converter=sized)
torch.save(sae.W_dec.detach().contiguous(), sys.argv[2])
"""


class Use(NamedTuple):
    """What a process took: seconds by the clock and of the processors, GiB at most in memory."""

    seconds: float
    cpu: float
    gib: float


def measured(command: list[str]) -> Use:
    """Run a process to its end."""
    started = time.perf_counter()
    to_stderr = [(os.POSIX_SPAWN_DUP2, 2, 1)]  # stdout is for the figures
    child = os.posix_spawn(command[0], command, os.environ, file_actions=to_stderr)
    _, status, usage = os.wait4(child, 0)
    took = time.perf_counter() - started
    if status:
        sys.exit(f"failed: {' '.join(command)[:200]}")
    gib = usage.ru_maxrss / 2**20 / (2**10 if sys.platform == "darwin" else 1)
    return Use(took, usage.ru_utime + usage.ru_stime, gib)


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB"


def measure(folder: Path, d_sae: int, d_in: int, rounds: int, dtype: str) -> dict[str, object]:
    release, sae_id = RELEASES.get(d_in, RELEASES[4096])
    file = folder / "sae.pt"
    shape = [str(d_sae), str(d_in)]
    subprocess.run([sys.executable, "-c", WRITE, file, *shape], check=True)
    labels = folder / "labels.json"
    labels.write_text(json.dumps({str(i): f"label {i}" for i in range(d_sae)}))
    ours = [sys.executable, "-m", "selfie_adapters", "prepare", "sae"]
    ours += ["--release", release, "--sae-id", sae_id, "--sae-path", str(file)]
    ours += ["--labels-json", str(labels), "--output-dir", str(folder), "--output-name", "ours"]
    ours += ["--dtype", dtype]
    theirs = [sys.executable, "-c", SAELENS, str(file), str(folder / "theirs.pt")]
    theirs += [release, sae_id, *shape]
    figures: dict[str, list[Use]] = {"ours": [], "saelens": []}
    for number in range(rounds):
        for name, command in (("ours", ours), ("saelens", theirs)):
            figures[name].append(measured(command))
            print(f"{number + 1}/{rounds} {name}: {figures[name][-1]}", file=sys.stderr)
    return summary(folder, figures, d_sae, d_in, dtype)


def summary(
    folder: Path,
    figures: dict[str, list[Use]],
    d_sae: int,
    d_in: int,
    dtype: str,
) -> dict[str, object]:
    seconds = {name: statistics.median(u.seconds for u in each) for name, each in figures.items()}
    cpu = {name: statistics.median(use.cpu for use in each) for name, each in figures.items()}
    memory = {name: max(use.gib for use in each) for name, each in figures.items()}
    w_dec = d_sae * d_in * 4 / 2**30
    return {
        "memory_ratio": round(memory["saelens"] / memory["ours"], 2),
        "time_ratio": round(seconds["saelens"] / seconds["ours"], 2),
        "ratio_of_w_dec": round(memory["ours"] / w_dec, 3),
        "w_dec_gib": round(w_dec, 3),
        "ours_gib": round(memory["ours"], 3),
        "saelens_gib": round(memory["saelens"], 3),
        "ours_seconds": round(seconds["ours"], 1),
        "saelens_seconds": round(seconds["saelens"], 1),
        "ours_cpu_seconds": round(cpu["ours"], 1),
        "saelens_cpu_seconds": round(cpu["saelens"], 1),
        "load_average": round(os.getloadavg()[0], 1),
        "same_rows": same_rows(folder, dtype),
        "output_gib": round((folder / "ours.pt").stat().st_size / 2**30, 3),
        "d_sae": d_sae,
        "d_in": d_in,
        "dtype": dtype,
        "rounds": len(figures["ours"]),
        "machine": machine(),
    }


def same_rows(folder: Path, dtype: str) -> bool:
    import torch

    ours, theirs = (
        torch.load(folder / f"{name}.pt", weights_only=True, mmap=True)
        for name in ("ours", "theirs")
    )
    pairs = zip(ours.split(4096), theirs.split(4096), strict=True)
    return all(torch.equal(a, b.to(getattr(torch, dtype))) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--d-sae", type=int, default=65536)
    parser.add_argument("--d-in", type=int, default=4096)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder), options.d_sae, options.d_in, options.rounds, options.dtype)
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:16s} {value}")


if __name__ == "__main__":
    main()
