"""One process per folder: by a kernel lock where it reaches, by the owner's record elsewhere."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from selfie_adapters.errors import ConfigError, FolderInUseError, StorageError
from selfie_adapters.files import locking
from selfie_adapters.files.locking import LOCK_NAME, folder_lock

HOLD = """
import sys
from selfie_adapters.files.locking import folder_lock

with folder_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A real process that holds the lock of tmp_path/run until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def state_owner(folder, **changes):
    folder.mkdir(exist_ok=True)
    owner = {"host": "elsewhere", "pid": 4321, "boot": "other", "since": "2026-01-02 03:04:05"}
    (folder / LOCK_NAME).write_text(json.dumps(owner | changes))


def test_a_second_process_is_refused_until_the_first_ends(tmp_path, holder):
    run = tmp_path / "run"
    with pytest.raises(FolderInUseError, match=f"in use by process {holder.pid} on this machine"):
        folder_lock(run).__enter__()
    holder.communicate("")
    with folder_lock(run):
        assert json.loads((run / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not run.exists()  # nothing was written, so no folder is claimed


def test_the_lock_of_a_killed_owner_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = tmp_path / "run" / LOCK_NAME
    assert json.loads(lock.read_text())["pid"] == holder.pid
    with folder_lock(tmp_path / "run"):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path):
    with folder_lock(tmp_path), pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"):
        folder_lock(tmp_path).__enter__()
    with folder_lock(tmp_path):
        pass


def test_a_lock_of_another_host_is_refused_with_what_to_do(tmp_path):
    state_owner(tmp_path / "run")
    with pytest.raises(FolderInUseError, match="process 4321 on elsewhere") as raised:
        folder_lock(tmp_path / "run").__enter__()
    command = str(raised.value).partition("start again: ")[2]
    subprocess.run(command, shell=True, check=True)
    with folder_lock(tmp_path / "run"):
        pass


def test_another_container_on_the_same_kernel_is_decided_by_the_kernels_lock(tmp_path):
    boot = locking._boot_id()
    if not boot:
        pytest.skip("this system has no boot id")
    state_owner(tmp_path / "run", boot=boot)
    with folder_lock(tmp_path / "run"):  # nobody holds it, so its owner is dead
        pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]", b'{"pid": 1}'])
def test_a_lock_whose_owner_died_while_writing_it_is_taken_over(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    with folder_lock(tmp_path):
        pass


def test_without_flock_the_process_id_decides(tmp_path, holder, monkeypatch):
    def unsupported(_file, _operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(FolderInUseError, match=f"process {holder.pid} on this machine"):
        folder_lock(tmp_path / "run").__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with folder_lock(tmp_path / "run"):
        pass


def test_results_stay_and_folders_that_stayed_empty_go(tmp_path):
    with folder_lock(tmp_path / "a/b/c"):
        (tmp_path / "a/result").write_text("kept")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "result"]


def test_a_file_and_a_closed_folder_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        folder_lock(tmp_path / "file").__enter__()
    with pytest.raises(StorageError, match="cannot be created"):
        folder_lock("/proc/nothing/run").__enter__()
    with pytest.raises(StorageError, match=LOCK_NAME):
        folder_lock("/proc").__enter__()


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match=rf"{LOCK_NAME} cannot be written: No space left"):
            folder_lock(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("host", "boot", "here"),
    [("me", "x", True), ("me", "", True), ("other", "k", True), ("other", "x", False)],
)
def test_an_owner_is_on_this_host_by_its_name_or_by_its_running_kernel(
    monkeypatch, host, boot, here
):
    monkeypatch.setattr(locking.platform, "node", lambda: "me")
    monkeypatch.setattr(locking, "_boot_id", lambda: "k")
    assert locking.Owner(host, 1, boot, "").on_this_host() is here
    monkeypatch.setattr(locking, "_boot_id", lambda: "")
    assert not locking.Owner("other", 1, "", "").on_this_host()
