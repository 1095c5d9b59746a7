"""Every command of the README and the guides is run, or, where it would call this test, checked."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from selfie_adapters.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "AGENTS.md",
    ROOT / "CHANGELOG.md",
    ROOT / "data/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def commands(page: Path) -> list[str]:
    """Command lines of the page's shell blocks, comments removed, one a step of `&&`."""
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [step for block in blocks for step in steps_of(block)]


def steps_of(block: str) -> list[str]:
    steps = [
        step.strip() for line in block.splitlines() for step in line.split(" #")[0].split("&&")
    ]
    return [step for step in steps if step]


def stated(page: Path) -> list[tuple[list[str], list[str]]]:
    """Shell blocks that a block of output follows: their commands, and its lines."""
    text = page.read_text(encoding="utf-8")
    block = r"```(?:bash|sh)\n((?:(?!```).)*)```\n+```text\n(.*?)```"
    pairs = re.findall(block, text, re.DOTALL)
    return [(steps_of(block), output.splitlines()) for block, output in pairs]


def plain(output: str) -> str:
    """Output without line breaks and widths; numbers with decimals are one number."""
    return " ".join(re.sub(r"-?\d+\.\d+", "0.0", output).split())


def id_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


EVERY = [(page, step) for page in PAGES for step in commands(page)]


def test_the_pages_have_commands():
    pages = {id_of(page) for page, _ in EVERY}
    assert {"README.md", "data/README.md", "docs/reproduce.md", "docs/benchmarks.md"} <= pages


@pytest.mark.parametrize(("page", "step"), EVERY, ids=lambda value: str(value)[-50:])
def test_each_command_is_one_that_exists(page, step):
    program, *arguments = shlex.split(step)
    if program == "selfie":
        app.parse_args(arguments, exit_on_error=False, print_error=False)
    elif program == "torchrun":
        ours = arguments[arguments.index("selfie_adapters") + 1 :]
        app.parse_args(ours, exit_on_error=False, print_error=False)
    elif program == "make":
        assert set(arguments) <= make_targets()
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = re.findall(r"\[(.+?)\]", step)
        assert all(e in project["optional-dependencies"] for x in extras for e in x.split(","))
    else:
        assert program in ("apt-get", "dpkg-deb"), f"{page}: how is {program} to be tested?"


def make_targets() -> set[str]:
    rules = re.findall(r"^(\w[\w -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_commands_in_running_text_exist(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= make_targets()
    for words in re.findall(r"`selfie ((?:[a-z]+ ?)+)", text):
        place = app
        for word in words.split():
            if place.default_command is not None:  # the rest are its arguments
                break
            assert word in place, f"selfie {words}"
            place = place[word]


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_what_a_page_states_is_the_output_of_its_commands(page):
    for steps, _ in stated(page):
        assert set(steps) <= set(commands(page))


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def runner(folder: Path, programs: Path):
    """What runs one command of a page in `folder`, with the commands in `programs` on the path."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)

    def run(step: str) -> str:
        done = subprocess.run(
            shlex.split(step),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{step}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def workspace(tmp_path):
    """A copy of what a reader has, with the commands of this environment on the path."""
    for name in ("data", "training", "data_prep", "evaluation", "benchmarks", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return runner(tmp_path, Path(sys.executable).parent)


@pytest.fixture
def clone(tmp_path):
    """A fresh clone, as this tree is, and an environment in which nothing of it is installed.

    pip finds what the package requires in the packages of this environment.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / "clone" / name, follow_symlinks=False)
    venv.create(tmp_path / "env", with_pip=True)
    (pure,) = (tmp_path / "env").glob("lib/python*/site-packages")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    (pure / "dependencies.pth").write_text(site + "\n")
    return runner(tmp_path / "clone", tmp_path / "env/bin")


# `make` would run the tests in themselves (test_demo and CI run what they stand for); pip is run
# for the README below; the concept list's Debian package is in test_make_concepts; what needs a hub
# or a bucket runs against ones on loopback in test_prepare_sae and test_prepare; the demo SAE's
# texts come from npm, and what follows from it takes half an hour (test_train_demo_sae,
# test_eval_scoring); the web app does not end by itself (tests/serving,
# tests/commands/test_serve.py); benchmarks take minutes to an hour and have tests of their own.
ELSEWHERE = (
    "make",
    "pip",
    "apt-get",
    "dpkg-deb",
    "python scripts/make_concepts.py",
    "python scripts/train_demo_sae.py",
    "selfie train --config training/configs/smollm2_sae.yaml",
    "selfie prepare topics concepts --model demo --layers 8",
    "selfie data merge demo_sae/names.json",
    "selfie eval detection",
    "selfie train --config training/configs/smollm2_reading.yaml",
    'selfie read "Tell me about owls." --model demo --adapter runs/smollm2_reading',
    "selfie eval scoring",
    "python data_prep/prepare_sae_training_data.py",
    "selfie prepare sae",
    "selfie data fetch",
    "python benchmarks/",
    "selfie serve",
    "selfie label llama_scope_lxr_8x:l19r_8x",
    "selfie export llamascope",
    "selfie prepare topics keenanpepper/",
    "selfie eval loss --config evaluation/configs/loss_wikipedia_8b.yaml",
)


# An 8B model, its SAEs and adapters, all from the hub: only the commands' options are checked.
NOT_RUN = (ROOT / "docs/llama.md",)


README = ROOT / "README.md"


@pytest.mark.slow
@pytest.mark.parametrize("page", [one for one in PAGES if one not in (README, *NOT_RUN)], ids=id_of)
def test_the_commands_of_a_page_run_in_order_and_print_what_it_states(page, workspace):
    run_page(page, workspace, ELSEWHERE)


@pytest.mark.slow
def test_the_readme_is_followed_from_a_fresh_clone_on(clone, tmp_path):
    run_page(README, clone, [one for one in ELSEWHERE if one != "pip"])
    where = clone('python -c "import selfie_adapters; print(selfie_adapters.__file__)"')
    assert str(tmp_path / "env") in where
    (block,) = re.findall(r"```python\n(.+?)```", README.read_text(), re.DOTALL)
    vectors = "from selfie_adapters import load_dataset\nd = load_dataset('topics/topics.json')\n"
    vectors += "vectors = d.sections[0].vectors[:3]\n"
    (tmp_path / "clone/readme.py").write_text(vectors + block)
    assert len(clone("python readme.py").splitlines()) == 3


def run_page(page: Path, run: Callable[[str], str], elsewhere: Sequence[str]) -> None:
    """Run its commands in order; each block of output that it states is among what they print."""
    printed = {step: run(step) for step in commands(page) if not step.startswith(tuple(elsewhere))}
    for steps, lines in stated(page):
        output = plain("".join(printed[step] for step in steps))
        for line in lines:
            assert plain(line) in output, f"{steps}: {line}"


def written_by(page: Path) -> set[str]:
    """Paths that the commands of a page write, as they name them or by default."""
    found = set()
    for step in commands(page):
        words = shlex.split(step)
        options = dict(pairwise(words))
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        out = options.get("--out") or options.get("--output-dir")
        if words[:2] == ["selfie", "label"] and not {"--text", "--concept"} & {*words}:
            found.add(out or "labels")
        elif words[:2] == ["selfie", "train"] and "--config" in words:
            found.add(
                settings.get("training.checkpoint_dir", f"runs/{Path(options['--config']).stem}")
            )
        elif "torchrun" in words[:1]:
            found.add(settings["training.checkpoint_dir"])
        elif out is not None:
            found.add(out)
    return found


def test_no_page_writes_into_what_the_readme_made():
    readme, *others = PAGES
    own = written_by(readme)
    assert {"labels", "topics/topics.json", "runs/smollm2_topics", "my_labels"} <= own
    folders = {path.rpartition("/")[0] or path for path in own}
    for page in others:
        for path in written_by(page):
            parts = Path(path).parts
            starts = {"/".join(parts[: i + 1]) for i in range(len(parts))}
            assert not starts & (own | folders - {"runs"}), f"{id_of(page)} writes {path}"
