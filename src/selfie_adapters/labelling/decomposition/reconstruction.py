"""From a label back to vectors, through the model itself.

The label is put into prompts like those that the adapter's training vectors are from, and the
model's states are taken at the same block and kind of position: at the label's own last token in
`FRAMES` sentences ("name"), or at one token of the adapter's question about it. That place's mean
is subtracted. The states span the directions in which the model represents the label: the share of
a vector's squared length in that span is what the label explains of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.locating import find_mean_file
from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.prepare import QUESTION
from selfie_adapters.dataset.captured import NAME, Captured
from selfie_adapters.errors import ConfigError
from selfie_adapters.labelling.centering import load_mean
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.user_text import Chat, usual_chat
from selfie_adapters.sources.topics.frames import Framer, read_frames, token_at, token_ends
from selfie_adapters.sources.topics.reading import topic_texts, topic_vectors
from selfie_adapters.sources.topics.topic import Topic

FRAMES = 8
"""Sentences that a label is put into."""
_DEPENDENT = 1e-3  # singular values below this share of the largest: two sentences gave one state


class Reconstructor:
    """Turns labels into the directions that stand for them, each of them once per place."""

    def __init__(
        self, model: FrozenModel, adapter: Adapter, mean: str | Path | None = None
    ) -> None:
        """mean: file of mean vectors; None: the one in the adapter's folder.

        Raises ConfigError where there is none.
        """
        found = find_mean_file(None if mean is None else str(mean), adapter.file)
        if found is None:
            raise ConfigError(
                "concepts: what a label explains is measured around the mean of the model's "
                "states, and there is no file of means next to the adapter. Give one (--mean), as "
                "selfie prepare topics writes it."
            )
        self._model, self._mean = model, found
        captured = Captured.by_binding(adapter.binding)
        self._position = captured.position
        self._chat: Chat = usual_chat(model.tokenizer, None, captured.chat)
        self._question = captured.question or QUESTION
        self._frames = Framer(model.tokenizer, self._chat, read_frames(), seed=0).fixed(FRAMES)
        self._known: dict[Place, dict[str, Tensor]] = {}

    def spans(self, labels: Sequence[str], place: Place) -> list[Tensor]:
        """Orthonormal directions [k, d_model] of each label at one place, k at most `FRAMES`.

        An empty label has none (k is 0). Raises ConfigError where the block is not known,
        DataError where the mean file has no mean of it.
        """
        layer, kind = place
        if layer is None:
            raise ConfigError(
                "concepts: neither the vectors nor the adapter state which block they come from. "
                "Pass --layer."
            )
        if kind is None:
            kind = NAME if self._position is None else str(self._position)
        known = self._known.setdefault((layer, kind), {})
        new = [one for one in dict.fromkeys(labels) if one.strip() and one not in known]
        if new:
            mean = load_mean(self._mean, layer, self._model.d_model, kind)
            for label, states in zip(new, self._states(new, layer, kind), strict=True):
                known[label] = orthonormal(states - mean)
        nothing = torch.empty(0, self._model.d_model)
        return [known.get(label, nothing) for label in labels]

    def _states(self, labels: Sequence[str], layer: int, kind: str) -> Tensor:
        """The model's states [labels, k, d_model] for labels at one place."""
        if kind != NAME:
            topics = [Topic((label,), name=label) for label in labels]
            texts = topic_texts(self._model, topics, self._question, self._chat)
            return topic_vectors(self._model, texts, [layer], int(kind))
        states = []
        for frame in self._frames:  # all labels of one sentence share what comes before them
            sentences = [frame(label) for label in labels]
            texts = [one.text for one in sentences]
            ends = [
                token_at(token_ends(self._model.tokenizer, one.text), one.name[1])
                for one in sentences
            ]
            states.append(topic_vectors(self._model, texts, [layer], ends)[:, 0])
        return torch.stack(states, dim=1)


def orthonormal(states: Tensor) -> Tensor:
    """Orthonormal directions [k, d] of the span of `states` [n, d], k at most n.

    Each state counts alike, whatever its length.
    """
    lengths = states.norm(dim=-1, keepdim=True)
    units = states[lengths.flatten() > 0] / lengths[lengths > 0].unsqueeze(1)
    if not len(units):
        return units
    _, sizes, directions = torch.linalg.svd(units.float(), full_matrices=False)
    return directions[sizes > _DEPENDENT * sizes[0]]


def explained(vector: Tensor, span: Tensor) -> float:
    """Share of the squared length of `vector` [d] in the span of orthonormal rows [k, d]: 0 to 1.

    0 for the zero vector.
    """
    whole = float(vector.double().square().sum())
    inside = float((span.double() @ vector.double()).square().sum())
    return min(1.0, inside / whole) if whole > 0 else 0.0


def without(vector: Tensor, span: Tensor) -> Tensor:
    """What is left of `vector` [d] outside the span of orthonormal rows [k, d]."""
    inside = span.double().T @ (span.double() @ vector.double())
    return (vector.double() - inside).to(vector.dtype)
