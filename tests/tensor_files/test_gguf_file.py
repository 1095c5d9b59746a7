"""The gguf package's reader, in less time, and at a damaged file's end."""

from __future__ import annotations

import pytest
from gguf import GGUFReader, GGUFWriter

from selfie_adapters.errors import DataError
from selfie_adapters.tensor_files.gguf_file import read_gguf

_STRINGS = ["a", "", "größer", "語" * 40]
_VALUES = {
    "strings": _STRINGS,
    "none": [],
    "whole": [3, -1, 2**31 - 1],
    "real": [0.5, -2.25],
    "flags": [True, False],
    "nested": [[1, 2], [3]],
    "one": "a name",
}


@pytest.fixture
def file(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    for key, value in _VALUES.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif value:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "m.gguf"


def test_every_field_is_as_the_packages_own_reader_has_it(file):
    found, expected = read_gguf(file).fields, GGUFReader(file).fields
    assert list(found) == list(expected)
    for name, field in expected.items():
        assert found[name].types == field.types, name
        assert found[name].offset == field.offset, name
        ours = [bytes(found[name].parts[i]) for i in found[name].data]
        assert ours == [bytes(field.parts[i]) for i in field.data], name
        if name != "nested":  # which the package flattens and cannot print
            assert found[name].contents() == field.contents(), name
    assert found["strings"].contents() == _STRINGS
    assert found["whole"].contents() == _VALUES["whole"]


def test_a_string_that_goes_beyond_the_end_is_refused(file):
    content = file.read_bytes()
    start = content.index("größer".encode()) - 8
    file.write_bytes(content[:start] + (2**40).to_bytes(8, "little") + content[start + 8 :])
    with pytest.raises(
        DataError, match=r"m\.gguf: cut off, or not a GGUF file \(the header states"
    ):
        read_gguf(file)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_that_was_cut_off_is_refused(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match="cut off"):
        read_gguf(file)
