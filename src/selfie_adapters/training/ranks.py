"""Several processes that train one adapter: each works on its share of every batch.

The model is frozen and the adapter tiny, so the one thing that travels is the adapter's gradient,
added up over the processes; all of them then make the same update. `torchrun` starts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from selfie_adapters.errors import ConfigError, SelfieError, TrainingError, first_line

_FAILED = "selfie_failed"  # key of the store under which a rank leaves its last words


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; by itself where there is only one."""

    rank: int = 0
    size: int = 1
    store: dist.Store | None = None

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run folder."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of `rows`, which all processes hold alike; it may be empty."""
        return rows[self.rank :: self.size].contiguous()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; every process gets the same bits.

        Raises TrainingError if another process is gone, with what it said last.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise TrainingError(self._why_gone(error)) from error
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def agree_on(self, **values: Any) -> None:
        """Raise TrainingError unless all processes hold the same `values` (text or numbers)."""
        if self.size == 1:
            return
        everywhere: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(everywhere, values)
        except RuntimeError as error:
            raise TrainingError(self._why_gone(error)) from error
        for rank, theirs in enumerate(everywhere):
            for name, value in everywhere[0].items():
                if theirs[name] != value:
                    raise TrainingError(
                        f"{name} is {value!r} in process 0 and {theirs[name]!r} in process {rank}. "
                        "All processes need the same configuration, data and checkpoints."
                    )

    def _why_gone(self, error: RuntimeError) -> str:
        said = None
        if self.store is not None:
            try:
                said = self.store.get(_FAILED).decode() if self.store.check([_FAILED]) else None
            except RuntimeError:  # the store lived in the process that is gone
                said = None
        if said is not None:
            return f"stopped, because another process did: {said}"
        return (
            f"process {self.rank}: another process of this run is gone without a word; was it "
            f"killed, or out of memory? ({first_line(error)})"
        )


@contextmanager
def joined_ranks(device_map: Any) -> Iterator[Ranks]:
    """The processes that torchrun started, connected while the block runs; else just this one.

    device_map: the configured one; what spreads one model over devices does not go with several
    processes (ConfigError). When a process fails, the others are told what it said.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    if device_map is not None and not _is_one_device(device_map):
        raise ConfigError(
            f"model.device_map: {device_map!r} spreads one model over the devices, and {size} "
            "processes would each do so. For a model that fits one device, set model.device_map: "
            "null and keep the processes; for a larger one, start a single process (no torchrun) "
            "that uses all devices."
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, size = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Ranks(rank, size, store)
    except SelfieError as error:
        _leave_word(store, f"process {rank}: {error}")
        raise
    except BaseException as error:
        _leave_word(store, f"process {rank}: {type(error).__name__}: {error}")
        raise
    # Only at a good end: a process that failed must not wait for the others.
    dist.barrier()
    dist.destroy_process_group()


def _leave_word(store: dist.Store, said: str) -> None:
    try:
        store.compare_set(_FAILED, "", said)  # the first to fail is the one to be heard
    except RuntimeError:
        return


def _is_one_device(device_map: Any) -> bool:
    if isinstance(device_map, dict):
        return set(device_map.values()) == {"cpu"}
    # A named GPU would be the same one for every process.
    return str(device_map) in ("cpu", "cuda")
