"""From vectors to labels: the frozen model answers the fixed question about each soft token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.binding import Binding
from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset.vectors import as_vectors
from selfie_adapters.errors import AdapterError, ConfigError, DataError
from selfie_adapters.inference.generate import (
    Generated,
    SamplingOptions,
    answer_text,
    label_in,
    row_seed,
)
from selfie_adapters.inference.microbatch import rows_per_batch
from selfie_adapters.labelling.adapter_prompt import adapter_prompt
from selfie_adapters.labelling.engines.base import Engine
from selfie_adapters.labelling.engines.local import LocalEngine
from selfie_adapters.labelling.label import Label, check_settings
from selfie_adapters.labelling.soft_tokens import soft_tokens, soft_tokens_of_rows
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, bind
from selfie_adapters.model.limits import check_prompt, learned_positions
from selfie_adapters.model.suitable import check_model


@dataclass(frozen=True)
class _Row:
    vector: int
    scale: float
    sample: int
    seed: int


class Labeller:
    """Labels vectors with one model, adapter and prompt; what all rows share is computed once."""

    def __init__(
        self,
        model: FrozenModel,
        adapter: Adapter,
        prompt: SoftPrompt | None = None,
        check: bool = True,
        engine: Callable[[FrozenModel, BoundPrompt], Engine] = LocalEngine,
    ) -> None:
        """prompt None takes the adapter's own, else the built-in one for this tokenizer.

        check compares the adapter's binding with this model and prompt. Raises BindingError if
        they differ, AdapterError if the adapter's width is not the model's.
        engine makes what generates and scores the answers.
        """
        if prompt is None:
            prompt = adapter_prompt(adapter, model.tokenizer)
        self.model = model
        self.adapter = adapter
        check_model(model)
        self.prompt = prompt.bind(model.tokenizer)
        check_prompt(model, self.prompt)
        if adapter.dim != model.d_model:
            raise AdapterError(
                f"the adapter maps vectors of width {adapter.dim}; the model {model.name} has "
                f"d_model {model.d_model}. Use the model the adapter was trained with."
            )
        self._specialists: dict[Adapter, Labeller] = {}
        self._zeros: dict[tuple[Adapter, ...], Any] = {}
        self._check = check
        if check:
            self._check_binding()
        self._engine = engine(model, self.prompt)

    def __repr__(self) -> str:
        return f"Labeller({self.model!r}, {self.adapter!r})"

    @cached_property
    def binding(self) -> Binding:
        """Of this model and prompt, with the layer that the adapter was trained for."""
        bound = self.adapter.binding
        return bind(self.model, self.prompt, None if bound is None else bound.layer)

    def _check_binding(self) -> None:
        if self.adapter.binding is not None:
            self.adapter.binding.check(self.binding)

    def at(self, layer: int | None, kind: str | None) -> Labeller:
        """What labels vectors of one block and kind of position (`Adapter.at`): a specialist's
        labeller, with its own prompt unless the user chose one, or this one.

        Raises BindingError for a specialist of another model, ConfigError where the engine has no
        room for a second prompt.
        """
        adapter = self.adapter.at(layer, kind)
        if adapter is self.adapter:
            return self
        if adapter not in self._specialists:
            own = adapter_prompt(self.adapter, self.model.tokenizer)
            chosen = None if self.prompt.prompt == own else self.prompt.prompt
            if not isinstance(self._engine, LocalEngine):
                raise ConfigError(
                    f"{self.adapter.file}: a set of adapters, of which {adapter.file} is for block "
                    f"{layer}, position {kind}. Only the local engine supports sets: use "
                    "--engine local, or copy one of the files into a separate folder and "
                    "name it with --adapter."
                )
            self._specialists[adapter] = self._specialist(adapter, chosen)
        return self._specialists[adapter]

    def _specialist(self, adapter: Adapter, prompt: SoftPrompt | None) -> Labeller:
        """A labeller that shares what depends on model and prompt alone, the engine and the forward
        fingerprint, with those that ask the same question."""
        known = (self, *self._specialists.values())

        def engine(model: FrozenModel, bound: BoundPrompt) -> Engine:
            same = (one._engine for one in known if one.prompt == bound)
            return next(same, None) or LocalEngine(model, bound)

        made = Labeller(self.model, adapter, prompt, check=False, engine=engine)
        made._check = self._check
        if made._check and (bound := adapter.binding) is not None:
            if same := next((one for one in known if one._engine is made._engine), None):
                made.binding = same.binding.model_copy(update={"layer": bound.layer})
            made._check_binding()
        return made

    def soft_tokens(self, vectors: Tensor, scales: Tensor | float = 1.0) -> Tensor:
        """Soft tokens of `vectors` ([n, d_model]) times `scales` (a number, or [n]).

        The scale applies to the adapter's input: to the unit vector where the adapter normalizes,
        to the vector as it is where it does not.
        """
        return soft_tokens(self.adapter, vectors, scales)

    def _readers(self, places: Sequence[Place] | None, rows: int) -> list[Labeller]:
        """What labels each row."""
        if places is None or not self.adapter.specialists:
            return [self] * rows
        return [self.at(*place) for place in places]

    def label(
        self,
        vectors: Tensor | np.ndarray | Sequence[Any],
        scales: Sequence[float] = (1.0,),
        samples: int = 1,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        first_index: int = 0,
        progress: Callable[[int], None] = lambda _rows: None,
        names: Sequence[tuple[float | str, ...]] | None = None,
        places: Sequence[Place] | None = None,
        **options: Unpack[SamplingOptions],
    ) -> list[list[Label]]:
        """One list of labels per vector: scales × samples of them, scale by scale.

        vectors: [n, d_model], or one vector [d_model]: a tensor, a numpy array, or lists of
        numbers. sampling: None is greedy, up to 30 tokens (then every sample of a
        scale is the same). options: fields of `Sampling` that replace its own, such as
        temperature=0.7. first_index: the number of the first vector in a longer job; a row's seed
        is made of seed, vector number, scale and sample, so that batches and shards do not change
        what comes out. names: what a vector's seeds are made of in place of its number, one tuple
        per vector. places: block and kind of position of each, for an adapter with specialists
        (`at`). batch_size: rows at a time; None: as many as suit the model's device
        (`rows_per_batch`). Raises DataError for vectors of another width or with NaN; ConfigError
        for a bad setting.
        """
        sampling = replace(sampling or Sampling(), **options)
        check_settings(scales, samples, sampling, batch_size)
        self._check_room(sampling.max_new_tokens)
        vectors = as_vectors(vectors)
        if vectors.shape[1] != self.model.d_model:
            raise DataError(
                f"vectors of shape {list(vectors.shape)}: [n, {self.model.d_model}] is expected "
                f"for {self.model.name}."
            )
        bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise DataError(f"vector {first_index + bad[0]} holds NaN or infinity. Remove it.")
        if names is None:
            names = [(first_index + i,) for i in range(len(vectors))]
        rows = [
            _Row(i, float(scale), sample, row_seed(seed, *name, float(scale), sample))
            for i, name in enumerate(names)
            for scale in scales
            for sample in range(samples)
        ]
        answers: list[list[Label]] = [[] for _ in range(len(vectors))]
        batch_size = rows_per_batch(self.model) if batch_size is None else batch_size
        readers = self._readers(places, len(vectors))
        for prompt in dict.fromkeys(one.prompt for one in readers):
            its = [row for row in rows if readers[row.vector].prompt == prompt]
            for start in range(0, len(its), batch_size):
                batch = its[start : start + batch_size]
                labels = self._label_batch(
                    vectors, batch, [readers[row.vector] for row in batch], sampling
                )
                for row, label in zip(batch, labels, strict=True):
                    answers[row.vector].append(label)
                progress(len(batch))
        return answers

    def _label_batch(
        self,
        vectors: Tensor,
        batch: Sequence[_Row],
        readers: Sequence[Labeller],
        sampling: Sampling,
    ) -> list[Label]:
        """The batch's labels; readers: of each row, all with one prompt."""
        source = vectors[[row.vector for row in batch]]
        adapters = [one.adapter for one in readers]
        scales = torch.tensor([row.scale for row in batch])
        engine, which = readers[0]._engine, tuple(dict.fromkeys(adapters))
        soft = soft_tokens_of_rows(adapters, source, scales)
        found = engine.generate(soft, [row.seed for row in batch], sampling)
        if which not in self._zeros:
            # The prompt after each one's soft token of the zero vector, which no scale changes.
            zeros = torch.zeros(len(which), self.model.d_model)
            soft = soft_tokens_of_rows(which, zeros, torch.ones(len(which)))
            self._zeros[which] = engine.prefill(soft)
        owners = torch.tensor([which.index(one) for one in adapters])
        at_zero = engine.score(self._zeros[which], [answer.ids for answer in found], owners)
        return [
            self._finish(row, answer, zero)
            for row, answer, zero in zip(batch, found, at_zero, strict=True)
        ]

    def _check_room(self, new_tokens: int) -> None:
        limit = learned_positions(self.model)
        if limit is not None and len(self.prompt.ids) + new_tokens - 1 > limit:
            raise ConfigError(
                f"max_new_tokens is {new_tokens}; after the prompt's {len(self.prompt.ids)} tokens "
                f"{self.model.name} has room for {limit - len(self.prompt.ids) + 1}."
            )

    def rescore(
        self, labels: Sequence[Label], vectors: Tensor, places: Sequence[Place] | None = None
    ) -> list[Label]:
        """Each label as if it had been written for another vector: labels[i] under vectors[i].

        vectors: [n, d_model]; places: of the vectors, see `at`. Only log_prob, and so the gain,
        changes.
        """
        moved = list(labels)
        readers = self._readers(places, len(labels))
        for prompt in dict.fromkeys(one.prompt for one in readers):
            rows = [row for row, one in enumerate(readers) if one.prompt == prompt]
            adapters, engine = [readers[row].adapter for row in rows], readers[rows[0]]._engine
            scales = torch.tensor([labels[row].scale for row in rows])
            read = engine.prefill(soft_tokens_of_rows(adapters, vectors[rows], scales))
            ids = [labels[row].ids for row in rows]
            scores = engine.score(read, ids, torch.arange(len(rows)))
            for row, score in zip(rows, scores, strict=True):
                moved[row] = replace(labels[row], log_prob=score)
        return moved

    def close(self) -> None:
        """Release what the engine holds besides the model; it cannot label afterwards."""
        for labeller in self._specialists.values():
            labeller.close()
        self._engine.close()

    def _finish(self, row: _Row, answer: Generated, zero_log_prob: float) -> Label:
        raw = answer_text(self.model.tokenizer, answer.ids)
        return Label(
            text=label_in(raw),
            raw=raw,
            scale=row.scale,
            sample=row.sample,
            seed=row.seed,
            log_prob=answer.log_prob,
            tokens=len(answer.ids),
            ended=answer.ended,
            zero_log_prob=zero_log_prob,
            ids=tuple(answer.ids),
        )
