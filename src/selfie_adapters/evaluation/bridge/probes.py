"""Ridge probes for the states of questions: one for each block and kind of position of a file."""

from __future__ import annotations

import torch

from selfie_adapters.adapters.specialists import Place
from selfie_adapters.dataset import LabelledVector, VectorLabelDataset
from selfie_adapters.dataset.captured import kind_of_token, stated_kind
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.baselines import RidgeProbe
from selfie_adapters.evaluation.bridge.reading import QuestionPlan
from selfie_adapters.evaluation.controls import sample
from selfie_adapters.model import FrozenModel
from selfie_adapters.training.closed_form import VECTORS_A_DIMENSION

_FEWEST = 2  # vectors that a probe is fitted on


class BlockProbes:
    """Probes fitted on the train vectors of a training file, each when it is first used.

    Vectors without a concept are not fitted on. A token is read by the probe for its kind of
    position, as `kind_of_token` chooses the mean that is subtracted there.
    """

    def __init__(
        self, model: FrozenModel, dataset: VectorLabelDataset, file: str, seed: int
    ) -> None:
        """file: the training file's name, for messages."""
        self._model, self._dataset, self._file, self._seed = model, dataset, file, seed
        items: dict[Place, list[LabelledVector]] = {}
        for item in dataset.labelled("train"):
            section = dataset.sections[item.section]
            if section.metadata["vector_type"] != "null":
                place = section.layer, stated_kind(section.metadata)
                items.setdefault(place, []).append(item)
        self._items = {place: of for place, of in items.items() if len(of) >= _FEWEST}
        self._fitted: dict[Place, RidgeProbe] = {}

    def places(self, one: QuestionPlan) -> list[Place]:
        """Block and kind of position of the probe for each cell, layer by layer.

        Raises DataError for a block or a token that the file has no train vectors of.
        """
        tokens, found = len(one.plan.tokens), []
        for layer in one.plan.layers:
            kinds = [kind for block, kind in self._items if block == layer]
            if not kinds:
                blocks = sorted({block for block, _ in self._items if block is not None})
                listed = ", ".join(map(str, blocks)) or "none"
                raise DataError(
                    f"{self._file}: {_FEWEST} vectors of block {layer} with the split train are "
                    f"needed to fit a ridge probe; it has them of blocks: {listed}. Read those "
                    "blocks (layers), or omit training_file."
                )
            for position in one.plan.positions:
                try:
                    found.append((layer, kind_of_token(position, tokens, kinds)))
                except KeyError:
                    raise DataError(
                        f"{self._file}: no train vectors of block {layer} for token {position} of "
                        f"{tokens}; it has positions {', '.join(map(str, kinds))}. Give a file "
                        "with the position name, or omit training_file."
                    ) from None
        return found

    def at(self, place: Place) -> RidgeProbe:
        """The probe of one of `places`."""
        if place not in self._fitted:
            limit = VECTORS_A_DIMENSION * self._model.d_model
            items = sample(self._items[place], limit, self._seed)
            sections, rows = torch.tensor([(item.section, item.row) for item in items]).T
            vectors = self._dataset.gather(sections, rows)
            names = [item.labels[0] for item in items]
            self._fitted[place] = RidgeProbe(self._model, vectors, names, self._seed)
        return self._fitted[place]
