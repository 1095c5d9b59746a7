"""Files that exist: found, read as they are stored, hashed."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError, MissingFileError, SelfieError, first_line
from selfie_adapters.files.json_text import parse_json

_LFS_POINTER = b"version https://git-lfs"
_GZIP_FLOOR = 48 * 2**20
_GZIP_RATIO = 32  # label files unpack to 5 to 10 times their size


def user_path(path: str | Path) -> Path:
    """`path` with `~` expanded; as it is where `~name` names nobody.

    Raises MissingFileError for what is no path at all, and for an empty name, which would mean the
    current folder.
    """
    if not isinstance(path, str | os.PathLike):
        raise MissingFileError(
            f"{path!r}: the path of a file or folder is expected, found {type(path).__name__}."
        )
    if path == "":
        raise MissingFileError(
            "an empty name is given where a file or folder is expected. A variable may be unset."
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def inside(folder: str | Path, name: str) -> Path:
    """The path of the file `name` in `folder`, for writing.

    Raises DataError where that is outside of it: an absolute name, one with "..", a link that
    is outside of the folder.
    """
    path = Path(folder) / name
    try:
        found = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # loops of links, a NUL
        raise DataError(f"{name!r:.120} is not a valid file name in {folder} ({error}).") from error
    if found == Path(folder).resolve() or not found.is_relative_to(Path(folder).resolve()):
        raise DataError(
            f"{name!r:.120} is outside of the folder {folder}. Give a file name without a path."
        )
    return path


def exists(path: Path) -> bool:
    """Whether there is anything at `path`; False for a name that no file can have, such as one that
    is too long: what makes or reads the file then reports it."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def existing_file(path: str | Path) -> Path:
    """`path` as a Path, if it is a file; otherwise MissingFileError with names like it nearby."""
    file = user_path(path)
    try:
        found = file.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise MissingFileError(_no_such_file(file, error)) from error
    if stat.S_ISREG(found.st_mode):
        return file
    if stat.S_ISDIR(found.st_mode):
        raise MissingFileError(f"{file} is a folder; a file is expected.")
    raise MissingFileError(
        f"{file} is a pipe, socket or device; a file is expected. Save its content to a file."
    )


def _no_such_file(file: Path, error: OSError | ValueError) -> str:
    name = str(file) if len(str(file)) <= 300 else f"{str(file)[:300]}…"
    if not isinstance(error, FileNotFoundError):
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{name!r:.300} cannot be read: {reason}. Check the path."
    return f"{name}: no such file. {nearest_paths(file)}"


def nearest_paths(path: Path) -> str:
    """What exists instead of `path`, as a sentence: the first part that is missing, and the names
    most like it."""
    import difflib

    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    names: list[str] = []
    with suppress(OSError):  # a folder that cannot be listed has no hints
        names = [entry.name for entry in missing.parent.iterdir()]
    near = difflib.get_close_matches(missing.name, names, n=3)
    hint = f"Nearby: {', '.join(near)}." if near else "Check the path."
    return hint if missing == path else f"The folder {missing} does not exist. {hint}"


def looks_local(name: str, suffixes: tuple[str, ...] = ()) -> bool:
    """Whether a name that does not exist here was meant as a path and not as a hub repository.

    True if it begins with "/", "." or "~", holds a backslash, has a first part that is a folder
    here, or ends in one of `suffixes` (lower case). Of an absent name without any of these nothing
    can be known.
    """
    if name.startswith((".", "~")) or "\\" in name or Path(name).is_absolute():
        return True
    first, slash, _ = name.partition("/")
    return bool(slash and Path(first).is_dir()) or name.lower().endswith(suffixes)


def read_json(path: str | Path, hint: str = "") -> Any:
    """The value in a JSON file, gzip or not; see `parse_json`.

    Raises MissingFileError, or DataError naming the file, line and column; `hint` is added to it.
    """
    return parse_json(read_plain(path), str(path), hint)


def read_plain(path: str | Path) -> bytes:
    """A file's bytes, gunzipped if it is gzip (known by its first bytes, not by its name).

    Raises MissingFileError, or DataError for a file that cannot be read, for gzip data that ends
    early or is damaged, and for gzip data that unpacks to far more than text does (over 48 MiB and
    over 32 times the file): such a file would only fill the memory.
    """
    file = existing_file(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        size = _unpacked_size(data, packed_limit(len(data)))
        if size is None:
            raise DataError(
                f"{file}: the gzip data unpacks to more than {_GZIP_RATIO} times the file's size. "
                "Text does not compress this well. If the file is intended, unpack it with "
                "gunzip first."
            )
        # One buffer of the right size: the result is never in memory twice.
        plain = zlib.decompress(data, wbits=31, bufsize=max(size, 1))
        return plain if len(plain) == size else gzip.decompress(data)  # several gzip members
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{file}: the gzip data ends early or is damaged ({error}). Fetch the file again."
        ) from error


def packed_limit(size: int) -> int:
    """Bytes that packed text or tables of `size` bytes may unpack to."""
    return max(_GZIP_FLOOR, _GZIP_RATIO * size)


def _unpacked_size(data: bytes, limit: int) -> int | None:
    """How many bytes gzip data unpacks to, without keeping them; None if more than `limit`."""
    size = 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        while chunk := stream.read(2**20):
            size += len(chunk)
            if size > limit:
                return None
    return size


@contextmanager
def read_as(file: str | Path, kind: str) -> Iterator[None]:
    """Raise DataError where what is read inside shows that `file` is not `kind`.

    Whatever is raised counts: libraries have errors of their own for most damage, and Python's for
    the rest.
    """
    try:
        yield
    except SelfieError:
        raise
    except Exception as error:
        raise DataError(
            f"{file}: cut off, or not {kind} ({first_line(error)}). Copy or download it again."
        ) from error


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is a Git LFS pointer: some 130 bytes of text in place of one not fetched.

    Raises DataError if the file cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of the bytes of a file, hexadecimal."""
    with existing_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """This project's folder in the user's cache: $SELFIE_CACHE, else $XDG_CACHE_HOME/selfie."""
    if own := os.environ.get("SELFIE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "selfie"
