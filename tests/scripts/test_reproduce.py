from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import reproduce
import reproduce_kinds
import reproduce_plan
import reproduce_sizes
import reproduce_tables
from reproduce_steps import Step

from selfie_adapters.cli import app
from selfie_adapters.evaluation.base import protocol_names

ROOT = Path(__file__).parents[2]


def trained(folder: Path, step: Step) -> None:
    """What a training leaves, with a validation loss that depends on its rate."""
    run = step.makes.parent
    run.mkdir(parents=True)
    rate = float(step.command[step.command.index("--learning-rate") + 1])
    (run / "config.yaml").write_text("projection: {type: x}\n")
    row = {"event": "validation", "step": 1, "val_loss": abs(rate - 0.01)}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    step.makes.write_text("")


def mine(step: Step) -> set[Path]:
    """What a step writes that others read, and the folders of it."""
    labels = step.makes.parent / "trained_labels.jsonl"
    return {step.makes, labels, step.makes.parent, step.makes.parent.parent}


@pytest.mark.parametrize("size", [reproduce_sizes.STANDARD, reproduce_sizes.FULL])
def test_every_command_is_one_that_exists_and_rates_come_of_validation(tmp_path, size):
    steps, done = [], set()
    for stage in reproduce_plan.stages(tmp_path, size, protocol_names()):
        for step in stage:
            for part in shlex.split(step.shown.replace("=", " ")):  # made in a stage before
                made = str(part).startswith(f"{tmp_path}/") and Path(part) not in mine(step)
                assert not made or Path(part).name == "topics.jsonl" or Path(part) in done, part
            if step.script:
                assert (ROOT / step.script).is_file()
                step.makes.touch()
                continue
            app.parse_args(list(step.command), exit_on_error=False, print_error=False)
            if step.command[0] == "train":
                assert "--direction-learning-rate" in step.command or "full_rank" not in step.name
                if not step.makes.exists():
                    trained(tmp_path, step)
        steps += stage
        done |= {path for step in stage for path in mine(step)}
    assert len({step.name for step in steps}) == len(steps)
    assert len({step.makes for step in steps}) == len(steps)
    trainings = [step for step in steps if step.command[0] == "train"]
    kinds, places = len(reproduce_kinds.KINDS), len(size.places)
    assert len(trainings) == kinds * places * (len(size.rates) + len(size.seeds) - 1)
    later = [step for step in trainings if f"seed {size.seeds[0]}" not in step.name]
    assert {step.command[step.command.index("--learning-rate") + 1] for step in later} == {"0.01"}
    assert {"detection", "fuzzing", "scoring", "bridge", "taboo"} <= {step.name for step in steps}
    naming = [step for step in steps if step.protocol == "naming"]
    ranked = [one for one in naming if one.command[one.command.index("--retrieval") + 1] != "0"]
    own = [place.name for place in size.places if place.position == "name"]
    assert [step.name for step in ranked] == [f"spelling_{name}" for name in own]
    for step in naming:
        if "--adapters" in step.command:  # blocks that the file has, and every seed of every kind
            assert step.command.count("--adapters") == kinds * len(size.seeds)
    assert sum("--adapters" in step.command for step in naming) == places
    held_out = {step.protocol: step for step in steps}
    for name, needed in (("composition", 2 * size.pairs), ("naming", size.nouns)):
        assert name in held_out
        assert needed <= size.held_out  # there are as many test nouns
    loss = next(step for step in steps if step.protocol == "loss")
    assert loss.command.count("--adapters") == kinds * len(size.seeds)


def test_nouns_are_drawn_by_split_without_glosses(tmp_path):
    reproduce_plan.write_topics(tmp_path, reproduce_sizes.QUICK)
    rows = [json.loads(line) for line in (tmp_path / "topics.jsonl").read_text().splitlines()]
    splits = [row["split"] for row in rows]
    assert {split: splits.count(split) for split in splits} == {"train": 120, "val": 24, "test": 24}
    assert all(row["name"] in row["labels"] for row in rows)
    assert not any(", " in label for row in rows for label in row["labels"])
    assert any(len(row["labels"]) > 1 for row in rows)


def without_processes(monkeypatch, status_of=lambda command: 0) -> list[str]:
    """Commands that would have been run, as typed without the interpreter."""
    ran: list[str] = []

    def process(_runner, command, mark):
        assert command[0] == sys.executable
        assert mark.startswith("[")
        ran.append(shlex.join(command[1:]))
        return status_of(command), 2.6

    monkeypatch.setattr(reproduce.Runner, "_process", process)
    return ran


def test_done_steps_are_not_run_again_and_killed_ones_resume(tmp_path, monkeypatch, capsys):
    ran = without_processes(monkeypatch)
    step = Step(
        "train it", ("train",), tmp_path / "a/end", "", ("train", "--resume", "a"), tmp_path / "a/x"
    )
    monkeypatch.setattr(reproduce, "stages", lambda *_: [[step, replace(step, name="other")]])
    reproduce.run_steps(tmp_path, reproduce_sizes.QUICK, ["train"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").touch()
    reproduce.run_steps(tmp_path, reproduce_sizes.QUICK, ["train"])
    (tmp_path / "a/end").touch()
    reproduce.run_steps(tmp_path, reproduce_sizes.QUICK)
    assert ran == ["-m selfie_adapters train", "-m selfie_adapters train --resume a"]
    out = capsys.readouterr().out
    assert "[1] $ selfie train --resume a" in out
    assert "[2] other: done already" in out
    recorded = json.loads((tmp_path / "steps.json").read_text())["train it"]
    assert recorded["command"] == "selfie train"
    assert recorded["resumed"] is True
    assert recorded["machine"]
    assert recorded["processor_seconds"] == 3
    reproduce_tables.write_tables(tmp_path, "quick")
    assert "| train it | 0 (resumed) | 3 |" in (tmp_path / "tables.md").read_text()
    assert reproduce.main(["--out", str(tmp_path), "--only", "trian"]) == 1
    assert 'Did you mean "train it"?' in capsys.readouterr().err


def test_two_steps_run_at_once_and_their_time_by_the_clock_counts_once(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(reproduce.os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runner = reproduce.Runner(tmp_path)
    assert runner.at_once == 2
    assert runner.environment["OMP_NUM_THREADS"] == "3"
    # each waits for the other: one after the other they would wait for ever
    code = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
while not other.exists():
    time.sleep(0.01)
sum(range(3_000_000))
print("met")
"""
    script = tmp_path / "meet.py"
    script.write_text(code)
    steps = [
        Step(name, (str(tmp_path / name), str(tmp_path / other)), tmp_path / f"{name}.done")
        for name, other in (("a", "b"), ("b", "a"))
    ]
    steps = [replace(step, script=str(script)) for step in steps]
    assert [status for _step, status in runner.run(enumerate(steps, 1))] == [0, 0]
    assert {"[1] met", "[2] met"} <= set(capsys.readouterr().out.splitlines())
    text = json.loads((tmp_path / "steps.json").read_text())
    for step in text.values():
        step |= {"started": 1000, "seconds": 600}
    text["b"] |= {"started": 1300, "processor_seconds": 1800}
    text["a"] |= {"processor_seconds": 600}
    (tmp_path / "steps.json").write_text(json.dumps(text))
    tables = reproduce_tables.write_tables(tmp_path, "quick").read_text()
    assert "15 minutes by the clock, 40 of processor time; at most 2 steps at once." in tables
    assert tables.index("| a |") < tables.index("| b |")


def test_a_stopped_run_stops_its_steps(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'begun')!r}).touch()\ntime.sleep(600)\n"
    )
    code = f"""
import reproduce, reproduce_steps
from pathlib import Path
made, script = Path({str(tmp_path / "made")!r}), {str(tmp_path / "endless.py")!r}
step = reproduce_steps.Step("x", (), made, script=script)
reproduce.stages = lambda *_: [[step]]
import sys
sys.exit(reproduce.main(["--out", {str(tmp_path)!r}]))
"""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'src'}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    while process.poll() is None and not (tmp_path / "begun").exists():
        time.sleep(0.05)
    process.terminate()
    _out, err = process.communicate(timeout=60)  # waits for the step's end, which has the pipe
    assert process.returncode == 1
    assert err == b"stopped; run again to resume.\n"


def test_without_passages_detection_is_omitted_and_the_tables_state_how_to_make_them(
    tmp_path, monkeypatch, capsys
):
    ran = without_processes(monkeypatch, lambda command: "demo_sae_texts" in command[1])
    only = [one for name in ("passages", "sae_labels", "detection") for one in ("--only", name)]
    assert reproduce.main(["--quick", "--out", str(tmp_path), *only]) == 0
    command = f"scripts/demo_sae_texts.py --out {tmp_path / 'passages.jsonl'}"
    assert ran == [command]
    assert "omitted without it: detection, fuzzing" in capsys.readouterr().out
    text = (tmp_path / "tables.md").read_text()
    assert "Omitted: detection and fuzzing, because this failed (it needs npm" in text
    assert f"`python {command}`. Run it" in text

    (tmp_path / "passages.jsonl").touch()
    assert reproduce.main(["--quick", "--out", str(tmp_path), *only]) == 0
    assert [one.split()[2:4] for one in ran[1:]] == [["eval", "scoring"], ["eval", "detection"]]
    assert "Omitted" not in (tmp_path / "tables.md").read_text()


def test_a_step_that_fails_is_named_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    without_processes(monkeypatch, lambda command: 3 if command[-1] == "fails" else 0)
    steps = [Step(f"{name} it", (name,), tmp_path / name) for name in ("fails", "works")]
    monkeypatch.setattr(reproduce, "stages", lambda *_: [steps])
    assert reproduce.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "fails it ended with status 3; run again to resume.\n"
    assert [*json.loads((tmp_path / "steps.json").read_text())] == ["works it"]
    assert (tmp_path / "tables.md").exists()


def test_seeds_are_a_level_of_the_table(tmp_path):
    size = replace(reproduce_sizes.QUICK, seeds=(0, 1))
    place = size.places[0]
    for stage in reproduce_plan.stages(tmp_path, size, ["loss"]):
        for step in stage:
            if step.command[0] == "train":
                trained(tmp_path, step)

    def found(mean, low, high):
        return {"mean": mean, "low": low, "high": high, "n": 4}

    kinds = list(reproduce_kinds.KINDS)
    results = {
        "cells": [
            {
                "adapter": f"{kind}-{seed}",
                "dataset": "nouns",
                "vectors": 4,
                "examples": 4,
                "bias_share": None,
                "loss": {"trained": found(2.5 + seed, 2.0, 4.0), "zero": found(4 + seed, 3, 6)}
                | {"shuffled": found(5, 4, 6), "random": found(6, 5, 7)},
            }
            for kind in kinds
            for seed in (0, 1)
        ],
        "recipes": [
            {
                "recipe": kind,
                "dataset": "nouns",
                "adapters": [f"{kind}-0", f"{kind}-1"],
                "loss": found(3.0, 1.5, 4.5),
                "comparisons": [],
            }
            for kind in kinds
        ],
    }
    named = {
        "conditions": [
            {
                "condition": f"{kind}-{seed}{control}",
                "share": {"exact": found(share + 0.1 * seed, 0, 1)},
            }
            for kind in kinds
            for control, share in (("", 0.2), (": shuffled", 0.0))
            for seed in (0, 1)
        ]
        + [{"condition": "ridge probe", "share": {"exact": found(0.5, 0.4, 0.6)}}],
        "recipes": [
            {"recipe": kind, "adapters": [f"{kind}-0", f"{kind}-1"]}
            | {"share": {"exact": found(0.25, 0.1, 0.45)}, "comparisons": []}
            for kind in kinds
        ],
    }
    (tmp_path / f"naming_{place.name}").mkdir()
    (tmp_path / f"naming_{place.name}/results.json").write_text(json.dumps({"positions": [named]}))
    (tmp_path / f"loss_{place.name}").mkdir()
    (tmp_path / f"loss_{place.name}/results.json").write_text(json.dumps(results))
    text = reproduce_tables.write_tables(tmp_path, "quick").read_text()
    table = [line for line in text.splitlines() if line.startswith("| scale_only ")]
    (line,) = table
    assert "| 0.01 (0.01: 0.00, 0.03: 0.02) | 3.00 [1.50, 4.50] (2.50–3.50) |" in line
    assert "| 4.50 (4.00–5.00) | 5.00 [4.00, 6.00] | 6.00 [5.00, 7.00] | – | – |" in line
    assert line.endswith("| – | – | 25 [10, 45] (20–30) | 5 (0–10) |")
    assert "| ridge probe | – | – | – | – | – | – | – | 50 [40, 60] | – |" in text


@pytest.mark.slow
def test_little_of_everything_killed_and_resumed(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/reproduce.py"), "--quick", "--out"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, str(tmp_path / "out")], cwd=ROOT, env=env, start_new_session=True
    )
    first = tmp_path / "out/runs/block_12/scale_only-rate0.01-seed0/config.yaml"
    while process.poll() is None and not first.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    again = subprocess.run(
        [*command, str(tmp_path / "out")], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert "vectors of nouns: done already" in again.stdout
    text = (tmp_path / "out/tables.md").read_text()
    for words in ("names of test nouns by block", "Every kind at block 12", "positive control"):
        assert words in text
    assert "nan" not in text
    assert (tmp_path / "out/figure.png").stat().st_size > 10_000
