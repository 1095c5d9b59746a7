"""A GGUF file is converted once into the cache, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch

import loaded_process
from selfie_adapters.errors import ModelError, StorageError
from selfie_adapters.model import gguf, load_model
from selfie_adapters.model.library import quick_gguf
from selfie_adapters.tensor_files.gguf_file import read_gguf
from tiny_gguf import save_gguf

_IDS = torch.tensor([[256, 97, 98]])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def _load(path, dtype="float32"):
    return load_model(path, dtype=dtype, device_map="cpu")


def test_a_gguf_file_is_the_model_it_was_made_of_and_is_converted_once(tmp_path, cache, capfd):
    network = save_gguf(tmp_path / "T.GGUF")
    model = _load(tmp_path / "T.GGUF")
    torch.testing.assert_close(model.network(_IDS).logits, network(_IDS).logits)
    assert model.tokenizer.encode("ab<|eot_id|>", add_special_tokens=False)[-1] == 259
    assert model.name == str(tmp_path / "T.GGUF")
    (folder,) = cache.iterdir()
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert torch.equal(_load(tmp_path / "T.GGUF").network(_IDS).logits, model.network(_IDS).logits)
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", ""), "another library's bars or warnings"


def test_a_conversion_parses_the_file_once(tmp_path, monkeypatch):
    import gguf as package

    parsed = []

    class Counted(package.GGUFReader):
        def __init__(self, *arguments, **named):
            parsed.append(arguments)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(package, "GGUFReader", Counted)
    save_gguf(tmp_path / "m.gguf")
    _load(tmp_path / "m.gguf")
    assert len(parsed) == 1
    assert package.GGUFReader is Counted


def test_a_conversion_makes_the_table_of_tensor_names_once(tmp_path, monkeypatch):
    """transformers asks for it for each module of the network, and it names every block's."""
    import gguf as package

    made = []

    def counted(*arguments):
        made.append(arguments)
        return package.TensorNameMap(*arguments)

    monkeypatch.setattr(package, "get_tensor_name_map", counted)
    save_gguf(tmp_path / "m.gguf")
    _load(tmp_path / "m.gguf")
    assert len(made) == 1
    assert package.get_tensor_name_map is counted


def test_a_vocabulary_is_read_as_it_is_written(tmp_path):
    from transformers import modeling_gguf_pytorch_utils as reading

    save_gguf(tmp_path / "m.gguf")
    reader = read_gguf(tmp_path / "m.gguf")
    slowly = reading.load_gguf_checkpoint(str(tmp_path / "m.gguf"))
    parse = reading._gguf_parse_value
    with quick_gguf(tmp_path / "m.gguf", reader):
        assert reading._gguf_parse_value is not parse
        assert reading.load_gguf_checkpoint(str(tmp_path / "m.gguf")) == slowly
    assert reading._gguf_parse_value is parse
    assert "<|eot_id|>" in slowly["tokenizer"]["tokens"]


def test_a_header_is_parsed_once_for_all_that_ask_and_nobody_shares_it(tmp_path, monkeypatch):
    from transformers import modeling_gguf_pytorch_utils as reading

    asked, parse = [], reading.load_gguf_checkpoint

    def counted(path, *rest, **named):
        asked.append(named)
        return parse(path, *rest, **named)

    monkeypatch.setattr(reading, "load_gguf_checkpoint", counted)
    file, other = tmp_path / "m.gguf", tmp_path / "other.gguf"
    save_gguf(file)
    save_gguf(other, seed=1)
    with quick_gguf(file, read_gguf(file)):
        first = reading.load_gguf_checkpoint(str(file))
        first["config"]["hidden_size"] = 0
        assert reading.load_gguf_checkpoint(str(file))["config"]["hidden_size"] > 0
        assert len(asked) == 1
        reading.load_gguf_checkpoint(str(other))
        assert len(asked) == 2
    assert reading.load_gguf_checkpoint is counted


def test_transformers_own_reader_gets_a_plain_array_meanwhile(tmp_path):
    own = pytest.importorskip("transformers.integrations.gguf.reader")
    file = tmp_path / "m.gguf"
    save_gguf(file)
    slowly = own.read_gguf_metadata(str(file), ("tokenizer.ggml.tokens",))
    with quick_gguf(file, read_gguf(file)):
        assert type(own._mapped(str(file))) is np.ndarray
        assert own.read_gguf_metadata(str(file), ("tokenizer.ggml.tokens",)) == slowly
    assert type(own._mapped(str(file))) is np.memmap


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16", "F32"])
@pytest.mark.parametrize("shape", [(64,), (17, 64), (37, 4096), (3, 5, 64)])
def test_rows_are_dequantized_to_the_same_bits_in_larger_groups(kind, shape, tmp_path):
    import gguf as package

    numbers = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    stored = package.quantize(numbers, package.GGMLQuantizationType[kind])
    expected = package.dequantize(stored, package.GGMLQuantizationType[kind])
    with quick_gguf(tmp_path / "m.gguf", None):
        found = package.dequantize(stored, package.GGMLQuantizationType[kind])
    assert found.shape == shape
    assert found.tobytes() == expected.tobytes()


def test_another_dtype_and_a_changed_file_are_converted_again(tmp_path, cache):
    path = tmp_path / "m.gguf"
    save_gguf(path)
    first = _load(path)
    assert _load(path, "bfloat16").dtype == torch.bfloat16
    assert len(list(cache.iterdir())) == 2
    network = save_gguf(path, seed=1)
    second = _load(path)
    torch.testing.assert_close(second.network(_IDS).logits, network(_IDS).logits)
    assert not torch.equal(first.network(_IDS).logits, second.network(_IDS).logits)
    assert len(list(cache.iterdir())) == 3


def test_two_processes_convert_one_file_at_once(tmp_path, cache):
    save_gguf(tmp_path / "m.gguf")
    code = (
        "import sys; from selfie_adapters import load_model; "
        f"sys.stdout.write(str(load_model({str(tmp_path / 'm.gguf')!r}, 'float32', 'cpu').d_model))"
    )
    outs = [tmp_path / f"{number}.txt" for number in range(2)]
    both = [loaded_process.start(["-c", code], tmp_path, out) for out in outs]
    for process in both:
        process.join(300)
    assert [out.read_text() for out in outs] == ["32", "32"]
    (folder,) = cache.iterdir()
    assert folder.name.endswith("float32")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_an_error_that_leaves_nothing(error, tmp_path, cache, monkeypatch):
    save_gguf(tmp_path / "m.gguf")

    def full(*args, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.save_pretrained", full)
        with pytest.raises(StorageError, match=r"m\.gguf cannot be written.*Free space.*SELFIE_CA"):
            _load(tmp_path / "m.gguf")
    assert list(cache.iterdir()) == []
    assert _load(tmp_path / "m.gguf").d_model == 32


def test_a_conversion_that_fails_leaves_nothing(tmp_path, cache):
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(ModelError, match="cut off, or not a GGUF file"):
        _load(tmp_path / "m.gguf")
    assert list(cache.glob("*")) == []


def test_what_a_killed_conversion_left_is_no_model(tmp_path, cache):
    save_gguf(tmp_path / "m.gguf")
    path = tmp_path / "m.gguf"
    folder = gguf.dense_folder(path, torch.float32)
    (folder / "config.json").rename(folder.parent / "config.json")
    (folder.parent / "config.json").unlink()
    folder.rename(folder.parent / f".{folder.name}.killed")
    assert gguf.dense_folder(path, torch.float32) == folder
    assert gguf.is_complete(folder)


def test_a_gguf_file_whose_counts_go_beyond_its_end_is_refused_at_once(tmp_path):
    save_gguf(tmp_path / "m.gguf")
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    content[16:24] = (2**40).to_bytes(8, "little")  # how many key-value pairs follow
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf: cut off, or not a GGUF file"):
        _load(tmp_path / "m.gguf")
