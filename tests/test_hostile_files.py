"""Hostile files at the command line: one red line that names the file, or a result.

The readers have fuzz targets (`tests/fuzz/`); here the kinds of damage that public files were seen
with go through every command that reads them.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import create_adapter
from selfie_adapters.cli import main

VECTORS = torch.arange(1.0, 13.0).reshape(4, 3)


def answer(capsys, *arguments: object) -> str:
    """What the command answers: "" for success, else its one red line."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        shown = "".join(capsys.readouterr())
        return shown if ended.code in (1, 2) else f"exit code {ended.code}: {shown}"
    return ""


# Training files: each kind as (what is changed in the document, whether the text is).

_MANY = "9" * 5000


def metadata(**changed):
    return lambda document: document[0]["metadata"].update(changed)


def item(**changed):
    return lambda document: document[0]["vectors"][0].update(changed)


CHANGES = {
    "a name longer than the system allows": metadata(filename="v.pt" * 1000),
    "the home of nobody": metadata(filename="~nobody-of-this-name/v.pt"),
    "a NUL in the name": metadata(filename="v\0.pt"),
    "an empty name": metadata(filename=""),
    "a link to itself": metadata(filename="loop.pt"),
    "the folder itself": metadata(filename="."),
    "a number as name": metadata(filename=3),
    "a layer that is a flag": metadata(layer=True),
    "a split in a list": item(split=["train"]),
    "a split in an object": item(split={"train": 1}),
    "labels in one text": item(labels="owl"),
    "labels in labels": item(labels=[["owl"]]),
    "a label that is a number": item(labels=[7]),
    "an index that is a text": item(index="0"),
    "an index that is a flag": item(index=False),
    "an index out of range": item(index=10**12),
    "items that are none": lambda document: document[0].update(vectors=[None, 3, "owl"]),
    "items by name": lambda document: document[0].update(vectors={"0": "owl"}),
    "no metadata": lambda document: document[0].update(metadata=None),
    "a section in a section": lambda document: document.__setitem__(0, [document[0]]),
}
TEXTS = {
    "another encoding": lambda text: text.encode("utf-16"),
    "a byte that is no character": lambda text: text.encode().replace(b"owl", b"\xff"),
    "a number of 5,000 digits": lambda text: text.replace('"index": 0', f'"index": {_MANY}'),
    "deep nesting": lambda text: "[" * 100_000 + text,
    "cut off": lambda text: text[: len(text) // 2],
    "nothing": lambda text: "",
    "gzip that ends early": lambda text: b"\x1f\x8b\x08\x00\x00",
}
COMMANDS = {
    "check": ("data", "check", "{file}"),
    "inspect": ("data", "inspect", "{file}"),
    "merge": ("data", "merge", "{file}", "{good}", "--out", "{out}"),
    "convert": ("data", "convert", "{file}"),
    "label": ("label", "{file}", "--model", "{model}", "--out", "{out}.d"),
}
SPLIT = ("data", "split", "{file}", "--out", "{out}")  # vectors need not be there


def training_file(folder: Path, kind: str | None = None) -> Path:
    torch.save(VECTORS, folder / "v.pt")
    (folder / "loop.pt").unlink(missing_ok=True)
    (folder / "loop.pt").symlink_to("loop.pt")
    known = {"dataset_name": "d" if kind else "good", "filename": "v.pt", "layer": 0}
    known |= {"source": "s", "vector_type": "t"}
    items = [
        {"index": i, "labels": ["owl"], "split": "val" if i == 1 else "train"} for i in range(4)
    ]
    document = [{"metadata": known, "vectors": items}]
    if kind in CHANGES:
        CHANGES[kind](document)
    text = json.dumps(document)
    content = TEXTS[kind](text) if kind in TEXTS else text
    path = folder / ("x.json" if kind else "good.json")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [*CHANGES, *TEXTS])
def test_training_files(kind, command, tmp_path, capsys, golden_dir):
    names = {"file": training_file(tmp_path, kind), "good": training_file(tmp_path)}
    names["model"] = golden_dir / "model"
    before = sorted(path.name for path in tmp_path.iterdir())
    names["out"] = tmp_path / "out.json"
    shown = answer(capsys, *(part.format(**names) for part in COMMANDS[command]))
    assert shown, "the file was accepted"
    if command in ("merge", "convert", "label"):
        assert shown.startswith("error: ")
        assert "x.json" in shown
    assert [path.name for path in sorted(tmp_path.iterdir())] == before


@pytest.mark.parametrize("kind", [*CHANGES, *TEXTS])
def test_training_files_that_are_split(kind, tmp_path, capsys):
    names = {"file": training_file(tmp_path, kind), "out": tmp_path / "out.json"}
    shown = answer(capsys, *(part.format(**names) for part in SPLIT))
    assert ("x.json" in shown) != (tmp_path / "out.json").exists()


# Vector files, through the command that reads any.


class _Numbers:
    """A pickle of something else than tensors."""

    def __reduce__(self):
        return (range, (3,))


def _claims(path: Path) -> None:
    """One stored number that claims to be half a billion."""
    torch.save(torch.zeros(1).expand(100_000, 5000), path)


VECTOR_FILES = {
    "claims.pt": _claims,
    "sparse.pt": lambda path: torch.save(VECTORS.to_sparse(), path),
    "complex.pt": lambda path: torch.save(VECTORS + 1j, path),
    "integers.pt": lambda path: torch.save(VECTORS.long(), path),
    "no_rows.pt": lambda path: torch.save(torch.empty(0, 3), path),
    "no_columns.npy": lambda path: np.save(path, np.empty((3, 0), "f4")),
    "four_axes.npy": lambda path: np.save(path, np.ones((2, 2, 2, 2), "f4")),
    "objects.npy": lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    "texts.npy": lambda path: np.save(path, np.array(["owl"])),
    "texts.npz": lambda path: np.savez(path, a=np.array(["owl"])),
    "claims.npy": lambda path: path.write_bytes(
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9), }".ljust(117)
        + b"\n"
    ),
    "header.npy": lambda path: path.write_bytes(
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', ((((".ljust(117) + b"\n"
    ),
    "code.pt": lambda path: path.write_bytes(pickle.dumps(_Numbers())),
    "empty.pt": lambda path: path.write_bytes(b""),
    "empty.safetensors": lambda path: path.write_bytes(b""),
    "empty.npz": lambda path: path.write_bytes(b""),
    "claims.safetensors": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),
    "integers.safetensors": lambda path: save_file({"v": VECTORS.long()}, path),
    "other.json.npz": lambda path: path.write_text("{}"),
}


@pytest.mark.parametrize("command", ["convert", "label"])
@pytest.mark.parametrize("name", VECTOR_FILES)
def test_vector_files(name, command, tmp_path, capsys, golden_dir):
    path = tmp_path / name
    VECTOR_FILES[name](path)
    names = {"file": path, "model": golden_dir / "model", "out": tmp_path / "out"}
    shown = answer(capsys, *(part.format(**names) for part in COMMANDS[command]))
    assert shown.startswith("error: ")
    assert name in shown
    assert list(tmp_path.iterdir()) == [path]


# Adapter files, shown and used.

HEADERS = {
    "a width of no model": {"model_dim": "9" * 30},
    "a width that is no number": {"model_dim": "wide"},
    "a negative width": {"model_dim": "-4"},
    "nested too deeply": {"config_json": "[" * 100_000},
    "a number of 5,000 digits": {"config_json": f'{{"projection": {{"init_scale": {_MANY}}}}}'},
    "a list of nothing": {"config_json": "[]"},
    "a rank of no width": {
        "config_json": '{"projection": {"type": "low_rank_only", "low_rank_rank": 1e30}}'
    },
    "half a character": {"config_json": '{"projection": {"type": "\\ud83d"}}'},
}


@pytest.mark.parametrize("command", ["show", "show json", "read"])
@pytest.mark.parametrize("kind", HEADERS)
def test_adapter_headers(kind, command, tmp_path, capsys, golden_dir):
    header = {
        "config_json": '{"projection": {"type": "scalar_affine", "init_scale": 5.0}}',
        "model_dim": "4",
        "global_step": "7",
        "best_val_loss": "1.25",
    }
    adapter = create_adapter("scalar_affine", 4)
    path = tmp_path / "x.safetensors"
    save_file({k: v.clone() for k, v in adapter.state_dict().items()}, path, header | HEADERS[kind])
    commands = {
        "show": ("adapter", "show", path),
        "show json": ("adapter", "show", path, "--json"),
        "read": (
            "read",
            "owl",
            "--model",
            golden_dir / "model",
            "--adapter",
            path,
            "--out",
            tmp_path / "r",
        ),
    }
    shown = answer(capsys, *commands[command])
    assert shown.startswith("error: ")
    assert "x.safetensors" in shown
    assert not (tmp_path / "r").exists()
