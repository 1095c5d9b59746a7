"""One process at a time per results folder.

`folder_lock` keeps a file `.selfie.lock` in the folder while the block runs. The file is locked
with flock, which the kernel releases when the process ends, however it ends; it also states
the owner's host and process id, for the message and for file systems where flock does not
reach other hosts:

- the lock is held: the folder is in use, here or on another host;
- the lock is free and the owner was on this host (or on this very kernel, in another container):
  the owner is dead, and its lock is taken over;
- the lock is free and the owner was on another host: whether it lives cannot be known, because
  network file systems may keep flock to one host. Refused, with what to do.

Where a file system has no flock at all, the owner's process id decides on the same host.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from selfie_adapters.errors import ConfigError, FolderInUseError, StorageError
from selfie_adapters.files.existing import exists

LOCK_NAME = ".selfie.lock"
# What flock answers where a file system does not have it.
_NO_FLOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_ATTEMPTS = 100  # each lost to an owner that just released the lock


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock. boot: id of its running kernel, "" if there is none."""

    host: str
    pid: int
    boot: str
    since: str

    @classmethod
    def this_process(cls) -> Owner:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return cls(platform.node(), os.getpid(), _boot_id(), since)

    @classmethod
    def read(cls, file: int) -> Owner | None:
        """The owner that the open lock file states; None if it states none."""
        try:
            found = json.loads(os.pread(file, 4096, 0))
            return cls(str(found["host"]), int(found["pid"]), str(found["boot"]), found["since"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None  # its writer was killed before it wrote, or is about to write

    def on_this_host(self) -> bool:
        return self.host == platform.node() or (self.boot != "" and self.boot == _boot_id())


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold `folder` for this process while the block runs; the folder is made if it is missing.

    A folder that was made here and is still empty afterwards is removed again.
    Raises FolderInUseError while another process holds it, ConfigError if `folder` is a file,
    StorageError if it cannot be written to.
    """
    path = Path(folder)
    made = _make(path)
    file = None
    try:
        file = _acquire(path)
        yield
    finally:
        if file is not None:
            # Removed while it is still locked, so that nobody else's lock is removed.
            with suppress(OSError):
                (path / LOCK_NAME).unlink()
            os.close(file)
        for one in made:
            with suppress(OSError):  # it holds results now
                one.rmdir()


def _make(path: Path) -> list[Path]:
    """Make the folder and those above it; returns what was missing, innermost first."""
    if exists(path) and not path.is_dir():
        raise ConfigError(f"{path} is a file; a folder for the results is expected.")
    missing = [one for one in (path, *path.parents) if not exists(one)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be created: {error.strerror}.") from error
    return missing


def _acquire(folder: Path) -> int:
    """An open file descriptor that holds the folder's lock."""
    path = folder / LOCK_NAME
    for _ in range(_ATTEMPTS):
        try:
            # Writable, because a lock over NFS requires it.
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
        try:
            if _take(folder, file) and _is_still(path, file):
                _write_owner(path, file)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    raise FolderInUseError(
        f"{folder} is in use: its lock {path} is taken by other processes again and again."
    )


def _take(folder: Path, file: int) -> bool:
    """Whether the lock is ours now; False where it was released while it was read."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        flocked = True
    except BlockingIOError:
        owner = Owner.read(file)
        if owner is None:
            time.sleep(0.01)  # taken just now, or released just now
            return False
        raise FolderInUseError(_in_use(folder, owner, owner.on_this_host())) from None
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise StorageError(
                f"{folder / LOCK_NAME} cannot be locked: {error.strerror}."
            ) from error
        flocked = False
    owner = Owner.read(file)
    if owner is None:
        return True
    if not owner.on_this_host():
        raise FolderInUseError(_in_use(folder, owner, False))
    if not flocked and owner.pid != os.getpid() and _lives(owner.pid):
        raise FolderInUseError(_in_use(folder, owner, True))
    return True


def _is_still(path: Path, file: int) -> bool:
    """Whether the open file is the one in the folder: its owner removes it on release."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _write_owner(path: Path, file: int) -> None:
    content = json.dumps(asdict(Owner.this_process())).encode() + b"\n"
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, content, 0)
        os.fsync(file)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error


def _in_use(folder: Path, owner: Owner, here: bool) -> str:
    if here:
        return (
            f"{folder} is in use by process {owner.pid} on this machine, since {owner.since}. "
            "Wait until it ends, stop it, or give another folder."
        )
    return (
        f"{folder} is in use by process {owner.pid} on {owner.host}, since {owner.since}. If that "
        f"process no longer runs there, remove its lock and start again: "
        f"rm {shlex.quote(str(folder / LOCK_NAME))}"
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _boot_id() -> str:
    """The running kernel's id: equal in all containers of one machine, another after a reboot."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
