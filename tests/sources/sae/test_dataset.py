from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from export_bucket import packed, row, source_record
from selfie_adapters.config.prepare import SaeSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError, MissingExtraError
from selfie_adapters.sources.sae import files as sae_files
from selfie_adapters.sources.sae.dataset import prepare_sae
from small_saes import (
    CASES,
    D_SAE,
    parts,
    sae_lens,
    write_case,
    write_json,
    write_safetensors,
    write_torch,
)

GOODFIRE = ("goodfire-llama-3.1-8b-instruct", "layer_19")


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepare a case from a hub in a folder; labels "label 0" to "label 95" unless given."""
    monkeypatch.setattr(sae_files, "fetch_hub_file", lambda r, f, _: tmp_path / "hub" / r / f)
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "cache"))

    def prepare(case: str | None = "goodfire 8B", overwrite: bool = True, **options):
        named = {}
        if case is not None:
            expected = write_case(tmp_path / "hub", case)
            named = dict(zip(("release", "sae_id"), CASES[case][:2], strict=True))
        else:
            expected = None
        sources = ("labels_json", "labels_jsonl", "labels_url")
        if not any(name in options for name in sources):
            labels = tmp_path / "labels.json"
            write_json(labels, {str(i): f"label {i}" for i in range(D_SAE)})
            options["labels_json"] = labels
        places = {"output_name": "x", "output_dir": tmp_path / "out"}
        settings = SaeSettings(**{**places, **named, **options})
        return prepare_sae(settings, overwrite=overwrite), expected

    return prepare


def section_of(prepared):
    (section,) = load_dataset(prepared.labels_file).sections
    return section


def training_file(path, items, **metadata):
    known = {"dataset_name": "d", "layer": 19, "source": "Goodfire", "vector_type": "sae_decoder"}
    vectors = [{"index": i, "labels": labels, "split": split} for i, labels, split in items]
    write_json(path, [{"metadata": {**known, **metadata}, "vectors": vectors}])
    return path


def test_both_files_and_their_metadata(prepare, tmp_path):
    prepared, expected = prepare("goodfire 8B")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x.pt", "x_labels.json"]
    section = section_of(prepared)
    assert torch.equal(section.vectors, expected)
    wanted = {
        "dataset_name": "Goodfire/Llama-SAE-l19",
        "filename": "x.pt",
        "layer": 19,
        "source": "Goodfire",
        "vector_type": "sae_decoder",
        "num_features": 96,
        "model_dim": 48,
        "saelens_release": "goodfire-llama-3.1-8b-instruct",
        "saelens_sae_id": "layer_19",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "hook_name": "blocks.19.hook_resid_post",
        "labels_from": "labels.json",
    }
    assert wanted.items() <= section.metadata.items()
    assert torch.equal(torch.load(prepared.vectors_file, weights_only=True), expected)


def test_interrupted_over_an_older_result_the_old_labels_are_refused(prepare, monkeypatch):
    prepared, _ = prepare("goodfire 8B")

    def killed(source, target, real=Path.replace):
        if Path(target).name == prepared.labels_file.name:
            raise KeyboardInterrupt
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare("goodfire 70B")
    with pytest.raises(DataError, match="x.pt is not the vector file that these labels"):
        load_dataset(prepared.labels_file)
    again, expected = prepare("goodfire 70B")
    assert torch.equal(section_of(again).vectors, expected)


@pytest.mark.parametrize(
    ("case", "name", "source"),
    [
        ("goodfire 70B", "Goodfire/Llama-SAE-l50", "Goodfire"),
        ("llama_scope r 8x", "LlamaScope/l19r_32k", "LlamaScope"),
        ("llama_scope m 32x", "LlamaScope/l19m_131k", "LlamaScope"),
        ("llama_scope a 8x", "LlamaScope/l19a_32k", "LlamaScope"),
        (
            "gemma_2",
            "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
            "google/gemma-scope-2b-pt-res",
        ),
    ],
)
def test_dataset_names(case, name, source, prepare):
    metadata = section_of(prepare(case)[0]).metadata
    assert (metadata["dataset_name"], metadata["source"]) == (name, source)


def test_the_golden_split(prepare, golden, tmp_path):
    case = golden["splits"][0]  # ten labelled rows and the published code's choice
    path = tmp_path / "few.json"
    write_json(path, {str(i): "x" for i in case["indices"]})
    items = section_of(prepare(labels_json=path)[0]).items
    held_out = [item.index for item in items if item.split == "val"]
    assert held_out == [item.index for item in items][-len(held_out) :] == case["val"]


def test_splits_and_labels_of_a_label_file_stay(prepare, tmp_path):
    items = [(5, ["five", "5"], "val"), (1, ["one"], "train"), (2, ["two"], "val")]
    path = training_file(tmp_path / "published.json", items)
    kept = section_of(prepare(labels_json=path)[0]).items
    assert [(i.index, i.labels, i.split) for i in kept] == [
        (1, ["one"], "train"),
        (2, ["two"], "val"),
        (5, ["five", "5"], "val"),
    ]
    anew = section_of(prepare(labels_json=path, force_new_split=True, seed=0)[0]).items
    assert sorted(i.split for i in anew) == ["train", "train", "val"]
    tested = training_file(tmp_path / "tested.json", [*items, (0, ["zero"], "test")])
    for force, splits in ((False, ["train", "val", "val"]), (True, ["train", "train", "val"])):
        prepared, _ = prepare(labels_json=tested, force_new_split=force, seed=0)
        kept = section_of(prepared).items
        assert [i.split for i in kept] == [*splits, "test"]
        assert kept[-1].index == 0
        assert prepared.report[-1].endswith(
            f"{splits.count('train')} train, {splits.count('val')} val, 1 test"
        )
    one = section_of(prepare(labels_json=path, one_label=True)[0]).items
    assert {i.index: i.labels for i in one} == {1: ["one"], 2: ["two"], 5: ["five"]}


def test_seed_and_fraction_choose_the_held_out_rows(prepare):
    def held_out(**options):
        items = section_of(prepare(**options)[0]).items
        return {item.index for item in items if item.split == "val"}

    assert len(held_out()) == 9
    assert len(held_out(val_fraction=0.5)) == 48
    assert held_out(seed=1) != held_out(seed=2)


def test_unusable_rows_are_reported_and_lose_their_labels(tmp_path, prepare):
    whole, _ = prepare()
    splits = {item.index: item.split for item in section_of(whole).items}
    w = parts(len("goodfire 8B"))
    w["W_dec"][3] = 0.0
    w["W_dec"][8, 5] = float("nan")
    w["W_dec"][9, 0] = float("inf")
    write_torch(
        tmp_path / "bad.pth",
        {"decoder_linear.weight": w["W_dec"].T.contiguous(), "decoder_linear.bias": w["b_dec"]},
    )
    prepared, _ = prepare(sae_path=tmp_path / "bad.pth")
    kept = section_of(prepared)
    assert kept.vectors.shape == (96, 48)
    # the other rows keep their places and their splits
    expected = {i: split for i, split in splits.items() if i not in (3, 8, 9)}
    assert {item.index: item.split for item in kept.items} == expected
    norms = w["W_dec"][[i for i in range(96) if i not in (3, 8, 9)]].norm(dim=1)
    report = "\n".join(prepared.report)
    assert "1 rows hold all zeros: 3; excluded from the labels" in report
    assert "2 rows hold NaN or infinity: 8, 9; excluded from the labels" in report
    spread = f"from {norms.min():.4g} to {norms.max():.4g}"
    assert f"norms of 93 rows: mean {norms.mean():.4g}, {spread}" in report


def test_labels_out_of_range_are_reported(prepare, tmp_path):
    path = tmp_path / "labels.json"
    write_json(path, {"1": "a", "2": "b", "96": "beyond"})
    prepared, _ = prepare(labels_json=path)
    assert [item.index for item in section_of(prepared).items] == [1, 2]
    assert any("1 latents out of range (the SAE has 96): 96" in line for line in prepared.report)
    write_json(path, {"96": "beyond", "97": "beyond"})
    with pytest.raises(DataError, match="no label is left"):
        prepare(labels_json=path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_the_numbers(dtype, prepare):
    whole = prepare()[0].vectors_file.stat().st_size
    prepared, expected = prepare(dtype=dtype)
    wanted = expected.to(getattr(torch, dtype))
    assert torch.equal(section_of(prepared).vectors, wanted)
    assert prepared.vectors_file.stat().st_size < whole / 2 + 2000


def test_what_a_number_format_cannot_hold_is_left_out(prepare, tmp_path):
    w = parts(2)
    w["W_dec"][7, 7] = 1e6  # above float16's 65,504
    write_safetensors(tmp_path / "big.safetensors", w)
    for dtype, kept in (("float16", 95), ("float32", 96)):
        path = tmp_path / "big.safetensors"
        items = section_of(prepare(None, dtype=dtype, sae_path=path, layer=3)[0]).items
        assert len(items) == kept
        assert (7 in {item.index for item in items}) == (kept == 96)


def export(folder, source_id, record):
    place = folder / "v1" / source_id
    (place / "explanations").mkdir(parents=True)
    (place / "source.jsonl").write_bytes(record)
    model, source = source_id.split("/")
    rows = [row(i, f"meaning {i}", modelId=model, layer=source) for i in range(10)]
    (place / "explanations/batch-0.jsonl.gz").write_bytes(packed(rows))


def test_labels_from_the_source_that_the_registry_names(prepare, tmp_path):
    record = source_record("llama_scope_lxa_8x", "l19a_8x")
    export(tmp_path / "copy", "llama3.1-8b/19-llamascope-att-32k", record)
    prepared, _ = prepare("llama_scope a 8x", labels_url=str(tmp_path / "copy"))
    section = section_of(prepared)
    assert {i.index: i.labels for i in section.items} == {i: [f"meaning {i}"] for i in range(10)}
    assert section.metadata["neuronpedia_id"] == "llama3.1-8b/19-llamascope-att-32k"


def test_a_source_of_another_sae_stops(prepare, tmp_path):
    export(tmp_path / "copy", "llama3.1-8b/19-llamascope-att-32k", source_record())
    with pytest.raises(DataError, match="l19r_8x"):
        prepare("llama_scope a 8x", labels_url=str(tmp_path / "copy"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("hook", "layer"), [(None, 4), ("blocks.5.hook_resid_pre", 4)])
def test_a_source_that_the_registry_does_not_know(hook, layer, prepare, tmp_path):
    export(tmp_path / "copy", "my-model/4-mine", json.dumps({"hookName": hook}).encode())
    w = parts(2)
    write_safetensors(tmp_path / "sae.safetensors", w)
    prepared, _ = prepare(
        None,
        sae_path=tmp_path / "sae.safetensors",
        neuronpedia_id="my-model/4-mine",
        labels_url=str(tmp_path / "copy"),
    )
    section = section_of(prepared)
    assert (section.name, section.layer) == ("x", layer)
    assert section.metadata.get("hook_name") == hook
    assert torch.equal(section.vectors, w["W_dec"])
    assert "saelens_release" not in section.metadata


def test_a_layer_that_nothing_names_must_be_given(prepare, tmp_path):
    write_safetensors(tmp_path / "sae.safetensors", parts(2))
    with pytest.raises(ConfigError, match="--layer"):
        prepare(None, sae_path=tmp_path / "sae.safetensors")
    assert not (tmp_path / "out").exists()
    assert section_of(prepare(None, sae_path=tmp_path / "sae.safetensors", layer=6)[0]).layer == 6
    sae_lens(tmp_path, "folder", parts(2))
    assert section_of(prepare(None, sae_path=tmp_path / "folder")[0]).layer == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no SAE"),
        ({"release": "goodfire-llama-3.1-8b-instruct"}, "belong together"),
        ({"sae_path": "x.pt", "labels_json": "a", "labels_jsonl": "b"}, "give one of them"),
        ({"sae_path": "x.pt"}, "no labels"),
        (
            {"release": GOODFIRE[0], "sae_id": GOODFIRE[1], "sae_path": ".", "labels_json": "a"},
            "the weights' file",
        ),
        ({"release": "qwen-scope-3-1.7b-base-w32k-l50", "sae_id": "layer1"}, "--neuronpedia-id"),
    ],
)
def test_options_that_do_not_go_together(options, message, tmp_path):
    write_json(tmp_path / "a", {"1": "x"})
    paths = {k: Path(v) for k, v in options.items() if k in ("sae_path", "labels_jsonl")}
    if "labels_json" in options:
        paths["labels_json"] = tmp_path / "a"
    with pytest.raises(ConfigError, match=message):
        prepare_sae(
            SaeSettings(output_name="x", output_dir=tmp_path / "out", **{**options, **paths})
        )
    assert not (tmp_path / "out").exists()


def test_without_labels_goodfire_8b_names_the_published_file(tmp_path):
    (tmp_path / "v1").mkdir()
    with pytest.raises(DataError, match="goodfire-8b-labels, then --labels-json"):
        prepare_sae(
            SaeSettings(
                output_name="x",
                output_dir=tmp_path / "out",
                release=GOODFIRE[0],
                sae_id=GOODFIRE[1],
                labels_url=str(tmp_path),
            )
        )


def test_a_layout_that_only_saelens_knows_is_read_by_it(prepare, monkeypatch):
    w_dec = parts(9)["W_dec"]
    monkeypatch.delitem(sae_files.LAYOUTS, "temporal")
    monkeypatch.setattr(sae_files, "load_w_dec", lambda entry, device: w_dec)
    prepared, _ = prepare("temporal")
    assert torch.equal(section_of(prepared).vectors, w_dec)
    assert section_of(prepared).layer == 12
    assert any("temporal was read by SAELens" in line for line in prepared.report)


def test_without_saelens_the_message_names_the_extra(prepare, monkeypatch):
    from selfie_adapters import extras
    from selfie_adapters.sources.sae import registry as saelens

    saelens.registry.cache_clear()
    monkeypatch.setattr(extras, "is_installed", lambda _module: False)
    with pytest.raises(MissingExtraError, match=r"selfie-adapters\[sae\]"):
        prepare()


def test_the_same_request_gives_the_same_bytes(prepare):
    first, _ = prepare()
    before = [file.read_bytes() for file in (first.vectors_file, first.labels_file)]
    again, _ = prepare()
    assert [file.read_bytes() for file in (again.vectors_file, again.labels_file)] == before
    (section,) = json.loads(before[1])
    assert len(section["vectors"]) == 96


@pytest.mark.parametrize("taken", ["x.pt", "x_labels.json"])
def test_existing_files_are_not_replaced_unless_asked(taken, prepare, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / taken).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{taken} exists.*--overwrite"):
        prepare(overwrite=False)
    assert [file.read_text() for file in (tmp_path / "out").iterdir()] == ["mine"]
    prepared, expected = prepare(overwrite=True)
    assert torch.equal(section_of(prepared).vectors, expected)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "sub/x", "", " "])
def test_files_are_only_written_into_the_folder(name, prepare, tmp_path):
    with pytest.raises(ConfigError, match="a plain name is expected"):
        prepare(output_name=name, output_dir=tmp_path / "a" / "out")
    assert not (tmp_path / "a").exists()


def test_a_link_does_not_lead_the_vectors_out_of_the_folder(prepare, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.pt").write_text("mine")
    (tmp_path / "out" / "x.pt").symlink_to(tmp_path / "mine.pt")
    with pytest.raises(DataError, match="is outside of the folder"):
        prepare()
    assert (tmp_path / "mine.pt").read_text() == "mine"


@pytest.mark.parametrize("option", ["labels_json", "labels_jsonl"])
@pytest.mark.parametrize("name", ["l.jsonl", "l.jsonl.gz", "l.json"])
def test_either_option_reads_either_form(prepare, tmp_path, option, name):
    rows = [{"index": i, "description": f"label {i}"} for i in range(D_SAE)]
    if name == "l.json":
        write_json(tmp_path / name, {str(i): f"label {i}" for i in range(D_SAE)})
    else:
        content = packed(rows)
        (tmp_path / name).write_bytes(content if name.endswith(".gz") else gzip.decompress(content))
    prepared, _ = prepare(**{option: tmp_path / name})
    found = {item.index: list(item.labels) for item in section_of(prepared).items}
    assert found == {i: [f"label {i}"] for i in range(D_SAE)}
