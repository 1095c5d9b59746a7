"""`pip install .` gives the same command, with the data that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src/selfie_adapters/adapters/shipped"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel):
    package = ROOT / "src/selfie_adapters"
    ours = {str(p.relative_to(ROOT / "src")) for p in package.rglob("*") if p.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == ours


@pytest.mark.slow
def test_a_wheel_of_the_source_distribution_holds_the_same(wheel, tmp_path):
    tools, out = tmp_path / "tools", tmp_path / "out"
    pip = [sys.executable, "-m", "pip"]
    install = [*pip, "install", "--quiet", "--target", tools, "hatchling>=1.27,<2"]
    subprocess.run(install, check=True, capture_output=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out]
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    (source,) = out.glob("*.tar.gz")
    again = [*pip, "wheel", "--quiet", "--no-deps", "-w", out, source]
    subprocess.run(again, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(wheel) as expected:
        names = set(expected.namelist())
        assert set(archive.namelist()) == names
        assert "selfie_adapters/config/shipped/evaluation/bridge.yaml" in names
        shipped = {f"selfie_adapters/adapters/shipped/{path.name}" for path in SHIPPED.iterdir()}
        assert "selfie_adapters/adapters/shipped/demo-block24.mean.safetensors" in shipped
        assert shipped <= names
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert "training/configs/smollm2_topics.yaml" in held


@pytest.mark.slow
def test_the_installed_command_works_outside_the_repository(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # its dependencies are those of this environment, which are installed already
    site = sysconfig.get_path("purelib")
    (pure,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (pure / "dependencies.pth").write_text(site + "\n")
    selfie = tmp_path / "env/bin/selfie"
    sample = ROOT / "data/sample/sample.json"
    for arguments in (["--version"], ["data", "inspect", sample]):
        done = subprocess.run([selfie, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [python, "-c", "import selfie_adapters; print(selfie_adapters.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path / "env") in where.stdout


def test_every_heavy_package_is_an_extra():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert extras == {"sae", "embed", "track", "report", "quant", "ray", "vllm", "dev", "docs"} | {
        "confidence",
        "export",
        "serve",
        "browser",
        "peft",
    }
    always = " ".join(project["dependencies"])
    for heavy in ("sae-lens", "sentence-transformers", "matplotlib", "jinja2", "ray", "wandb"):
        assert heavy not in always


def test_every_dependency_is_pinned_and_no_host_is_named():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    asked = list(project["dependencies"])
    for name, extra in project["optional-dependencies"].items():
        asked += [] if name == "vllm" else extra  # its own environment
    for text in asked:
        requirement = Requirement(text)
        if requirement.name != "selfie-adapters":
            pin = Version(pins[requirement.name.lower().replace("_", "-")])
            assert pin in requirement.specifier, text
    assert "://" not in "".join(lines)
