"""Directions added to vectors: with labels that are known, and on the golden model."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

import selfie_adapters.evaluation.sensitivity.protocol as module
from naming_data import NAMES, SPLITS, write_naming_data
from selfie_adapters.adapters import load_adapter
from selfie_adapters.config.evaluation.sensitivity import SensitivitySettings
from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.sensitivity.protocol import NO_STYLE, SensitivityProtocol
from selfie_adapters.model import load_model

WEIGHTS = dict(zip(NAMES[:6], (1.0, 1.5, 2.3, 2.6, 3.1, 3.7), strict=True))
GRID = (0.25, 0.5, 1.2, 2.0, 4.0)


@pytest.fixture
def settings(golden_dir, tmp_path):
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    adapter.save(tmp_path / "a.safetensors")
    values = {
        "source": write_naming_data(tmp_path / "data"),
        "model": str(golden_dir / "model"),
        "dtype": "float32",
        "adapter": str(tmp_path / "a.safetensors"),
        "layer": 2,
        "pairs": 3,
        "strengths": (0.5, 2.0),
        "max_new_tokens": 3,
        "batch_size": 2,
    }
    return lambda **options: SensitivitySettings(**{**values, **options})


def write_axes(folder):
    """Concept number i is 3 times basis vector i: mixtures are read off a vector's values."""
    items = [
        Item(row, [name], split)
        for row, (name, split) in enumerate(zip(NAMES, SPLITS, strict=True))
    ]
    metadata = {
        "dataset_name": "axes",
        "filename": "axes.safetensors",
        "layer": 2,
        "source": "topics",
        "vector_type": "topic",
        "position": "name",
    }
    folder.mkdir(exist_ok=True)
    save_dataset(folder / "axes.json", [Section(metadata, 3 * torch.eye(12, 48), items)])
    return str(folder / "axes.json")


class ByHand:
    """Names the test concept whose value, times its weight, is the largest; "nothing" where an
    axis that belongs to no concept is larger than 1.5."""

    def __init__(self, no_concept="nothing"):
        self.adapter = SimpleNamespace(binding=SimpleNamespace(no_concept=no_concept))
        self.places = set()

    def label(self, vectors, sampling, places):
        assert len(vectors) == len(places)
        self.places |= set(places)
        values = vectors[:, :6] * torch.tensor([*WEIGHTS.values()])
        names = [NAMES[i] for i in values.argmax(dim=1).tolist()]
        nothing = (vectors[:, 40] > 1.5).tolist()
        return [
            [SimpleNamespace(text="nothing" if none else name)]
            for name, none in zip(names, nothing, strict=True)
        ]


@pytest.fixture
def by_hand(monkeypatch):
    labeller = ByHand()
    monkeypatch.setattr(SensitivityProtocol, "labeller", lambda _self: labeller)
    style = torch.zeros(48)
    style[40] = 1.0
    monkeypatch.setattr(module, "style_direction", lambda *_: style)
    random = torch.zeros(3, 48)
    random[:, 30] = 1.0
    monkeypatch.setattr(module, "random_directions", lambda *_: random)
    return labeller


def test_the_label_follows_where_the_weighted_concept_is_larger(by_hand, settings, tmp_path):
    source = write_axes(tmp_path / "axes")
    path = SensitivityProtocol.run(
        settings(source=source, strengths=(4, 0.5, 2, 0.25, 1.2, 2)), tmp_path / "out"
    )
    results = json.loads(path.read_text())
    assert by_hand.places == {(2, "name")}
    assert len({name for pair in results["pairs"] for name in pair}) == 6
    # e_a + λ e_b is called b from λ > w_a / w_b on
    expected = [
        next((one for one in GRID if one > WEIGHTS[a] / WEIGHTS[b]), None)
        for a, b in results["pairs"]
    ]
    follows, lost, by_style, by_noise = results["thresholds"]
    assert follows["by_pair"] == lost["by_pair"] == expected
    assert follows["median"] == sorted(one or 99 for one in expected)[1]
    assert by_style["by_pair"] == [2.0] * 3  # the only strengths above 1.5 are 2 and 4
    assert by_noise["by_pair"] == [None] * 3
    assert results["alone"]["both"] == {**results["alone"]["both"], "mean": 1.0, "n": 3}
    shares = {(row["direction"], row["strength"]): row for row in results["labels"]}
    assert [strength for kind, strength in shares if kind == "style"] == [*GRID]
    assert shares["style", 2.0]["nothing"]["mean"] == 1
    assert shares["style", 1.2]["kept"]["mean"] == 1
    assert shares["random", 4.0]["kept"]["mean"] == 1
    assert shares["concept", 1.2]["followed"]["mean"] == pytest.approx(
        sum(one is not None and one <= 1.2 for one in expected) / 3
    )
    assert {row["second"] for row in results["comparisons"]} == {"concept", "style"}
    texts = [one for one in SensitivityProtocol.report(results) if isinstance(one, str)]
    assert NO_STYLE not in texts


def test_without_a_chat_format_there_is_no_style(by_hand, settings, tmp_path, monkeypatch):
    given = settings(source=write_axes(tmp_path / "axes"))
    model = load_model(given.model, "float32", "cpu")
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    path = SensitivityProtocol.run(given, tmp_path / "out", model)
    results = json.loads(path.read_text())
    assert {row["direction"] for row in results["labels"]} == {"concept", "random"}
    assert NO_STYLE in list(SensitivityProtocol.report(results))


def test_an_adapter_without_a_label_for_nothing_has_no_share_of_it(by_hand, settings, tmp_path):
    by_hand.adapter.binding = None
    source = write_axes(tmp_path / "axes")
    path = SensitivityProtocol.run(settings(source=source), tmp_path / "out")
    results = json.loads(path.read_text())
    assert all(row["nothing"] is None for row in results["labels"])
    assert list(SensitivityProtocol.report(results))


def test_a_run_of_the_model_resumes_with_the_same_results(settings, tmp_path):
    path = SensitivityProtocol.run(settings(), tmp_path / "out")
    whole = path.read_bytes()
    rows = tmp_path / "out/rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    assert len(lines) == 2 * (2 + 3 * 2)  # two batches: two alone, three directions at two λ
    rows.write_text("".join(lines[:5]) + lines[5][:9])  # killed while the sixth was written
    path.unlink()
    SensitivityProtocol.run(settings(), tmp_path / "out")
    assert path.read_bytes() == whole
    assert rows.read_text() == "".join(lines)


def test_odd_settings_are_refused_in_one_line(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"no vectors of block 1 at position name; it has 0 at"):
        SensitivityProtocol.run(settings(layer=1), tmp_path / "out")
    with pytest.raises(DataError, match="6 concepts .* 4 pairs need 8"):
        SensitivityProtocol.run(settings(pairs=4), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"selfie eval sensitivity with .* needs --adapter FILE"):
        SensitivityProtocol.run(settings(adapter=None), tmp_path / "out")
    for strengths in ((), (0.0,), (-1.0,), (float("nan"),), (float("inf"),), (1e30,)):
        with pytest.raises(ValidationError, match="strengths"):
            settings(strengths=strengths)
