"""Files that appear atomically."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selfie_adapters.errors import ConfigError, SelfieError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = _FULL | {errno.EROFS, errno.EIO}
# The umask can only be read by setting it: one thread at a time.
_UMASK_LOCK = threading.Lock()
_PART = ".part"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it onto `path` only if the block succeeds.

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
        flush(temporary)
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
        # Libraries that write tensors and tables have their own errors for a full disk.
        cause = os_error_behind(error)
        if cause is None or cause.errno not in UNWRITABLE:
            raise
        raise unwritable(final, cause) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def flush(file: Path) -> None:
    """Wait until what was written to `file` is on the disk."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they exist. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


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
    """A new file and a descriptor that keeps it locked: the lock shows that its writer is alive."""
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
