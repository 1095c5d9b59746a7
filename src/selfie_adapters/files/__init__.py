"""Files on disk: written atomically, read with errors that name file and position."""

from selfie_adapters.files.atomic import (
    UNWRITABLE,
    atomic_path,
    check_free,
    flush,
    os_error_behind,
    unwritable,
    write_json,
    write_text,
)
from selfie_adapters.files.existing import (
    cache_dir,
    existing_file,
    exists,
    inside,
    is_lfs_pointer,
    looks_local,
    nearest_paths,
    read_as,
    read_json,
    read_plain,
    sha256,
    user_path,
)

__all__ = [
    "UNWRITABLE",
    "atomic_path",
    "cache_dir",
    "check_free",
    "existing_file",
    "exists",
    "flush",
    "inside",
    "is_lfs_pointer",
    "looks_local",
    "nearest_paths",
    "os_error_behind",
    "read_as",
    "read_json",
    "read_plain",
    "sha256",
    "unwritable",
    "user_path",
    "write_json",
    "write_text",
]
