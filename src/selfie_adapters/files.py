"""Files that appear atomically, files that exist, hashes."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selfie_adapters.errors import (
    ConfigError,
    DataError,
    MissingFileError,
    SelfieError,
    StorageError,
)
from selfie_adapters.json_text import parse_json

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = _FULL | {errno.EROFS, errno.EIO}
# The umask can only be read by setting it: one thread at a time.
_UMASK_LOCK = threading.Lock()
_PART = ".part"
_LFS_POINTER = b"version https://git-lfs"
_GZIP_FLOOR = 48 * 2**20
_GZIP_RATIO = 32  # label files unpack to 5 to 10 times their size


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` only if the block succeeds.

    The temporary file is on the same filesystem, so the rename is atomic; it is flushed to disk
    first, so a power cut leaves the old file or the new one, never half of one. A link stays a
    link: what it points to is replaced. What killed writers of `path` left behind is removed.
    Raises StorageError if the disk is full or the folder cannot be written to.
    """
    final = Path(path)
    if final.is_symlink():
        final = Path(os.path.realpath(final))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # A long name is cut: the temporary one may not be longer than the filesystem allows.
        prefix = f".{final.name[:40]}."
        _remove_abandoned(final.parent, prefix)
        handle, temporary = _locked_temporary(final.parent, prefix)
    except OSError as error:
        raise unwritable(final, error) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; give the result the permissions a plain open() would.
        with _UMASK_LOCK:
            umask = os.umask(0o077)
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(final)
    except OSError as error:
        own = str(temporary) in (error.filename, error.filename2)
        if error.errno not in UNWRITABLE and not own:
            raise  # of something else that the block does
        raise unwritable(final, error) from error
    except SelfieError:
        raise
    except Exception as error:
        # Libraries that write tensors and tables have their own words for a full disk.
        cause = os_error_behind(error)
        if cause is None or cause.errno not in UNWRITABLE:
            raise
        raise unwritable(final, cause) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def os_error_behind(error: BaseException | None) -> OSError | None:
    """The operating system's error that another error came of, or that its text names."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        if number := re.search(r"\bos error (\d+)\b", str(error)):  # as Rust libraries print it
            return OSError(int(number[1]), os.strerror(int(number[1])))
        error = error.__cause__ or error.__context__
    return None


def _locked_temporary(folder: Path, prefix: str) -> tuple[int, Path]:
    """A new file and a descriptor that keeps it locked: the lock says that its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=_PART, dir=folder)
        with suppress(OSError):  # a file system without locks: nothing is removed there either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if Path(name).exists():
            return handle, Path(name)
        os.close(handle)  # removed by another writer before it was locked


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Temporary files can be as large as vectors: a kill must not cost that space for good."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = [e.path for e in entries if e.name.startswith(prefix) and e.name.endswith(_PART)]
        for name in names:
            with suppress(OSError), Path(name).open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                Path(name).unlink()


def unwritable(path: str | Path, error: OSError) -> StorageError:
    """The error for a file that cannot be written, with advice that fits the cause."""
    advice = "Choose another path."
    if error.errno in _FULL:
        advice = "Free space, or choose another path."
    return StorageError(f"{path} cannot be written: {error.strerror or error}. {advice}")


def check_free(path: str | Path, overwrite: bool) -> None:
    """Raise ConfigError if `path` exists and must not be replaced."""
    if not overwrite and os.path.lexists(path):
        raise ConfigError(f"{path} exists. Give another path, or pass --overwrite to replace it.")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def user_path(path: str | Path) -> Path:
    """`path` with `~` expanded; as it is where `~name` names nobody."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def inside(folder: str | Path, name: str) -> Path:
    """The path of the file `name` in `folder`, for writing.

    Raises DataError where that is another place: an absolute name, one with "..", a link that
    leads out of the folder.
    """
    path = Path(folder) / name
    try:
        found = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # loops of links, a NUL
        raise DataError(f"{name!r:.120} is no name of a file in {folder} ({error}).") from error
    if found == Path(folder).resolve() or not found.is_relative_to(Path(folder).resolve()):
        raise DataError(
            f"{name!r:.120} leads out of the folder {folder}, where it is to be written. "
            "Give a plain name."
        )
    return path


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
    """What exists in place of `path`, as a sentence: the first part that is missing, and the names
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
        size = _unpacked_size(data, max(_GZIP_FLOOR, _GZIP_RATIO * len(data)))
        if size is None:
            raise DataError(
                f"{file}: the gzip data unpacks to more than {_GZIP_RATIO} times the file's size. "
                "Text does not; if it is meant, unpack it with gunzip first."
            )
        # One buffer of the right size: the result is never in memory twice.
        plain = zlib.decompress(data, wbits=31, bufsize=max(size, 1))
        return plain if len(plain) == size else gzip.decompress(data)  # several gzip members
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{file}: the gzip data ends early or is damaged ({error}). Fetch the file again."
        ) from error


def _unpacked_size(data: bytes, limit: int) -> int | None:
    """How many bytes gzip data unpacks to, without keeping them; None if more than `limit`."""
    size = 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        while chunk := stream.read(2**20):
            size += len(chunk)
            if size > limit:
                return None
    return size


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
    """Hex SHA-256 of a file's bytes."""
    with existing_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """This project's folder in the user's cache: $SELFIE_CACHE, else $XDG_CACHE_HOME/selfie."""
    if own := os.environ.get("SELFIE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "selfie"
