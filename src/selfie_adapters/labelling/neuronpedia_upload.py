"""Labels with activations of their latents, as Neuronpedia's upload of features takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.labelling.finished_run import FinishedRun
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.neuronpedia import METHOD, explainer, of_one_dataset
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.tokens import begun_ids
from selfie_adapters.sources.sae.encoder import LatentEncoder, open_encoder
from selfie_adapters.sources.sae.rows import is_sae_name

FEATURES = 128
"""At most in one request."""
LONGEST_LABEL = 512
"""Characters."""
EXAMPLES = 5
"""Prompts per feature: those in which it is the most active."""
TOKENS = 64
"""Of a prompt."""
_PROMPTS_AT_ONCE = 16
_LATENTS_AT_ONCE = 1024


def sae_of(run: FinishedRun, sae: str | None) -> str:
    """The SAE whose latents the run labelled: `sae`, its source, or what its training file states.

    Raises ConfigError where none of them names one.
    """
    if sae is not None:
        return sae
    if is_sae_name(run.settings.source) and not Path(run.settings.source).exists():
        return run.settings.source
    dataset = open_source(run.settings).dataset
    for section in () if dataset is None else dataset.sections:
        release = section.metadata.get("saelens_release")
        sae_id = section.metadata.get("saelens_sae_id")
        if isinstance(release, str) and isinstance(sae_id, str):
            return f"{release}:{sae_id}"
    raise ConfigError(
        f"{run.folder}: the run does not state which SAE has these latents. Pass --sae: "
        "release:id, a SAELens folder, or "
        "demo."
    )


def to_neuronpedia_upload(
    run: FinishedRun,
    out: str | Path,
    model_id: str,
    source_id: str,
    model: FrozenModel,
    sae: str,
    prompts: Sequence[str],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[int, int]:
    """One line for at most 128 features: the body of POST /api/feature/upload-batch.

    sae: as `sae_of`. prompts: where activations are looked for; each feature comes with the
    EXAMPLES prompts that activate it the most, cut to TOKENS tokens. Labels are cut to
    LONGEST_LABEL characters. progress: called with prompts done and their total. Returns how many
    features, and how many were omitted because no prompt activates them: the site takes none
    without an activation. Raises like `to_neuronpedia` and `open_encoder`; DataError for an SAE of
    another width.
    """
    rows = list(of_one_dataset(run))
    encoder = open_encoder(sae, [row.index for row in rows], device=model.device)
    if encoder.d_in != model.d_model:
        raise DataError(
            f"{sae}: reads vectors of width {encoder.d_in}; {model.name} has d_model "
            f"{model.d_model}. Use the model the SAE was trained on ({encoder.model})."
        )
    found = _Examples(len(rows))
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        found.look(model, encoder, prompts[start : start + _PROMPTS_AT_ONCE])
        progress(min(start + _PROMPTS_AT_ONCE, len(prompts)), len(prompts))
    features = [
        {
            "index": row.index,
            "density": found.density(number),
            "activations": activations,
            "explanations": [
                {"text": _cut(row.label), "methodName": METHOD, "modelName": explainer(run)}
            ],
            "topLogits": None,
            "bottomLogits": None,
        }
        for number, row in enumerate(rows)
        if (activations := list(found.activations(number)))
    ]
    write_jsonl(
        out,
        (
            {
                "modelId": model_id,
                "source": source_id,
                "features": features[start : start + FEATURES],
            }
            for start in range(0, len(features), FEATURES)
        ),
    )
    return len(features), len(rows) - len(features)


class _Examples:
    """The most active prompts of each latent so far, with the activations of all their tokens."""

    def __init__(self, latents: int) -> None:
        self._tokens: list[list[str]] = []  # of each prompt
        self._text = torch.full((latents, 0), -1)
        self._values = torch.zeros(latents, 0, TOKENS)
        self._active = torch.zeros(latents)
        self._seen = 0

    def look(self, model: FrozenModel, encoder: LatentEncoder, prompts: Sequence[str]) -> None:
        rows = [ids[:TOKENS] for ids in begun_ids(model.tokenizer, prompts)]
        ids = torch.zeros(len(rows), TOKENS, dtype=torch.int64)
        real = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
            real[number, : len(row)] = True
        states = capture(model, ids, [encoder.layer], None, real.long())[:, 0]
        numbers = torch.arange(len(rows)) + len(self._tokens)
        self._tokens += [[str(model.tokenizer.decode([token])) for token in row] for row in rows]
        counted = real.clone()
        counted[:, 0] = False  # the first token activates most latents, whatever the text
        self._seen += int(counted.sum())
        kept: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(encoder.latents), _LATENTS_AT_ONCE):
            part = torch.tensor([encoder.latents[start : start + _LATENTS_AT_ONCE]])
            # All prompts as one row: the columns of the latents are gathered once.
            flat = encoder.encode(states.flatten(0, 1)[None], part.to(states.device))[0].cpu()
            values = flat.view(len(rows), TOKENS, -1).permute(2, 0, 1) * counted
            here = slice(start, start + part.shape[1])
            self._active[here] += (values > 0).sum(dim=(1, 2))
            kept.append(self._best(here, values, numbers))
        self._values = torch.cat([values for values, _ in kept])
        self._text = torch.cat([text for _, text in kept])

    def _best(self, here: slice, values: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """values: [latents, prompts, tokens] → those of the EXAMPLES best so far, and of which."""
        values = torch.cat([self._values[here], values], dim=1)
        text = torch.cat([self._text[here], numbers.expand(len(values), -1)], dim=1)
        order = values.amax(dim=2).topk(min(EXAMPLES, values.shape[1]), dim=1).indices
        return values.gather(1, order.unsqueeze(2).expand(-1, -1, TOKENS)), text.gather(1, order)

    def density(self, number: int) -> float:
        """Share of the tokens that activate a latent."""
        return float(self._active[number]) / max(1, self._seen)

    def activations(self, number: int) -> Iterator[dict[str, Any]]:
        """A latent's examples, the most active one first; without those that do not activate it."""
        for values, text in zip(self._values[number], self._text[number].tolist(), strict=True):
            if float(values.max()) <= 0:
                continue
            tokens = self._tokens[text]
            yield {
                "tokens": tokens,
                "values": values[: len(tokens)].tolist(),
                "quantileMax": None,
                "quantileMin": None,
                "quantileFraction": None,
            }


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
