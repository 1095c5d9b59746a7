"""Dense copies of GGUF files: each file is dequantized once, into the user's cache.

Converting takes minutes for a large model, reading the dense folder takes seconds.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfie_adapters.errors import DataError, ModelError, StorageError
from selfie_adapters.files import UNWRITABLE, cache_dir, os_error_behind
from selfie_adapters.model.library import dequantize_options, quick_gguf
from selfie_adapters.model.weights import check_loaded
from selfie_adapters.tensor_files.gguf_file import read_gguf

log = logging.getLogger(__name__)

_FULL = {*UNWRITABLE, errno.EACCES}


def dense_folder(gguf: Path, dtype: torch.dtype) -> Path:
    """Folder with the file's model in `dtype` and its tokenizer, made on first use.

    A file counts as the same while its path, size and time of change stay what they are.
    Raises StorageError if the cache cannot hold it; ModelError for weights that do not fit.
    """
    file = gguf.resolve()
    facts = file.stat()
    key = hashlib.sha256(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}".encode()).hexdigest()[:16]
    dtype_name = str(dtype).removeprefix("torch.")
    folder = cache_dir() / "models" / f"{gguf.stem}-{key}-{dtype_name}"
    if not is_complete(folder):
        dequantize(gguf, folder, dtype)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether a conversion is there; it appears atomically."""
    return (folder / "config.json").is_file()


def dequantize(gguf: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write the dense model and tokenizer of a GGUF file into `folder`, atomically.

    Several processes may do so at once: the first one to finish wins. Raises StorageError, leaving
    nothing behind, if the disk is full or the cache is read-only; ModelError
    for a damaged file.
    """
    try:
        # transformers' reader would loop over the counts of a damaged file
        reader = read_gguf(gguf)
    except DataError as error:
        raise ModelError(str(error)) from error
    log.info("dequantizing %s once into %s", gguf.name, folder)
    building: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        load: Any = AutoModelForCausalLM.from_pretrained  # its type knows no loading info
        with quick_gguf(gguf, reader):
            network, info = load(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=dtype,
                output_loading_info=True,
                **dequantize_options(),
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        check_loaded(str(gguf), network, info)
        network.save_pretrained(building)
        tokenizer.save_pretrained(building)
        try:
            building.replace(folder)
        except OSError:
            if not is_complete(folder):  # else another process was first
                raise
    # transformers and safetensors report a full disk with errors of their own.
    except Exception as error:
        cause = os_error_behind(error)
        if cause is not None and cause.errno in _FULL:
            raise StorageError(
                f"{folder}: the dense copy of {gguf.name} cannot be written ({cause.strerror}). It "
                f"takes {torch.finfo(dtype).bits // 8} bytes per weight. Free space, or set "
                "SELFIE_CACHE to a folder with room."
            ) from error
        raise
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
