from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import loaded_process
from selfie_adapters.cli import main

ROOT = Path(__file__).parents[1]
SELFIE = Path(sys.executable).with_name("selfie")


def selfie(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SELFIE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=120,
        check=False,
    )


def test_help_is_quick():
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = selfie("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0
    assert min(took) < 0.6


def test_help_names_every_command():
    shown = selfie("--help").stdout
    for command in ("demo", "train", "label", "data", "prepare", "adapter", "prompt"):
        assert re.search(rf"^\W*{command}\b", shown, re.MULTILINE), command


@pytest.mark.parametrize(
    "code",
    [
        "import selfie_adapters.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass",
        "import selfie_adapters.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: pass",
        "import selfie_adapters.config, selfie_adapters.files",
    ],
)
def test_starting_loads_no_model_library(code):
    heavy = {"torch", "transformers", "numpy", "sae_lens", "matplotlib"}
    check = f"{code}\nimport sys; print('LOADED', sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["data", "inspect", "nowhere.json"], "nowhere.json: no such file"),
        (["adapter", "show", "nowhere.safetensors"], "nowhere.safetensors"),
        (["prompt", "show", "--model", "./nowhere"], "nowhere"),
        (["demo", "--out", str(ROOT / "Makefile"), "--quick"], "is a file"),
        (["label", "x.pt", "--model", "demo", "--out", "o"], "x.pt: no such"),
    ],
)
def test_errors_are_one_red_line(arguments, message, tmp_path):
    command = ["-m", "selfie_adapters", *arguments]
    done = loaded_process.run(command, tmp_path, FORCE_COLOR="1", COLUMNS="60")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("\x1b[31merror: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_command_or_option_is_answered_with_the_nearest():
    done = selfie("lable", "x")
    assert done.returncode != 0
    assert "label" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    done = selfie("train", "--confg", "x.yaml")
    assert done.returncode != 0
    assert "--config" in done.stdout + done.stderr


def test_stopping_by_hand_prints_one_line(monkeypatch, capfd):
    def stopped(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("selfie_adapters.cli.app", stopped)
    with pytest.raises(SystemExit) as ended:
        main(["data", "inspect", "x"])
    assert ended.value.code == 130
    line = "stopped by Ctrl-C. Finished work is kept. Run the same command again to resume.\n"
    assert capfd.readouterr() == ("", line)


def test_the_training_script_is_the_train_command(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "training/train.py", "--config", "nowhere.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "nowhere.yaml: no such file" in done.stderr
