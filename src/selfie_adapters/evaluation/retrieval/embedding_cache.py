"""Embeddings kept on disk by content: a text is embedded once for a model, whoever asks.

One SQLite file per model (named after the hash of its weights), a row per text (under its hash): a
killed run keeps what it has, and several runs may write at the same time.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from selfie_adapters.errors import StorageError
from selfie_adapters.evaluation.retrieval.embedding import Embedder
from selfie_adapters.files import cache_dir

_AT_ONCE = 1024  # texts between two commits


class CachedEmbedder:
    """An embedder that asks the cache first."""

    def __init__(
        self,
        inner: Embedder,
        folder: str | Path | None = None,
        progress: Callable[[int], None] = lambda _texts: None,
    ) -> None:
        """folder: where the cache is stored; None takes `embeddings` in the user's cache.

        progress: called with the number of texts that have their embedding, from the cache or new.
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
