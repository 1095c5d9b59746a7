"""Rows of a published SAE, read as they are asked for: the decoder's, or the encoder's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from selfie_adapters.sources.sae.decoder import Decoder
from selfie_adapters.sources.sae.files import open_registered
from selfie_adapters.sources.sae.registry import RegisteredSae, find_sae, load_registered


@dataclass(frozen=True)
class SaeRows:
    """A decoder that gives rows by number, as its file holds them; nothing is read before."""

    decoder: Decoder

    @property
    def shape(self) -> tuple[int, int]:
        """(d_sae, d_in)"""
        return self.decoder.shape

    def __getitem__(self, rows: Tensor) -> Tensor:
        """rows: [n] → [n, d_in], float32."""
        tensor = self.decoder.open()
        part = tensor[:, rows].T if self.decoder.columns else tensor[rows]
        return self.decoder.one_row_each(part) * self.decoder.multiply / self.decoder.divide


@dataclass(frozen=True)
class NamedRows:
    """Rows of an SAE, and the zero-based block they belong to (None where nothing states it)."""

    rows: SaeRows | Tensor
    layer: int | None


def is_sae_name(text: str) -> bool:
    """Whether `text` is release:sae_id (or owner/repository:path) and not a path."""
    release, colon, sae_id = text.partition(":")
    return bool(colon) and bool(sae_id) and len(release) > 1  # C:\… is a path


def open_sae_rows(name: str, which: Literal["decoder", "encoder"] = "decoder") -> NamedRows:
    """The SAE `release:sae_id`. Files come from the hub; a decoder stays on disk.

    which: "encoder" takes the columns of W_enc, one per latent, through SAELens' own loader.
    Raises MissingExtraError without SAELens, DataError with the nearest valid names, DownloadError.
    """
    release, _, sae_id = name.partition(":")
    entry = find_sae(release, sae_id)
    sae = open_registered(entry)
    if which == "encoder":
        return NamedRows(_encoder(entry), sae.facts.layer)
    return NamedRows(SaeRows(sae.decoder), sae.facts.layer)


def _encoder(entry: RegisteredSae) -> Tensor:
    return load_registered(entry, "Reading an encoder").W_enc.detach().T.contiguous()
