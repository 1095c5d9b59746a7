"""Write a vector file block by block, so that vectors larger than memory can be written."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from selfie_adapters.tensor_files.numpy_file import payload_offset


def stream_rows(
    path: Path, shape: tuple[int, int], dtype: torch.dtype, blocks: Iterable[Tensor]
) -> None:
    """Write the rows of `blocks` as one tensor in a `.pt` that `torch.load` reads and maps.

    path: a temporary file that the caller gives its name. blocks: [n, d_model] each, together of
    `shape`; converted to `dtype`. Memory: one block. Raises ValueError if the blocks hold fewer or
    more rows.
    """
    with path.open("wb+") as file:
        with torch.serialization.skip_data():  # the archive with room for the numbers
            # Never touched, so it takes no memory.
            torch.save(torch.empty(shape, dtype=dtype), file)
        file.flush()
        with zipfile.ZipFile(file) as archive:
            (member,) = (m for m in archive.infolist() if m.filename.endswith("/data/0"))
            directory = archive.start_dir
        file.seek(payload_offset(file, member))
        rows = checksum = 0
        for block in blocks:
            data = block.to(dtype).contiguous().view(torch.uint8).numpy().data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
            rows += block.shape[0]
            if rows > shape[0]:
                break
        if rows != shape[0]:
            raise ValueError(f"{rows} rows came where {shape[0]} were expected")
        _write_checksum(file, member, checksum, directory)


def _write_checksum(file: BinaryIO, member: zipfile.ZipInfo, checksum: int, directory: int) -> None:
    """torch left the archive's checksum of the room at 0: once after the data, once in the
    archive's directory."""
    crc = struct.pack("<I", checksum)
    file.seek(payload_offset(file, member) + member.file_size)
    assert file.read(4) == b"PK\x07\x08"
    file.write(crc)
    place = directory
    while True:
        file.seek(place)
        entry = file.read(46)
        assert entry.startswith(b"PK\x01\x02")
        name, extra, comment = struct.unpack("<HHH", entry[28:34])
        if file.read(name) == member.filename.encode():
            file.seek(place + 16)
            file.write(crc)
            return
        place += 46 + name + extra + comment
