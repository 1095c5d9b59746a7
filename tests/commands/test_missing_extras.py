"""With no extra installed, every command that needs one states it before any work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "evaluation" / "configs"

# Command, the extra, what else it needs to get that far.
CASES = {
    "demo --out demo": "report",
    "serve --model demo --adapter none.safetensors": "serve",
    "confidence fit none.json --adapter none.safetensors --model demo": "confidence",
    "export none --format parquet": "export",
    "label none.json --model demo --out labels --engine ray": "ray",
    "label none.json --model demo --out labels --engine vllm": "vllm",
    "label llama_scope_lxr_8x:l19r_8x --model demo --out labels": "sae",
    "prepare sae --release llama_scope_lxr_8x --sae-id l19r_8x --output-name sae": "sae",
    "prepare list gemma-scope": "sae",
    f"eval retrieval --config {CONFIGS / 'retrieval.yaml'} --out results": "embed",
    f"eval taboo --config {CONFIGS / 'taboo.yaml'} --out results": "embed",
    f"eval scoring --config {CONFIGS / 'scoring.yaml'} --out results": "sae",
}

# Runs in a process of its own, in which the extras' modules cannot be found from the start. jinja2
# can: torch itself brings it.
DRIVER = """
import contextlib, io, json, os, sys
sys.path[:0] = json.loads(os.environ["PATHS"])
from selfie_adapters.extras import EXTRAS
blocked = {module for modules in EXTRAS.values() for module in modules} - {"jinja2"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
from selfie_adapters import cli
found = {}
for case in json.load(sys.stdin):
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
        try:
            cli.main(case.split())
        except SystemExit as end:
            code = end.code
    found[case] = (code, errors.getvalue(), sorted(os.listdir()))
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    cache = tmp_path_factory.mktemp("cache")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(list(CASES)),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(cache),
            "PATHS": json.dumps([str(ROOT / "src"), *sys.path]),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_the_missing_extra_is_stated_before_any_work(case, outcomes):
    code, said, files = outcomes[case]
    assert code == 1, said
    assert f"pip install 'selfie-adapters[{CASES[case]}]'" in said
    assert said.strip().count("\n") == 0  # one line, no traceback
    assert files == []
