"""The published trainer's numbers on the golden model, every one of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from golden_cases import GOLDEN_ADAPTERS
from selfie_adapters.adapters import load_adapter
from selfie_adapters.config import TrainConfig
from selfie_adapters.dataset import load_dataset
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.model import SoftPrompt, load_model
from selfie_adapters.training import Objective, label_losses, train


@pytest.fixture(scope="module")
def model(golden_dir):
    return load_model(golden_dir / "model", dtype="float32")


@pytest.fixture(scope="module")
def vectors(golden_dir):
    (tensor,) = load_file(golden_dir / "vectors.safetensors").values()
    return tensor


@pytest.fixture(scope="module")
def cases(golden):
    return {case["adapter"]: case for case in golden["cases"]}


def test_every_published_case_is_tested(cases):
    assert sorted(cases) == sorted(GOLDEN_ADAPTERS)


@pytest.mark.parametrize("name", GOLDEN_ADAPTERS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_losses_and_gradients(name, which, cases, model, vectors, golden, golden_dir):
    expected = cases[name]["losses"][which]
    adapter = load_adapter(golden_dir / "adapters" / f"{name}.safetensors")
    losses = label_losses(
        model,
        SoftPrompt(golden["template"], golden["reserved_token"]),
        adapter,
        vectors,
        golden["labels"],
        eos_token=golden["eos_token"],
        label_smoothing=expected["label_smoothing"],
        max_loss=expected["max_loss"],
    )
    torch.testing.assert_close(losses, torch.tensor(expected["per_example"]), rtol=2e-5, atol=0)
    assert float(losses.mean().detach()) == pytest.approx(expected["loss"], rel=1e-5)
    losses.mean().backward()
    assert set(expected["grad_norm"]) == {name for name, _ in adapter.named_parameters()}
    for parameter, value in adapter.named_parameters():
        assert value.grad is not None
        assert float(value.grad.norm()) == pytest.approx(
            expected["grad_norm"][parameter], rel=2e-4, abs=1e-7
        )
        head = torch.tensor(expected["grad_head"][parameter])
        torch.testing.assert_close(value.grad.flatten()[: head.numel()], head, rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("name", GOLDEN_ADAPTERS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_clamped_and_target_tokens(name, which, cases, model, vectors, golden, golden_dir):
    expected = cases[name]["losses"][which]
    prompt = SoftPrompt(golden["template"], golden["reserved_token"], golden["eos_token"])
    bound = prompt.bind(model.tokenizer)
    objective = Objective(model, bound, expected["label_smoothing"], expected["max_loss"])
    tokens = tokenize_labels(model.tokenizer, golden["labels"], bound.end_id)
    adapter = load_adapter(golden_dir / "adapters" / f"{name}.safetensors")
    with torch.no_grad():
        result = objective.all_losses(adapter.transform(vectors), tokens, torch.arange(8))
    assert int(result.clamped) == expected["clamped_tokens"]
    assert result.tokens == expected["target_tokens"]


@pytest.mark.parametrize("which", range(4))
def test_trajectories(which, golden, golden_dir, model, tmp_path):
    expected = golden["trajectories"][which]
    keys = [
        "scheduler_type",
        "optimizer_type",
        "learning_rate",
        "num_epochs",
        "warmup_steps",
        "gradient_clip_norm",
        "weight_decay",
        "momentum",
        "bias_learning_rate",
        "gradient_accumulation_steps",
    ]
    config = TrainConfig.model_validate(
        {
            "experiment_name": "golden",
            "model": {"name": str(golden_dir / "model"), "dtype": "float32"},
            "data": {
                "labels_file": str(golden_dir / "labels.json"),
                "batch_size": expected["batch_size"],
                "shuffle": False,
                "eos_token": golden["eos_token"],
            },
            "projection": {
                "type": expected["projection"],
                "init_scale": expected["init_scale"],
            },
            "soft_prompt": {
                "template": golden["template"],
                "reserved_token": golden["reserved_token"],
            },
            "training": {
                **{key: expected[key] for key in keys if key in expected},
                "checkpoint_dir": str(tmp_path),
            },
        }
    )
    run = train(config, model=model, dataset=load_dataset(golden_dir / "labels.json"))
    rows = [row for row in read_jsonl(run / "metrics.jsonl") if row["event"] == "step"]
    assert len(rows) == expected["optimizer_steps"]
    steps = [
        (loss, list(row["learning_rates"].values())) for row in rows for loss in row["batch_losses"]
    ]
    assert len(steps) == len(expected["steps"])
    for (loss, rates), step in zip(steps, expected["steps"], strict=True):
        assert loss == pytest.approx(step["loss"], rel=1e-5)
        assert rates == pytest.approx(step["lr"], rel=1e-9)
    adapter = load_adapter(run / "adapter_final.safetensors")
    for name, value in expected["final"].items():
        found = dict(adapter.named_parameters())[name].detach().flatten()[: len(value)]
        torch.testing.assert_close(found, torch.tensor(value), rtol=1e-4, atol=2e-6)
