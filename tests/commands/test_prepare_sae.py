"""The data guide's commands as whole processes, against servers on loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from export_bucket import ExportServer, packed, proxied, row, source_record
from hub_server import hub_server
from selfie_adapters.dataset import load_dataset
from small_saes import CASES, D_SAE, as_linear, parts, write_case, write_json, write_torch

ROOT = Path(__file__).parents[2]
PUBLISHED = [folder / "shared/data/goodfire_8b_sae_labels.json.gz" for folder in ROOT.parents]
SHARED = next((file for file in PUBLISHED if file.is_file()), None)
GUIDE = "python data_prep/prepare_sae_training_data.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket():
    server = ExportServer()
    yield server
    server.stop()


@pytest.fixture
def desk(tmp_path, bucket):
    """A folder as a reader has it, a hub, a bucket, and a way to start commands in it."""
    shutil.copytree(ROOT / "data_prep", tmp_path / "data_prep")
    with hub_server(tmp_path / "hub") as (address, requests), proxied(bucket) as proxy:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "SELFIE_CACHE": str(tmp_path / "cache"),
            "SELFIE_LABELS_URL": proxy.url,
            "OMP_NUM_THREADS": "1",
        }
        yield Desk(tmp_path, environment, requests, proxy, bucket)


class Desk:
    def __init__(self, folder, environment, requests, proxy, bucket):
        self.folder, self.environment = folder, environment
        self.requests, self.proxy, self.bucket = requests, proxy, bucket

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str) -> tuple[int, str, str]:
        process = self.start(command)
        out, error = process.communicate(timeout=300)
        return process.returncode, out, error

    def hub(self, case: str) -> torch.Tensor:
        return write_case(self.folder / "hub", case)

    def labels(self, source_id: str, sae: tuple[str, str], latents: int = 60, batches: int = 3):
        model, source = source_id.split("/")
        files = {f"v1/{source_id}/source.jsonl": source_record(*sae)}
        for number in range(batches):
            rows = [
                row(i, f"meaning {i}", old=i % 2 == 0, modelId=model, layer=source)
                for i in range(number, latents, batches)
            ]
            files[f"v1/{source_id}/explanations/batch-{number}.jsonl.gz"] = packed(rows)
        self.bucket.fill(files)

    def section(self, name: str):
        (section,) = load_dataset(self.folder / "data" / f"{name}_labels.json").sections
        return section


TABLE = {
    "llama_scope r 8x": ("llama3.1-8b/19-llamascope-res-32k", "LlamaScope/l19r_32k"),
    "llama_scope r 32x": ("llama3.1-8b/19-llamascope-res-131k", "LlamaScope/l19r_131k"),
    "llama_scope m 8x": ("llama3.1-8b/19-llamascope-mlp-32k", "LlamaScope/l19m_32k"),
    "llama_scope m 32x": ("llama3.1-8b/19-llamascope-mlp-131k", "LlamaScope/l19m_131k"),
    "llama_scope a 8x": ("llama3.1-8b/19-llamascope-att-32k", "LlamaScope/l19a_32k"),
    "llama_scope a 32x": ("llama3.1-8b/19-llamascope-att-131k", "LlamaScope/l19a_131k"),
    "goodfire 70B": ("llama3.3-70b-it/50-resid-post-gf", "Goodfire/Llama-SAE-l50"),
    "goodfire 8B": ("llama3.1-8b-it/19-resid-post-gf", "Goodfire/Llama-SAE-l19"),
}


@pytest.mark.parametrize("case", TABLE)
def test_each_release_of_the_guides_table(case, desk):
    source_id, name = TABLE[case]
    expected = desk.hub(case)
    release, sae_id = CASES[case][:2]
    desk.labels(source_id, (release, sae_id))
    command = f"{GUIDE} --release {release} --sae-id {sae_id} --output-dir data --output-name mine"
    code, out, error = desk.run(command)
    assert code == 0, error
    section = desk.section("mine")
    assert torch.equal(section.vectors, expected)
    assert section.name == name
    assert {item.index: item.labels for item in section.items} == {
        i: [f"meaning {i}"] for i in range(60)
    }
    assert sum(item.split == "val" for item in section.items) == 6
    assert "60 labels of 60 latents: 54 train, 6 val" in out
    # the weights came once, through the hub's redirect
    downloads = [path for method, path, _ in desk.requests if method == "GET"]
    assert sum(path.startswith("stored/") for path in downloads) == 1


def test_the_guide_llama_scope(desk):
    desk.hub("llama_scope r 8x")
    desk.labels("llama3.1-8b/19-llamascope-res-32k", ("llama_scope_lxr_8x", "l19r_8x"))
    command = (
        f"{GUIDE} --release llama_scope_lxr_8x --sae-id l19r_8x "
        "--output-dir data --output-name llamascope_l19r"
    )
    code, _, error = desk.run(command)
    assert code == 0, error
    # `selfie prepare sae` is the same; with everything in the caches it needs no hub
    first = {file.name: file.read_bytes() for file in (desk.folder / "data").iterdir()}
    desk.environment["HF_HUB_OFFLINE"] = "1"
    code, _, error = desk.run(
        command.replace(GUIDE, f"{sys.executable} -m selfie_adapters prepare sae") + " --overwrite"
    )
    assert code == 0, error
    assert {file.name: file.read_bytes() for file in (desk.folder / "data").iterdir()} == first


def test_the_guide_goodfire_70b(desk):
    desk.hub("goodfire 70B")
    desk.labels("llama3.3-70b-it/50-resid-post-gf", ("goodfire-llama-3.3-70b-instruct", "layer_50"))
    code, _, error = desk.run(
        f"{GUIDE} --release goodfire-llama-3.3-70b-instruct --sae-id layer_50 "
        "--output-dir data --output-name goodfire_70b_l50"
    )
    assert code == 0, error
    assert desk.section("goodfire_70b_l50").layer == 50


def test_the_guide_goodfire_8b_with_its_label_file(desk):
    items = [
        {"index": i, "labels": [f"published {i}"], "split": "val" if i % 7 == 0 else "train"}
        for i in range(0, D_SAE, 2)
    ]
    metadata = {
        "dataset_name": "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        "layer": 19,
        "source": "Goodfire",
        "vector_type": "sae_decoder",
    }
    labels = gzip.compress(json.dumps([{"metadata": metadata, "vectors": items}]).encode())
    (desk.folder / "data").mkdir()
    (desk.folder / "data/goodfire_8b_sae_labels.json.gz").write_bytes(labels)
    expected = desk.hub("goodfire 8B")
    code, out, error = desk.run(
        f"{GUIDE} --release goodfire-llama-3.1-8b-instruct --sae-id layer_19 "
        "--labels-json data/goodfire_8b_sae_labels.json.gz "
        "--output-dir data --output-name goodfire_8b_l19"
    )
    assert code == 0, error
    section = desk.section("goodfire_8b_l19")
    assert torch.equal(section.vectors, expected)
    kept = {item.index: (item.labels, item.split) for item in section.items}
    assert kept == {item["index"]: (item["labels"], item["split"]) for item in items}
    assert "48 labels of 48 latents: 41 train, 7 val" in out
    assert not desk.proxy.seen  # labels were given: the bucket was not asked


@pytest.mark.skipif(SHARED is None, reason="the published label file is not here")
def test_the_published_label_file_as_it_is(desk):
    w = parts(1, d_sae=65536, d_in=4)
    repo = desk.folder / "hub/Goodfire/Llama-3.1-8B-Instruct-SAE-l19"
    tensors = as_linear(w, "encoder_linear", "decoder_linear")
    write_torch(repo / "Llama-3.1-8B-Instruct-SAE-l19.pth", tensors)
    code, out, error = desk.run(
        f"{GUIDE} --release goodfire-llama-3.1-8b-instruct --sae-id layer_19 "
        f"--labels-json {SHARED} --output-dir data --output-name goodfire_8b_l19"
    )
    assert code == 0, error
    assert "45418 labels of 45418 latents: 40877 train, 4541 val" in out
    published = json.loads(gzip.decompress(SHARED.read_bytes()))[0]["vectors"]
    items = desk.section("goodfire_8b_l19").items
    assert {i.index: (i.labels, i.split) for i in items} == {
        i["index"]: (i["labels"], i["split"]) for i in published
    }


def test_killed_ten_times_and_the_same_bytes(desk):
    """Bigger files and a slow bucket, so that kills fall into every stage."""
    w = parts(4, d_sae=8192, d_in=512)
    repo = desk.folder / "hub/Goodfire/Llama-3.3-70B-Instruct-SAE-l50"
    tensors = as_linear(w, "encoder_linear", "decoder_linear")
    write_torch(repo / "Llama-3.3-70B-Instruct-SAE-l50.pt", tensors)
    sae = ("goodfire-llama-3.3-70b-instruct", "layer_50")
    desk.labels("llama3.3-70b-it/50-resid-post-gf", sae, latents=400, batches=40)
    desk.proxy.latency = 0.05
    command = f"{GUIDE} --release {sae[0]} --sae-id {sae[1]} --output-dir data --output-name gf"
    started = time.perf_counter()
    code, _, error = desk.run(command)
    took = time.perf_counter() - started
    assert code == 0, error
    data = desk.folder / "data"
    names = ("gf.pt", "gf_labels.json")
    expected = {name: (data / name).read_bytes() for name in names}
    assert torch.equal(load_dataset(data / "gf_labels.json").sections[0].vectors, w["W_dec"])
    draw = random.Random(1)
    killed = 0
    for _ in range(40):
        for folder in ("hf", "cache", "data"):  # from nothing each time: every stage is in reach
            shutil.rmtree(desk.folder / folder, ignore_errors=True)
        process = desk.start(command)
        started = time.perf_counter()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(took * draw.uniform(0.3, 1.0))  # the first third is Python starting
            took = time.perf_counter() - started  # it was quicker than the ones before
            process.communicate()
            continue
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        for name in names:
            assert not (data / name).exists() or (data / name).read_bytes() == expected[name]
        # A run that was stopped leaves no file that would be in its own way.
        whole = (data / names[1]).exists()
        code, _, error = desk.run(f"{command} --overwrite" if whole else command)
        assert code == 0, error
        assert {name: (data / name).read_bytes() for name in names} == expected
        assert sorted(file.name for file in data.iterdir()) == sorted(names)  # nothing left over
        killed += 1
        if killed == 10:
            return
    pytest.fail(f"only {killed} of 40 runs were killed in time")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(desk, small_disk):
    w = parts(4, d_sae=2048, d_in=256)  # 2 MB of rows
    write_torch(desk.folder / "sae.pt", w)
    write_json(desk.folder / "labels.json", {"1": "a", "2": "b"})
    command = (
        f"{GUIDE} --sae-path sae.pt --layer 3 --labels-json labels.json "
        f"--output-dir {small_disk} --output-name x"
    )
    code, out, error = desk.run(command)
    assert code == 1
    assert error.startswith("error: ")
    assert "No space left on device" in error
    assert "x.pt" in error
    assert "Traceback" not in out + error
    assert not list(small_disk.iterdir())


def test_a_full_disk_under_the_hubs_cache(desk, small_disk):
    w = parts(4, d_sae=2048, d_in=256)
    repo = desk.folder / "hub/Goodfire/Llama-3.3-70B-Instruct-SAE-l50"
    tensors = as_linear(w, "encoder_linear", "decoder_linear")
    write_torch(repo / "Llama-3.3-70B-Instruct-SAE-l50.pt", tensors)
    write_json(desk.folder / "labels.json", {"1": "a", "2": "b"})
    desk.environment["HF_HOME"] = str(small_disk)
    code, _, error = desk.run(
        f"{GUIDE} --release goodfire-llama-3.3-70b-instruct --sae-id layer_50 "
        "--labels-json labels.json --output-dir data --output-name x"
    )
    assert code == 1
    assert "No space left on device" in error
    assert "Traceback" not in error
    assert not (desk.folder / "data").exists()


def test_no_network(desk):
    write_json(desk.folder / "labels.json", {"1": "a", "2": "b"})
    desk.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    command = (
        f"{GUIDE} --release llama_scope_lxr_8x --sae-id l19r_8x "
        "--labels-json labels.json --output-dir data --output-name x"
    )
    code, out, error = desk.run(command)
    assert code == 1
    assert "error: fnlp/Llama3_1-8B-Base-LXR-8x/" in error
    assert "HF_ENDPOINT" in error
    assert "Traceback" not in out + error
    assert not (desk.folder / "data").exists()
    desk.environment["HF_HUB_OFFLINE"] = "1"
    _, _, error = desk.run(command)
    assert "HF_HUB_OFFLINE is set" in error


def test_a_file_that_the_hub_has_not(desk):
    (desk.folder / "hub/fnlp/Llama3_1-8B-Base-LXR-8x").mkdir(parents=True)
    write_json(desk.folder / "labels.json", {"1": "a", "2": "b"})
    command = (
        f"{GUIDE} --release llama_scope_lxr_8x --sae-id l19r_8x "
        "--labels-json labels.json --output-dir data --output-name x"
    )
    code, _, error = desk.run(command)
    assert code == 1
    assert "no such file" in error
    shutil.rmtree(desk.folder / "hub/fnlp")
    code, _, error = desk.run(command)
    assert code == 1
    assert "Check the name" in error


def test_prepared_files_train(desk, golden_dir):
    """Rows of the golden Llama's width; the run folder is what training leaves."""
    desk.hub("llama_scope r 8x")
    desk.labels("llama3.1-8b/19-llamascope-res-32k", ("llama_scope_lxr_8x", "l19r_8x"))
    prepare = (
        f"{GUIDE} --release llama_scope_lxr_8x --sae-id l19r_8x --dtype bfloat16 "
        "--output-dir data --output-name scope"
    )
    selfie = f"{sys.executable} -m selfie_adapters"
    config = ROOT / "training/configs/scalar_affine_8b_goodfire.yaml"
    train = (
        f"{selfie} train --config {config} --set data.labels_file=data/scope_labels.json "
        f"--set model.name={golden_dir / 'model'} --set model.dtype=float32 "
        "--set data.batch_size=8 --set training.max_steps=2"
    )
    for command in (prepare, f"{selfie} data check data/scope_labels.json", train):
        code, _, error = desk.run(command)
        assert code == 0, error
    (run,) = (desk.folder / "runs").iterdir()
    assert (run / "adapter_final.safetensors").is_file()
