"""The long jobs as the kill harness runs them: small inputs, and what of their results counts."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kill_harness import KillJob
from tiny import GOLDEN, SMALL_SCORING

ROOT = Path(__file__).parents[1]
MODEL = ["--model", "model", "--dtype", "float32"]
_CLOCK = ("seconds", "examples_per_second")  # columns of metrics.jsonl


def _inputs(folder: Path) -> None:
    """The golden model, an adapter and the sample data, under short relative names."""
    shutil.copytree(GOLDEN / "model", folder / "model")
    adapters = GOLDEN / "adapters"
    shutil.copy(adapters / "scalar_affine_norm.safetensors", folder / "adapter.safetensors")
    shutil.copy(GOLDEN / "vectors.safetensors", folder / "vectors.safetensors")
    shutil.copytree(ROOT / "data/sample", folder / "sample")


def _files(*names: str) -> Callable[[Path], dict[str, Any]]:
    """Bytes of the files and folders `names`."""

    def results(folder: Path) -> dict[str, Any]:
        found = {}
        for name in names:
            for path in sorted([folder / name, *(folder / name).rglob("*")]):
                if path.is_file():
                    found[str(path.relative_to(folder))] = path.read_bytes()
        return found

    return results


def train() -> KillJob:
    def prepare(folder: Path) -> None:
        _inputs(folder)
        (folder / "run.yaml").write_text(
            yaml.safe_dump(
                {
                    "model": {"name": "model", "dtype": "float32", "device_map": "cpu"},
                    "data": {"labels_file": "sample/sample.json", "batch_size": 5},
                    "projection": {
                        "type": "scalar_affine_plus_low_rank",
                        "low_rank_rank": 3,
                        "init_scale": 2.0,
                        "init": "closed_form",
                    },
                    "training": {
                        "gradient_accumulation_steps": 2,
                        "num_epochs": 4,
                        "validation_every_n_steps": 12,
                        "checkpoint_every_n_steps": 3,
                        "checkpoint_dir": "runs",
                    },
                }
            )
        )

    def command(folder: Path) -> list[str]:
        if (folder / "runs/run/config.yaml").exists():
            return ["train", "--resume", "runs/run"]
        return ["train", "--config", "run.yaml"]

    def results(folder: Path) -> dict[str, Any]:
        from safetensors import safe_open

        run = folder / "runs/run"
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["event"] != "resume"]
        # A signal leaves a checkpoint at the step it came in, so the older ones differ.
        older = set(sorted((run / "checkpoints").iterdir())[:-1])
        files = [file for file in run.rglob("*") if file.suffix != ".svg" and file not in older]
        found: dict[str, Any] = {
            "metrics": [{k: v for k, v in row.items() if k not in _CLOCK} for row in rows],
            "config": (run / "config.yaml").read_bytes(),
            "files": sorted(file.name for file in files),
        }
        for file in (file for file in files if file.suffix == ".safetensors"):
            with safe_open(file, "np") as opened:
                names = opened.keys()
                found[file.name] = {name: opened.get_tensor(name).tobytes() for name in names}
        for which in ("best", "last", "final"):
            name = f"adapter_{which}.safetensors"
            found[f"{name}, bytes"] = (run / name).read_bytes()
        return found

    return KillJob(command, results, prepare)


def label() -> KillJob:
    command = ["label", "vectors.safetensors", "--adapter", "adapter.safetensors", *MODEL]
    command += ["--out", "labels", "--shard-size", "3", "--batch-size", "2", "--samples", "2"]
    command += ["--max-new-tokens", "12"]
    return KillJob(lambda _: command, _files("labels"), _inputs)


def read() -> KillJob:
    command = ["read", "an owl in the fog", "--adapter", "adapter.safetensors", *MODEL]
    command += ["--out", "out", "--batch-size", "4", "--max-new-tokens", "12"]
    return KillJob(lambda _: command, _files("out"), _inputs)


def export() -> KillJob:
    def prepare(folder: Path) -> None:
        _inputs(folder)
        label_job = label()
        shutil.copytree(folder, folder / "made")
        subprocess.run(
            [sys.executable, "-m", "selfie_adapters", *label_job.command(folder)],
            cwd=folder / "made",
            check=True,
            capture_output=True,
        )
        shutil.move(folder / "made/labels", folder / "labels")
        shutil.rmtree(folder / "made")

    command = ["export", "labels", "--format", "training", "--layer", "1", "--overwrite"]
    return KillJob(lambda _: command, _files("labels"), prepare)


def confidence() -> KillJob:
    def prepare(folder: Path) -> None:
        """Labels that are right for every second vector, because the model has written them."""
        import torch

        from selfie_adapters.adapters import load_adapter
        from selfie_adapters.dataset import Item, Section, save_dataset
        from selfie_adapters.labelling import Labeller
        from selfie_adapters.model import load_model

        _inputs(folder)
        vectors = torch.randn(40, 48, generator=torch.Generator().manual_seed(0))
        labeller = Labeller(
            load_model(folder / "model", "float32"), load_adapter(folder / "adapter.safetensors")
        )
        written = [found[0].text for found in labeller.label(vectors, max_new_tokens=3)]
        items = [Item(i, [written[i] if i % 2 else "wrong"], "val") for i in range(40)]
        metadata = {"dataset_name": "d", "filename": "d.safetensors", "layer": 1}
        metadata |= {"source": "s", "vector_type": "v"}
        save_dataset(folder / "held_out.json", [Section(metadata, vectors, items)])

    command = ["confidence", "fit", "held_out.json", "--adapter", "adapter.safetensors", *MODEL]
    command += [
        "--max-new-tokens",
        "3",
        "--controls",
        "20",
        "--control-rate",
        "1",
        "--precision",
        "0.3",  # 20 of 40 are right: the interval begins at 0.35
    ]
    return KillJob(lambda _: command, _files("adapter.confidence.json"), prepare)


def _evaluation(
    name: str, settings: Callable[[Path], dict[str, Any]], patch: Callable[[], None] = lambda: None
) -> KillJob:
    def prepare(folder: Path) -> None:
        _inputs(folder)
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings(folder)))

    command = ["eval", name, "--config", "settings.yaml", "--out", "out"]
    return KillJob(lambda _: command, _files("out"), prepare, patch)


_COMMON = {"model": "model", "dtype": "float32", "untrained_scales": [1.0]}


def eval_loss() -> KillJob:
    def settings(_folder: Path) -> dict[str, Any]:
        adapters = {"plain": "adapter.safetensors"}
        datasets = {"sample": "sample/sample.json"}
        return {**_COMMON, "adapters": adapters, "datasets": datasets, "batch_size": 4}

    return _evaluation("loss", settings)


def eval_retrieval() -> KillJob:
    def settings(folder: Path) -> dict[str, Any]:
        sections = json.loads((folder / "sample/sample.json").read_text())
        labels = {tuple(i["labels"]): None for s in sections for i in s["vectors"]}
        topics = [json.dumps({"name": texts[0], "labels": list(texts)}) for texts in labels]
        (folder / "topics.jsonl").write_text("\n".join(topics) + "\n")
        return {
            **_COMMON,
            "adapters": {"plain": "adapter.safetensors"},
            "vectors": "sample/sample.json",
            "topics": "topics.jsonl",
            "embedder": "letters",
            "max_new_tokens": 4,
            "limit": 8,
        }

    def patch() -> None:
        from letters import LettersEmbedder
        from selfie_adapters.evaluation.retrieval import embedding

        embedding.SentenceEmbedder = lambda _name, device=None: LettersEmbedder()

    return _evaluation("retrieval", settings, patch)


def eval_scoring() -> KillJob:
    def settings(folder: Path) -> dict[str, Any]:
        from tiny_sae import tiny_sae

        tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=48).save_model(folder / "sae")
        labels = {"3": "owls", "9": "tea", "17": "kings", "20": "rain"}
        (folder / "labels.json").write_text(json.dumps(labels))
        return {
            **_COMMON,
            "sae": "sae",
            "adapter": "adapter.safetensors",
            "labels_file": "labels.json",
            "scales": [1.0, 2.0],
            **SMALL_SCORING,
        }

    return _evaluation("scoring", settings)


def eval_bridge() -> KillJob:
    def settings(folder: Path) -> dict[str, Any]:
        question = {
            "e1.value": "Paris",
            "e2.value": "France",
            "e3.value": "euro",
            "e2.aliases": "(('France',),)",
            "r1(e1).prompt": "Its land is",
            "r2(r1(e1)).prompt": "A Paris coin is",
        }
        rows = [json.dumps({**question, "uid": f"q/{i}"}) for i in range(4)]
        (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
        return {
            **_COMMON,
            "questions": "questions.jsonl",
            "only_answered": False,
            "adapter": "adapter.safetensors",
            "layers": "1",
            "samples": 1,
            "max_new_tokens": 2,
            "random": False,
        }

    return _evaluation("bridge", settings)


def _old_or_new(labels_file: str) -> Callable[[Path], None]:
    """Vectors and labels are both of the old result or both of the new one, or refused."""

    def check(folder: Path) -> None:
        from selfie_adapters.dataset import load_dataset
        from selfie_adapters.errors import DataError

        try:
            dataset = load_dataset(folder / labels_file)
        except DataError as error:
            if "is not the vector file" not in str(error):
                raise
            return
        for section in dataset.sections:
            old_labels = section.items[0].labels[0].startswith("old")
            old_vectors = bool((section.vectors == -1).all())
            assert old_labels == old_vectors

    return check


def _old_result(labels_file: Path, filename: str) -> None:
    import torch

    from selfie_adapters.dataset import Item, Section, save_dataset

    metadata = {"dataset_name": "d", "filename": filename, "layer": 1}
    metadata |= {"source": "s", "vector_type": "v"}
    items = [Item(i, [f"old {i}"], "val" if i == 0 else "train") for i in range(20)]
    save_dataset(labels_file, [Section(metadata, torch.full((20, 48), -1.0), items)])


def prepare_sae() -> KillJob:
    def prepare(folder: Path) -> None:
        from small_saes import D_SAE, parts, sae_lens

        sae_lens(folder, "sae", parts(0), hook_name="blocks.1.hook_resid_post")
        (folder / "labels.json").write_text(
            json.dumps({str(i): f"label {i}" for i in range(D_SAE)})
        )
        _old_result(folder / "data/x_labels.json", "x.pt")

    command = ["prepare", "sae", "--sae-path", "sae", "--layer", "1", "--labels-json"]
    command += [
        "labels.json",
        "--output-dir",
        "data",
        "--output-name",
        "x",
        "--overwrite",
    ]
    results, check = _files("data"), _old_or_new("data/x_labels.json")
    return KillJob(lambda _: command, results, prepare, after_kill=check)


def prepare_topics() -> KillJob:
    def prepare(folder: Path) -> None:
        _inputs(folder)
        _old_result(folder / "data/t.json", "t_l1.safetensors")

    command = ["prepare", "topics", "sample/topics.jsonl", *MODEL, "--layers", "1", "--layers", "2"]
    command += ["--out", "data/t.json", "--overwrite"]
    results, check = _files("data"), _old_or_new("data/t.json")
    return KillJob(lambda _: command, results, prepare, after_kill=check)


def prepare_dataset() -> KillJob:
    titles = ["Owl", "Fog", "Bee", "Tea", "Rain", "Drum"]

    @contextmanager
    def server() -> Iterator[None]:
        # A process of its own: the harness may have no threads.
        receiving, sending = multiprocessing.Pipe(duplex=False)
        child = os.fork()
        if not child:
            _serve(sending)
        address["url"] = receiving.recv()
        try:
            yield
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)

    address: dict[str, str] = {}

    def prepare(folder: Path) -> None:
        (folder / "titles.txt").write_text("\n".join(titles) + "\n")
        writer = {"model": "w", "url": address["url"], "concurrency": 1}
        settings = {"titles": "titles.txt", "writer": writer, "max_tokens": 500}
        (folder / "c.yaml").write_text(json.dumps(settings))

    command = ["prepare", "dataset", "--config", "c.yaml", "--out", "w", "--yes"]
    names = [f"w/{name}" for name in ("topics.jsonl", "candidates.jsonl", "report.json")]
    return KillJob(lambda _: command, _files(*names), prepare, server=server)


def _serve(sending: Any) -> None:
    from chat_server import chat_server, writes_topics

    with chat_server(writes_topics) as stub:
        sending.send(stub.address)
        while True:
            time.sleep(60)


JOBS: dict[str, Callable[[], KillJob]] = {
    "train": train,
    "label": label,
    "read": read,
    "export": export,
    "confidence fit": confidence,
    "eval loss": eval_loss,
    "eval retrieval": eval_retrieval,
    "eval scoring": eval_scoring,
    "eval bridge": eval_bridge,
    "prepare sae": prepare_sae,
    "prepare topics": prepare_topics,
    "prepare dataset": prepare_dataset,
}
