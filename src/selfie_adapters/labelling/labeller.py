"""From vectors to labels: the frozen model answers the fixed question about each soft token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.errors import AdapterError, ConfigError, DataError
from selfie_adapters.labelling.sampling import next_tokens, row_seed, row_uniforms
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix, SoftPrompt, bind, injected

CLOSING_QUOTE = '"'


@dataclass(frozen=True)
class Label:
    """One answer about one vector.

    text: the label, up to the closing quote, blanks around it removed. raw: all that was written
    but special tokens. log_prob: sum over the `tokens` tokens written, in nats. ended: the model
    closed the quote or ended its turn; otherwise the label was cut at max_new_tokens.
    """

    text: str
    raw: str
    scale: float
    sample: int
    seed: int
    log_prob: float
    tokens: int
    ended: bool


@dataclass
class _Row:
    vector: int
    scale: float
    sample: int
    seed: int
    log_prob: float = 0.0
    ended: bool = False


class Labeller:
    """Labels vectors with one model, adapter and prompt; what all rows share is computed once."""

    def __init__(
        self,
        model: FrozenModel,
        adapter: Adapter,
        prompt: SoftPrompt | None = None,
        check: bool = True,
    ) -> None:
        """prompt None takes the adapter's own, else the built-in one for this tokenizer.

        check compares the adapter's binding with this model and prompt. Raises BindingError if
        they differ, AdapterError if the adapter's width is not the model's.
        """
        if prompt is None:
            bound_to = adapter.binding
            if bound_to is not None:
                prompt = SoftPrompt(bound_to.template, bound_to.placeholder)
            else:
                prompt = SoftPrompt.for_tokenizer(model.tokenizer)
        self.model = model
        self.adapter = adapter
        self.prompt: BoundPrompt = prompt.bind(model.tokenizer)
        if adapter.dim != model.d_model:
            raise AdapterError(
                f"the adapter maps vectors of width {adapter.dim}; the model {model.name} has "
                f"d_model {model.d_model}. Use the model the adapter was trained with."
            )
        if check and adapter.binding is not None:
            adapter.binding.check(bind(model, self.prompt, adapter.binding.layer))
        self._prefix = SharedPrefix(model, self.prompt.prefix_ids)
        self._closes = _tokens_with_quote(model)

    def soft_tokens(self, vectors: Tensor, scales: Tensor | float = 1.0) -> Tensor:
        """Soft tokens of `vectors` ([n, d_model]) times `scales` (a number, or [n]).

        The scale applies to the adapter's input: to the unit vector where the adapter normalises,
        to the vector as it is where it does not.
        """
        values = vectors.float()
        if self.adapter.normalize_input:
            values = unit_norm(values)
        factor = torch.as_tensor(scales, dtype=torch.float32).reshape(-1, 1)
        with torch.no_grad():
            return self.adapter.transform(values * factor, normalize_input=False)

    def label(
        self,
        vectors: Tensor,
        scales: Sequence[float] = (1.0,),
        samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int = 30,
        seed: int = 0,
        batch_size: int = 64,
        first_index: int = 0,
        progress: Callable[[int], None] = lambda _rows: None,
    ) -> list[list[Label]]:
        """One list of labels a vector: scales × samples of them, scale by scale.

        vectors: [n, d_model]. temperature 0 is greedy (then every sample of a scale is alike).
        first_index: the number of the first vector in a longer job; a row's seed is made of seed,
        vector number, scale and sample, so that batches and shards do not change what comes out.
        Raises DataError for vectors of another width or with NaN; ConfigError for a bad setting.
        """
        _check_settings(scales, samples, temperature, top_p, max_new_tokens)
        if vectors.ndim != 2 or vectors.shape[1] != self.model.d_model:
            raise DataError(
                f"vectors of shape {tuple(vectors.shape)}: [n, {self.model.d_model}] is expected "
                f"for {self.model.name}."
            )
        bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise DataError(f"vector {first_index + bad[0]} holds NaN or infinity. Leave it out.")
        rows = [
            _Row(i, scale, sample, row_seed(seed, first_index + i, scale, sample))
            for i in range(len(vectors))
            for scale in scales
            for sample in range(samples)
        ]
        answers: list[list[Label]] = [[] for _ in range(len(vectors))]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            source = vectors[[row.vector for row in batch]]
            soft = self.soft_tokens(source, torch.tensor([row.scale for row in batch]))
            written = self._write(soft, batch, temperature, top_p, max_new_tokens)
            for row, ids in zip(batch, written, strict=True):
                answers[row.vector].append(self._finish(row, ids))
            progress(len(batch))
        return answers

    @torch.inference_mode()
    def _write(
        self, soft: Tensor, rows: list[_Row], temperature: float, top_p: float, limit: int
    ) -> list[list[int]]:
        """Token ids that each row writes; a row that has ended leaves the batch."""
        device = self.model.device
        written: list[list[int]] = [[] for _ in rows]
        uniforms = row_uniforms([row.seed for row in rows], limit).to(device)
        alive = torch.arange(len(rows), device=device)
        ids = torch.tensor(self.prompt.suffix_ids, device=device).expand(len(rows), -1)
        cache = self._prefix.for_batch(len(rows))
        with injected(
            self.model.embedding,
            soft.to(device),
            self.prompt.placeholder_id,
            len(self.prompt.sites),
        ):
            out = self.model.network(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        for step in range(limit):
            logits = out.logits[:, -1].to(device)
            tokens, gained = next_tokens(logits, temperature, top_p, uniforms[alive, step])
            ends = (tokens == self.prompt.end_id) | self._closes[tokens]
            table = zip(
                alive.tolist(), tokens.tolist(), gained.tolist(), ends.tolist(), strict=True
            )
            for row, token, log_prob, end in table:
                written[row].append(token)
                rows[row].log_prob += log_prob
                rows[row].ended = end
            if bool(ends.all()) or step + 1 == limit:
                break
            going = (~ends).nonzero().flatten()
            if going.numel() < alive.numel():
                out.past_key_values.batch_select_indices(going)
                alive, tokens = alive[going], tokens[going]
            out = self.model.network(
                input_ids=tokens.unsqueeze(1), past_key_values=out.past_key_values, use_cache=True
            )
        return written

    def _finish(self, row: _Row, ids: list[int]) -> Label:
        raw = str(
            self.model.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        text = raw.split(CLOSING_QUOTE, 1)[0].strip()
        return Label(text, raw, row.scale, row.sample, row.seed, row.log_prob, len(ids), row.ended)


def _tokens_with_quote(model: FrozenModel) -> Tensor:
    """[vocabulary] bool: tokens whose text holds a double quote, which closes the label."""
    closes = torch.zeros(model.vocab_size, dtype=torch.bool, device=model.device)
    # Byte-level and SentencePiece vocabularies both keep ASCII marks as they are.
    ids = [i for piece, i in model.tokenizer.get_vocab().items() if CLOSING_QUOTE in piece]
    special = set(model.tokenizer.all_special_ids)
    closes[[i for i in ids if i not in special and i < closes.numel()]] = True
    return closes


def _check_settings(
    scales: Sequence[float], samples: int, temperature: float, top_p: float, limit: int
) -> None:
    problems = [
        (not scales, "scales is empty; give at least one number"),
        (samples < 1, f"samples is {samples}; at least 1 is expected"),
        (temperature < 0, f"temperature is {temperature}; 0 (greedy) or more is expected"),
        (not 0 < top_p <= 1, f"top_p is {top_p}; a number in (0, 1] is expected"),
        (limit < 1, f"max_new_tokens is {limit}; at least 1 is expected"),
    ]
    for wrong, message in problems:
        if wrong:
            raise ConfigError(message + ".")
