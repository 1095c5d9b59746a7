"""A run that is stopped anywhere and resumed ends with the bits of one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.errors import (
    BindingError,
    ConfigError,
    FolderInUseError,
    MissingFileError,
    StorageError,
    TrainingError,
    TrainingStopped,
)
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.files.locking import folder_lock
from selfie_adapters.model import FrozenModel
from selfie_adapters.training import loop, resume, run_folder, train
from selfie_adapters.training.stopping import part_of_another_command, stop_on_signals
from selfie_adapters.training.tracking import Tracker
from tiny import golden_tokenizer, tiny_network
from toy_run import config_for, rows_of

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it and tidy up."""


def mixed(data, **changes):
    """Accumulation, a mixture drawn anew each epoch, a matrix, checkpoints off the beat."""
    changes = {
        "projection": {"type": "scalar_affine_plus_low_rank", "low_rank_rank": 2, "init_scale": 3},
        "data__train_dataset_ratios": [
            {"datasets": "a", "ratio": 2.0},
            {"datasets": ["b@l1", "b@l2"], "ratio": 1.0},
        ],
        "data__batch_size": 3,
        "training__gradient_accumulation_steps": 2,
        "training__num_epochs": 3,
        "training__checkpoint_every_n_steps": 3,
        "training__validation_every_n_steps": 5,
        **changes,
    }
    return config_for(data, **changes)


def timeless(run):
    """The rows of metrics.jsonl without what depends on the clock or tells of the resuming."""
    rows = [row for row in read_jsonl(run / "metrics.jsonl") if row["event"] != "resume"]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")}
        for row in rows
    ]


def assert_same_end(run, whole):
    ours, theirs = (load_file(r / "adapter_final.safetensors") for r in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert timeless(run) == timeless(whole)
    best = [load_adapter(r / "adapter_best.safetensors") for r in (run, whole)]
    assert best[0].record.global_step == best[1].record.global_step
    assert not list(run.rglob(".*"))


def kill_after_writes(monkeypatch, count):
    """Die in the middle of the write number `count` of this process, torn line included."""
    original = Tracker._write
    written = []

    def write(self, event, row):
        written.append(event)
        if len(written) == count:
            with self._metrics.open("a") as file:
                file.write('{"event": "st')
            raise Killed
        original(self, event, row)

    monkeypatch.setattr(Tracker, "_write", write)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd_momentum"])
def test_killed_at_every_write_and_resumed_the_end_is_the_same(data, model, monkeypatch, optimizer):
    config = mixed(data, training__optimizer_type=optimizer, experiment_name="whole")
    whole = train(config, model)
    total = len(rows_of(whole, "step"))
    assert total == 12  # an epoch of 16 + 8 examples: 8 batches of 3, two a step
    run = data.parent / "runs/cut"
    cut_config = config.model_copy(update={"experiment_name": "cut"})
    for count in (1, 2, 4, 5, 3, 6, 4, 8, 6):
        with monkeypatch.context() as patch:
            kill_after_writes(patch, count)
            go_on = partial(resume, run) if run.exists() else partial(train, cut_config)
            with pytest.raises(Killed):
                go_on(model)
    resume(run, model)
    assert_same_end(run, whole)


def test_killed_while_a_checkpoint_is_written_the_one_before_is_whole(data, model, monkeypatch):
    config = mixed(data, experiment_name="whole")
    whole = train(config, model)
    original = Path.replace

    def replace(self, target):
        if Path(target).name == "step_00000006.safetensors":
            raise Killed
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            train(config.model_copy(update={"experiment_name": "cut"}), model)
    run = data.parent / "runs/cut"
    (run / "checkpoints/.step_00000006.safetensors.x.part").write_bytes(b"half")
    assert [p.name for p in run.glob("checkpoints/step*")] == ["step_00000003.safetensors"]
    resume(run, model)
    assert_same_end(run, whole)


def test_checkpoints_are_pruned_to_those_to_be_kept(data, model):
    run = train(mixed(data, training__keep_last=3), model)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == [f"step_000000{n}.safetensors" for n in ("06", "09", "12")]


def test_training_inside_another_command_advises_that_command(data, model, monkeypatch):
    original = loop.backward

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(loop, "backward", signalled)
    with part_of_another_command(), pytest.raises(TrainingStopped) as raised:
        train(mixed(data), model)
    assert str(raised.value).endswith("which is saved. Run the same command again.")
    with pytest.raises(TrainingStopped, match="selfie train --resume"):
        train(mixed(data, experiment_name="alone"), model)


def test_resuming_a_finished_run_changes_nothing(data, model):
    run = train(mixed(data), model)
    before = (run / "adapter_final.safetensors").read_bytes(), timeless(run)
    resume(run, model)
    assert ((run / "adapter_final.safetensors").read_bytes(), timeless(run)) == before


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(
    data, model, monkeypatch, number, name
):
    config = mixed(data, experiment_name="whole")
    whole = train(config, model)
    original = loop.backward
    calls = []

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return original(*arguments)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", signalled)
        with pytest.raises(TrainingStopped) as raised:
            train(config.model_copy(update={"experiment_name": "cut"}), model)
    assert signal.getsignal(number) is before
    run = data.parent / "runs/cut"
    # step 5 is finished and saved; the validation due at it is still to be made
    assert f"stopped by {name} after step 5 of 12" in str(raised.value)
    assert f"selfie train --resume {run}" in str(raised.value)
    assert raised.value.exit_code == 128 + number
    assert load_adapter(run / "adapter_last.safetensors").record.global_step == 5
    assert rows_of(run, "validation") == []
    resume(run, model)
    assert_same_end(run, whole)


def test_a_signal_in_a_validation_gives_it_up_and_makes_it_on_resuming(data, model, monkeypatch):
    config = mixed(data, experiment_name="whole")
    whole = train(config, model)
    original = loop._Trainer._validate
    calls = []

    def signalled(self):
        if not calls:
            calls.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_validate", signalled)
        with pytest.raises(TrainingStopped, match="after step 5"):
            train(config.model_copy(update={"experiment_name": "cut"}), model)
    run = data.parent / "runs/cut"
    assert rows_of(run, "validation") == []
    resume(run, model)
    assert_same_end(run, whole)


def test_an_ignored_signal_stays_ignored():
    """nohup ignores SIGHUP so that the run goes on without its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_interrupts_at_once(data, model, monkeypatch):
    original = loop.backward

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(loop, "backward", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(mixed(data), model)


@pytest.mark.parametrize("stage", ["first_state", "write_json", "write_text"])
def test_what_stops_a_start_over_an_older_run_does_not_offer_to_resume_that_one(
    data, model, monkeypatch, stage
):
    """At none of the stages can `--resume` mistake the older run for the one that was asked for."""
    run = train(config_for(data, training__max_steps=2), model)
    old = {path.name for path in run.rglob("*.safetensors")}

    def full(*_):
        raise StorageError("x cannot be written: No space left on device.")

    monkeypatch.setattr(loop if stage == "first_state" else run_folder, stage, full)
    message = r"Nothing was trained yet\. Run the same command again\.$"
    with pytest.raises(TrainingError, match=message):
        train(config_for(data, training__max_steps=4), model, overwrite=True)
    if stage == "first_state":
        assert {path.name for path in run.rglob("*.safetensors")} == old  # not touched yet
    else:
        with pytest.raises(MissingFileError, match="holds no run"):
            resume(run, model)
    monkeypatch.undo()
    train(config_for(data, training__max_steps=4), model, overwrite=True)
    assert [row["step"] for row in rows_of(run, "step")] == [1, 2, 3, 4]


def test_a_run_without_a_checkpoint_states_how_to_start_over(data, model, monkeypatch):
    def full(*_):
        raise StorageError("x cannot be written: No space left on device.")

    monkeypatch.setattr(loop._Trainer, "_checkpoint", full)
    run = data.parent / "runs/toy"
    message = rf"There is no checkpoint yet\. Start over with: selfie train --resume {run}$"
    with pytest.raises(TrainingError, match=message):
        train(config_for(data, experiment_name="toy", training__max_steps=2), model)
    monkeypatch.undo()
    resume(run, model)
    assert [row["step"] for row in rows_of(run, "step")] == [1, 2]


def test_a_full_disk_stops_with_the_last_checkpoint_whole(data, model, monkeypatch):
    config = mixed(data, experiment_name="whole")
    whole = train(config, model)
    original = Path.write_bytes

    def full(self, content):
        if "step_00000006" in self.name:
            original(self, content[:100])
            raise OSError(28, "No space left on device")
        return original(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TrainingError, match=r"No space left.*Resume from step 3 with: selfie"):
            train(config.model_copy(update={"experiment_name": "cut"}), model)
    run = data.parent / "runs/cut"
    resume(run, model)
    assert_same_end(run, whole)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(MissingFileError, match="holds no run.*selfie train --config"):
        resume(tmp_path / "nowhere")


def test_two_runs_in_one_folder_are_refused(data, model):
    run = data.parent / "runs/run"
    with folder_lock(run):
        with pytest.raises(FolderInUseError, match=f"{run} is in use by process {os.getpid()}"):
            train(mixed(data), model)
        with pytest.raises(FolderInUseError, match="in use"):
            train(mixed(data), model, overwrite=True)
    train(mixed(data), model)
    before = (run / "metrics.jsonl").read_bytes()
    with folder_lock(run), pytest.raises(FolderInUseError, match="in use"):
        resume(run, model)
    assert (run / "metrics.jsonl").read_bytes() == before


def stopped_run(data, model, monkeypatch, writes=5):
    with monkeypatch.context() as patch:
        kill_after_writes(patch, writes)
        with pytest.raises(Killed):
            train(mixed(data), model)
    return data.parent / "runs/run"


def test_other_data_under_the_same_name_is_refused(data, model, monkeypatch):
    run = stopped_run(data, model, monkeypatch)
    dataset = load_dataset(data)
    sections = [
        Section(s.metadata, s.vectors.clone(), [relabelled(s.items[0]), *s.items[1:]])
        for s in dataset.sections
    ]
    save_dataset(data, sections, overwrite=True)
    with pytest.raises(TrainingError, match="toy.json: the training examples are not those"):
        resume(run, model)


def test_another_model_under_the_same_name_is_refused(data, model, monkeypatch):
    run = stopped_run(data, model, monkeypatch)
    other = FrozenModel(tiny_network("llama", seed=1), golden_tokenizer(), "tiny")
    with pytest.raises(BindingError, match="fingerprint|embedding norm"):
        resume(run, other)


def relabelled(item):
    return Item(item.index, [f"{item.labels[0]}!", *item.labels[1:]], item.split)


def changed_vectors(data, split):
    dataset = load_dataset(data)
    sections = [Section(s.metadata, s.vectors.clone(), s.items) for s in dataset.sections]
    used = {item.index for item in sections[2].items if item.split == split}
    sections[2].vectors[min(used), 0] += 1e-6
    save_dataset(data, sections, overwrite=True)


def changed_validation_label(data, _split):
    dataset = load_dataset(data)
    first, *others = dataset.sections
    held_out = next(place for place, item in enumerate(first.items) if item.split == "val")
    items = [*first.items]
    items[held_out] = relabelled(items[held_out])
    sections = [Section(s.metadata, s.vectors.clone(), s.items) for s in others]
    changed = Section(first.metadata, first.vectors.clone(), items)
    save_dataset(data, [changed, *sections], overwrite=True)


@pytest.mark.parametrize("writes", [1, 5], ids=["before a checkpoint", "after one"])
@pytest.mark.parametrize(
    ("change", "split", "what"),
    [
        (changed_vectors, "train", "the training vectors"),
        (changed_vectors, "val", "the validation vectors"),
        (changed_validation_label, "", "the validation labels"),
    ],
)
def test_changed_inputs_are_named(data, model, monkeypatch, change, split, what, writes):
    run = stopped_run(data, model, monkeypatch, writes)
    kept = {path: path.read_bytes() for path in data.parent.iterdir() if path.is_file()}
    change(data, split)
    with pytest.raises(TrainingError, match=f"toy.json: {what} changed since {run} began. Put"):
        resume(run, model)
    for path, content in kept.items():
        path.write_bytes(content)
    resume(run, model)


def test_a_weight_too_small_for_the_fingerprint_is_noticed(data, model, monkeypatch):
    run = stopped_run(data, model, monkeypatch)
    network = tiny_network("llama")
    with torch.no_grad():
        network.lm_head.weight[0, 0] += 1e-5
    with pytest.raises(TrainingError, match="tiny: the weights of the model in float32 changed"):
        resume(run, FrozenModel(network, golden_tokenizer(), "tiny"))
    resume(run, model)


def test_another_start_adapter_is_noticed_and_a_missing_one_is_not_needed(
    data, model, monkeypatch, tmp_path
):
    file = tmp_path / "start.safetensors"

    def start(seed):
        adapter = create_adapter("scalar_affine_plus_low_rank", 32, low_rank_rank=2, seed=seed)
        adapter.save(file)

    start(0)
    config = mixed(data, training__resume_from_checkpoint=str(file))
    with monkeypatch.context() as patch:
        kill_after_writes(patch, 6)
        with pytest.raises(Killed):
            train(config, model)
    run = data.parent / "runs/run"
    start(1)
    with pytest.raises(TrainingError, match="start.safetensors: the adapter that training starts"):
        resume(run, model)
    file.unlink()
    resume(run, model)


def test_a_run_of_an_earlier_version_is_resumed(data, model, monkeypatch):
    run = stopped_run(data, model, monkeypatch)
    (run / "run.json").write_text('{"id": "0123abcd"}')
    resume(run, model)


def test_a_run_that_was_moved_is_resumed(data, model, monkeypatch):
    whole = train(mixed(data, experiment_name="whole"), model)
    run = stopped_run(data, model, monkeypatch)
    moved = run.rename(data.parent / "elsewhere")
    resume(moved, model)
    assert_same_end(moved, whole)


def test_a_changed_configuration_is_refused(data, model, monkeypatch):
    run = stopped_run(data, model, monkeypatch)
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("num_epochs: 3", "num_epochs: 4"))
    with pytest.raises(TrainingError, match="means 16 steps in all; the run began with 12"):
        resume(run, model)
    file.write_text(file.read_text().replace("num_epochs: 4", "num_epochs: 3"))
    file.write_text(file.read_text().replace("low_rank_rank: 2", "low_rank_rank: 3"))
    with pytest.raises(TrainingError, match=r"U has shape \[32, 2\].*Was config.yaml changed"):
        resume(run, model)


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(data, model, monkeypatch):
    config = mixed(data, experiment_name="whole", training__checkpoint_every_n_steps=2)
    whole = train(config, model)
    run = data.parent / "runs/cut"
    with monkeypatch.context() as patch:
        kill_after_writes(patch, 6)
        with pytest.raises(Killed):
            train(config.model_copy(update={"experiment_name": "cut"}), model)
    newest = run / "checkpoints/step_00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=r"step_00000004.*not a complete checkpoint.*Remove it"):
        resume(run, model)
    newest.unlink()
    resume(run, model)
    assert_same_end(run, whole)


def test_metrics_that_lost_rows_are_not_gone_on_with(data, model, monkeypatch):
    run = stopped_run(data, model, monkeypatch)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(TrainingError, match=r"metrics.jsonl has 0 bytes; the checkpoint recorded"):
        resume(run, model)


# Going on from adapter files


def test_an_adapter_file_without_optimizer_state_starts_at_its_step(data, model, tmp_path):
    """The published files hold no optimizer: the numbers and the step are taken over."""
    first = train(config_for(data, training__max_steps=4), model)
    saved = load_adapter(first / "adapter_last.safetensors")
    file = saved.save(tmp_path / "published.pt")
    config = config_for(data, experiment_name="on", training__resume_from_checkpoint=str(file))
    run = train(config, model)
    assert [row["step"] for row in rows_of(run, "step")] == list(range(5, 13))
    assert "starts anew" not in rows_of(run, "start")[0]
    whole = train(config_for(data, experiment_name="whole"), model)
    rates = [[r["learning_rates"] for r in rows_of(x, "step")] for x in (run, whole)]
    assert rates[0] == rates[1][4:]


def test_a_checkpoint_with_torchs_optimizer_state_goes_on_bit_for_bit(data, model, tmp_path):
    """As a trainer would save it: state dictionaries of AdamW and LambdaLR over two groups."""
    whole = train(config_for(data, experiment_name="whole"), model)
    dataset = load_dataset(data)
    adapter = create_adapter("scalar_affine", 32, init_scale=3.0, seed=42)
    # bias first: the order of another trainer's groups need not be ours
    optimizer = torch.optim.AdamW(
        [
            {"params": [adapter.bias], "weight_decay": 0.01},
            {"params": [adapter.log_scale], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1e-6 + (1 - 1e-6) * step / 2 if step < 2 else 1.0
    )
    examples = dataset.examples("train")
    order = torch.arange(29)
    from selfie_adapters.model import SoftPrompt
    from selfie_adapters.training import label_losses

    config = config_for(
        data,
        experiment_name="on",
        data__shuffle=False,
        training__scheduler_type="constant",
    )
    whole = train(config.model_copy(update={"experiment_name": "whole2"}), model)
    for batch in order.split(5)[:4]:
        losses = label_losses(
            model,
            SoftPrompt.for_tokenizer(model.tokenizer),
            adapter,
            dataset.gather(examples.section[batch], examples.row[batch]),
            [examples.labels[i] for i in batch],
        )
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    file = tmp_path / "checkpoint.pt"
    adapter.save(file)
    content = torch.load(file, weights_only=True)
    content["optimizer_state_dict"] = optimizer.state_dict()
    content["scheduler_state_dict"] = {"last_epoch": 4, "base_lrs": [0.01, 0.01]}
    content["global_step"] = 99  # whatever it counted, the schedule knows the optimizer steps
    torch.save(content, file)
    training = config.training.model_copy(update={"resume_from_checkpoint": str(file)})
    run = train(config.model_copy(update={"training": training}), model)
    assert [row["step"] for row in rows_of(run, "step")] == list(range(5, 13))
    finals = [load_adapter(r / "adapter_final.safetensors") for r in (run, whole)]
    torch.testing.assert_close(finals[0].bias, finals[1].bias, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(finals[0].log_scale, finals[1].log_scale, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["scalar_affine_norm.pt", "scalar_affine_norm.safetensors"])
def test_published_files_are_gone_on_from(name, golden_dir, tmp_path):
    from selfie_adapters.config import TrainConfig

    config = TrainConfig.model_validate(
        {
            "experiment_name": "on",
            "model": {"name": str(golden_dir / "model"), "dtype": "float32"},
            "data": {"labels_file": str(golden_dir / "labels.json"), "batch_size": 4},
            "projection": {"type": "scalar_affine", "init_scale": 2.0},
            "training": {
                "num_epochs": 6,
                "checkpoint_dir": str(tmp_path),
                "resume_from_checkpoint": str(golden_dir / "adapters" / name),
            },
        }
    )
    run = train(config)
    assert rows_of(run, "step")[0]["step"] == 8  # the file is of step 7
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["event"] == "start"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projection": {"type": "scale_only"}}, "holds a scalar_affine of width 32"),
        (
            {"projection": {"type": "scalar_affine", "normalize_input": False}},
            "was trained with normalize_input True",
        ),
        ({"training__max_steps": 4}, "is at step 4 and this run ends at step 4"),
    ],
)
def test_what_does_not_fit_the_file_is_refused(data, model, changes, message):
    first = train(config_for(data, training__max_steps=4), model)
    file = str(first / "adapter_last.safetensors")
    config = config_for(
        data, experiment_name="on", **{"training__resume_from_checkpoint": file, **changes}
    )
    with pytest.raises(ConfigError, match=message):
        train(config, model)
    assert not (data.parent / "runs/on").exists()


# Real processes


def selfie(*arguments, cwd, script=("-m", "selfie_adapters"), **environment):
    return subprocess.Popen(
        [sys.executable, *script, "train", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    said, _ = process.communicate()
    assert process.returncode == code, said
    return said


@pytest.fixture
def on_disk(tmp_path, golden_dir):
    """A configuration file over the sample data and the golden model, for real processes."""
    file = tmp_path / "whole.yaml"
    file.write_text(
        f"""
model: {{name: {golden_dir / "model"}, dtype: float32, device_map: cpu}}
data:
  labels_file: {ROOT / "data/sample/sample.json"}
  batch_size: 5
  train_dataset_ratios:
    - {{datasets: everyday@l1, ratio: 2}}
    - {{datasets: everyday@l2, ratio: 1}}
projection: {{type: scalar_affine_plus_low_rank, low_rank_rank: 3, init_scale: 2.0}}
training:
  gradient_accumulation_steps: 2
  num_epochs: 30
  validation_every_n_steps: 25
  checkpoint_every_n_steps: 7
  checkpoint_dir: {tmp_path}
"""
    )
    return file


KILLING = """
import os, signal, sys, threading
from selfie_adapters.cli import main
from selfie_adapters.training import loop

original, calls = loop.backward, []

def backward(*arguments):
    calls.append(1)
    if len(calls) == int(os.environ["STEPS"]):
        kill = threading.Timer(float(os.environ["SECONDS"]), os.kill, (os.getpid(), signal.SIGKILL))
        kill.start()
    return original(*arguments)

loop.backward = backward
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_no_trace(on_disk, tmp_path):
    finish(selfie("--config", str(on_disk), cwd=tmp_path))
    script = tmp_path / "killing.py"
    script.write_text(KILLING)
    run = tmp_path / "cut"
    chance = random.Random(0)
    for _ in range(20):
        # some steps, then a moment that falls anywhere: in a step, a validation, a write
        moment = {"STEPS": str(chance.randint(1, 9)), "SECONDS": str(chance.random() / 10)}
        how = ["--resume", str(run)]
        if not run.exists():
            how = ["--config", str(on_disk), "--set", "experiment_name=cut"]
        process = selfie(*how, cwd=tmp_path, script=[str(script)], **moment)
        finish(process, code=-signal.SIGKILL)
    finish(selfie("--resume", str(run), cwd=tmp_path))
    assert_same_end(run, tmp_path / "whole")
    steps = [row["step"] for row in rows_of(run, "step")]
    assert steps == list(range(1, 181))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_command_ends_on_a_signal_with_its_code_and_one_line(on_disk, tmp_path, number, code):
    process = selfie("--config", str(on_disk), cwd=tmp_path)
    while not (tmp_path / "whole/metrics.jsonl").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in said
    assert f"selfie train --resume {tmp_path / 'whole'}" in said.replace("\n", " ")


@pytest.mark.slow
def test_a_disk_that_is_really_full_leaves_a_run_that_goes_on(on_disk, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(small)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        target = f"training.checkpoint_dir={small}"
        said = finish(selfie("--config", str(on_disk), "--set", target, cwd=tmp_path), code=1)
        assert "No space left on device" in said
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        finish(selfie("--resume", str(small / "whole"), cwd=tmp_path))
        finish(selfie("--config", str(on_disk), cwd=tmp_path))
        assert_same_end(small / "whole", tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(small)], check=False)
