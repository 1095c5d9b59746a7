"""The decoder of an SAE file, read alone and block by block: the rest of the file stays on disk."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.sources.sae.layouts import OF_DIMENSIONS, OF_LATENTS
from selfie_adapters.tensor_files import open_tensors

_BLOCK_BYTES = 64 * 2**20
_ENCODER = re.compile(r"(?:^|[^a-z])enc(?:oder)?(?:[^a-z]|$)", re.IGNORECASE)
_LINES_BYTES = 128 * 2**20  # of a mapped file at once, where lines are read in pieces


@dataclass(frozen=True)
class Decoder:
    """Rows of a decoder, `[d_sae, d_in]`, wherever and whichever way round they lie."""

    open: Callable[[], Tensor]
    """The tensor as it is stored in its file: [d_sae, d_in], [d_in, d_sae], or, for a decoder that
    writes into several layers, [d_sae, layers, d_in]. Called for each block: pages of a mapped
    file count as memory until it is closed."""
    columns: bool
    multiply: float = 1.0
    divide: float = 1.0
    written: int | None = None
    """Position of the one written layer whose rows are taken; None takes the sum over all."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_sae, d_in)"""
        first, *_, last = self.open().shape
        return (last, first) if self.columns else (first, last)

    @property
    def layers_written(self) -> int | None:
        """How many layers the decoder writes into; None for one that is two-dimensional."""
        shape = self.open().shape
        return shape[1] if len(shape) == 3 else None

    def blocks(self) -> Iterator[Tensor]:
        """Consecutive rows: [n, d_in] each, float32."""
        d_sae, _ = self.shape
        rows = max(1, _BLOCK_BYTES * d_sae // (4 * self.open().numel()))
        for start in range(0, d_sae, rows):
            block = self._columns(start, start + rows) if self.columns else self._rows(start, rows)
            # Not one factor: SAELens multiplies or divides, and the last bit should be the same.
            if self.multiply != 1.0:
                block = block * self.multiply
            if self.divide != 1.0:
                block = block / self.divide
            yield block

    def one_row_each(self, part: Tensor) -> Tensor:
        """part: [n, d_in] or [n, layers, d_in], rows of the file → [n, d_in], float32."""
        if part.ndim == 3:
            part = part.float().sum(dim=1) if self.written is None else part[:, self.written]
        return part.contiguous().float()

    def _rows(self, start: int, rows: int) -> Tensor:
        return self.one_row_each(self.open()[start : start + rows])

    def _columns(self, start: int, stop: int) -> Tensor:
        """Columns as rows. Reading a few numbers of a mapped line brings in whole stretches of it,
        so the file is opened again for every few lines."""
        d_sae, d_in = self.shape
        stop = min(stop, d_sae)
        block = torch.empty(stop - start, d_in)
        lines = max(1, _LINES_BYTES // (4 * d_sae))
        for top in range(0, d_in, lines):
            part = self.open()[top : top + lines, start:stop]
            block[:, top : top + lines] = part.contiguous().T
            del part  # closes the file
        return block


def open_decoder(
    file: Path,
    names: Mapping[str, bool],
    d_sae: int | None = None,
    d_in: int | None = None,
    either_way: bool = False,
    multiply: float = 1.0,
    divide: float = 1.0,
) -> Decoder:
    """The decoder in `file`: the first tensor of `names` (name → stored in columns), or the only
    2-D one there is.

    d_sae, d_in: what the SAE's configuration states, None where nothing states it; a file that says
    otherwise is refused. either_way: the orientation in `names` is a guess, which these widths and
    the biases in the file overrule. Raises DataError naming file, tensor and shape, or for a factor
    that is not positive: it would turn the rows around.
    """
    for factor in (multiply, divide):
        if not 0 < factor < float("inf"):
            raise DataError(f"{file}: a factor of {factor} for its rows; it must be above zero.")
    tensors = open_tensors(file)
    name = next((name for name in names if name in tensors), None)
    if name is None:
        name = _only_matrix(file, tensors, names)
    shape = tuple(tensors[name].shape)
    columns = names.get(name, False)
    axes = (2,) if columns else (2, 3)
    if len(shape) not in axes or not tensors[name].is_floating_point() or 0 in shape:
        raise DataError(
            f"{file}, {name}: {tensors[name].dtype} of shape {list(shape)}; a decoder has two "
            "dimensions and floating-point numbers."
        )
    expected = (d_sae or _length(tensors, OF_LATENTS), d_in or _length(tensors, OF_DIMENSIONS))
    ends = (shape[0], shape[-1])
    turned = either_way and len(shape) == 2
    if turned and not _fits(ends, columns, expected) and _fits(ends, not columns, expected):
        columns = not columns
    if not _fits(ends, columns, expected):
        found = (ends[1], ends[0]) if columns else ends
        raise DataError(
            f"{file}, {name}: {found[0]} latents of width {found[1]}, but the SAE's "
            f"configuration and biases state {expected[0]} of width {expected[1]}. The file "
            "is not of this SAE."
        )

    def open_it() -> Tensor:
        return open_tensors(file)[name]

    mapped = file.suffix in (".safetensors", ".npy") or zipfile.is_zipfile(file)
    if not mapped:
        whole = tensors[name]
        return Decoder(lambda: whole, columns, multiply, divide)
    return Decoder(open_it, columns, multiply, divide)


def _fits(ends: tuple[int, int], columns: bool, expected: tuple[int | None, int | None]) -> bool:
    found = (ends[1], ends[0]) if columns else ends
    return all(want in (None, have) for want, have in zip(expected, found, strict=True))


def _length(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> int | None:
    vectors = (tensors[name] for name in names if name in tensors)
    return next((len(vector) for vector in vectors if vector.ndim == 1), None)


def _only_matrix(file: Path, tensors: Mapping[str, Tensor], names: Mapping[str, bool]) -> str:
    matrices = [n for n, t in tensors.items() if t.ndim == 2 and not _ENCODER.search(n)]
    if len(matrices) == 1:
        return matrices[0]
    found = ", ".join(f"{n} {list(t.shape)}" for n, t in list(tensors.items())[:8]) or "no tensor"
    raise DataError(f"{file}: no decoder. Expected {' or '.join(names)}; found {found}.")


@dataclass
class RowCheck:
    """Looks at rows as they pass: norms, and rows that no adapter can use."""

    dead: list[int]
    broken: list[int]
    least: float = float("inf")
    greatest: float = 0.0
    total: float = 0.0
    sound: int = 0

    @classmethod
    def empty(cls) -> RowCheck:
        return cls([], [])

    def watch(self, blocks: Iterator[Tensor], dtype: torch.dtype) -> Iterator[Tensor]:
        """The same blocks, in `dtype`: a value that it cannot hold is infinite in the file."""
        row = 0
        for block in blocks:
            kept = block.to(dtype)
            norms = kept.float().norm(dim=1)
            largest = kept.abs().amax(dim=1)  # tells all: NaN, infinity or zero
            finite, zero = torch.isfinite(largest), largest == 0
            self.dead += (zero.nonzero().flatten() + row).tolist()
            self.broken += ((~finite).nonzero().flatten() + row).tolist()
            good = norms[finite & ~zero]
            if len(good):
                self.least = min(self.least, float(good.min()))
                self.greatest = max(self.greatest, float(good.max()))
                self.total += float(good.sum(dtype=torch.float64))
                self.sound += len(good)
            row += len(block)
            yield kept

    def report(self) -> list[str]:
        """Lines for the reader."""
        lines = []
        if self.sound:
            mean = self.total / self.sound
            lines.append(
                f"norms of {self.sound} rows: mean {mean:.4g}, "
                f"from {self.least:.4g} to {self.greatest:.4g}"
            )
        for rows, what in ((self.dead, "all zeros"), (self.broken, "NaN or infinity")):
            if rows:
                shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
                lines.append(f"{len(rows)} rows hold {what}: {shown}; excluded from the labels")
        return lines
