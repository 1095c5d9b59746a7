"""Checkpoints whose tensors or numbers are not what training wrote are refused, not used."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import create_adapter
from selfie_adapters.config import TrainingSection
from selfie_adapters.errors import TrainingError
from selfie_adapters.training.checkpoints import (
    TrainingState,
    checkpoint_tensors,
    read_checkpoint,
    restore_tensors,
)
from selfie_adapters.training.step import make_optimizer

PROGRESS = TrainingState(
    step=1, total_steps=10, best=1.5, validated=True, metrics_bytes=10, examples="ab"
)


def trained(kind="scalar_affine", optimizer_type="adamw"):
    """An adapter of width 4 and its optimizer after one step."""
    torch.manual_seed(0)
    adapter = create_adapter(kind, 4, low_rank_rank=2 if "low_rank" in kind else None)
    settings = TrainingSection.model_construct(
        learning_rate=0.1,
        scale_learning_rate=None,
        direction_learning_rate=None,
        bias_learning_rate=None,
        weight_decay=0.01,
        optimizer_type=optimizer_type,
        momentum=0.9,
    )
    optimizer = make_optimizer(adapter, settings)
    adapter.transform(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    return adapter, optimizer


@pytest.mark.parametrize("optimizer_type", ["adamw", "sgd"])
@pytest.mark.parametrize("kind", ["scalar_affine", "scalar_affine_plus_low_rank", "full_rank"])
def test_what_training_wrote_is_put_back_and_training_goes_on_alike(kind, optimizer_type):
    adapter, optimizer = trained(kind, optimizer_type)
    tensors = {name: one.clone() for name, one in checkpoint_tensors(adapter, optimizer).items()}
    other, its_optimizer = trained(kind, optimizer_type)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    restore_tensors(other, its_optimizer, tensors)
    for pair in ((adapter, optimizer), (other, its_optimizer)):
        pair[1].zero_grad()
        pair[0].transform(torch.eye(4)).square().sum().backward()
        pair[1].step()
    for mine, theirs in zip(adapter.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer/bias/step", None, "holds exp_avg, exp_avg_sq of bias; .*AdamW"),
        ("optimizer/bias/exp_avg", None, "holds exp_avg_sq, step of bias"),
        ("optimizer/bias/momentum_buffer", torch.zeros(4), "momentum_buffer, step of bias"),
        ("optimizer/bias/exp_avg", torch.zeros(5), r"exp_avg of bias has shape \[5\]"),
        ("optimizer/bias/exp_avg_sq", torch.zeros(4, 1), r"has shape \[4, 1\]"),
        ("optimizer/bias/step", torch.zeros(4), r"step of bias has shape \[4\]"),
        ("optimizer/bias/exp_avg", torch.zeros(4, dtype=torch.int64), "torch.int64"),
        ("optimizer/bias/exp_avg", torch.zeros(4, dtype=torch.float64), "torch.float64"),
        ("optimizer/bias/exp_avg", torch.full((4,), float("nan")), "NaN"),
        ("adapter/bias", torch.full((4,), float("inf")), "bias holds .*infinity"),
        ("adapter/bias", torch.zeros(4, dtype=torch.bfloat16), "bias holds torch.bfloat16"),
        ("adapter/bias", torch.zeros(3), r"bias has shape \[3\]"),
        ("adapter/bias", None, "the checkpoint holds log_scale"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_change_nothing(name, value, message):
    adapter, optimizer = trained()
    before = {name: one.clone() for name, one in checkpoint_tensors(adapter, optimizer).items()}
    tensors = {key: one + 1 for key, one in before.items()} | {name: value}
    tensors = {key: one for key, one in tensors.items() if one is not None}
    with pytest.raises(TrainingError, match=message):
        restore_tensors(adapter, optimizer, tensors)
    after = checkpoint_tensors(adapter, optimizer)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": float("nan")}, "step"),
        ({"step": -1}, "step"),
        ({"step": True}, "step"),
        ({"step": 2**70}, "step"),
        ({"validated": "0x10"}, "validated"),
        ({"metrics_bytes": "\n"}, "metrics_bytes"),
        ({"best": "low"}, "best"),
        ({"best": float("nan")}, "best"),
        ({"examples": None}, "examples"),
    ],
)
def test_progress_of_another_type_is_refused(changes, message, tmp_path):
    path = tmp_path / "step_00000001.safetensors"
    save_file({"adapter/bias": torch.zeros(4)}, path, {"state_json": json.dumps(asdict(PROGRESS))})
    assert read_checkpoint(path)[0] == PROGRESS
    state = json.dumps({**asdict(PROGRESS), **changes})
    save_file({"adapter/bias": torch.zeros(4)}, path, {"state_json": state})
    with pytest.raises(TrainingError, match=f"not a complete checkpoint .*{message}"):
        read_checkpoint(path)


@pytest.mark.parametrize("header", [{}, {"state_json": "{"}, {"state_json": "[" * 5000}])
def test_a_header_that_is_damaged_is_refused(header, tmp_path):
    save_file({"a": torch.zeros(4)}, tmp_path / "x.safetensors", header)
    with pytest.raises(TrainingError, match="not a complete checkpoint"):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("step", [-1.0, 2.0**60])
def test_a_step_counter_that_counts_no_steps_is_refused(step):
    adapter, optimizer = trained()
    tensors = checkpoint_tensors(adapter, optimizer)
    (key, *_) = [name for name in tensors if name.endswith("/step")]
    with pytest.raises(TrainingError, match=r"step of \w+ is .*a count of optimizer steps"):
        restore_tensors(adapter, optimizer, {**tensors, key: torch.tensor(step)})
