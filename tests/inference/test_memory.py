"""What labelling takes beside the model, on the real small model."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LABEL = """
import sys
from pathlib import Path

import torch
from selfie_adapters import Labeller, create_adapter, load_model


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


model = load_model("demo", dtype=sys.argv[1], device_map="cpu")
labeller = Labeller(model, create_adapter("scale_only", model.d_model, init_scale=3.0))
vectors = torch.randn(256, model.d_model, generator=torch.Generator().manual_seed(0))
labeller.label(vectors[:1], max_new_tokens=1)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = peak()
labels = labeller.label(vectors, batch_size=256, temperature=1.0)
assert len(labels) == 256
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_labelling_256_rows_takes_under_1_2_gib_beside_the_model(dtype):
    # a copy of the head's weight per row would be 13.5 GiB
    command = [sys.executable, "-c", _LABEL, dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert int(done.stdout) < 1.2 * 2**30
