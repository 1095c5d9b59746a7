"""Write labels with vLLM, from prompts made of embeddings alone.

A prompt that mixes ids and embeddings is wrong with prefix caching on, so every token of the
template goes in as its embedding. vLLM draws its own random numbers: greedy labels are those of
the local engine, sampled ones are not. Needs an environment of its own (docs/labelling.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import extra
from selfie_adapters.inference.generate import Generated
from selfie_adapters.inference.label_batches import CLOSING_QUOTE
from selfie_adapters.inference.label_scores import Prefilled, prefill, score_generated
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix

_SHARE_OF_FREE_MEMORY = 0.85
_ROOM = 256  # tokens of prompt and label; labels are short


class VllmEngine:
    """The frozen model stays loaded beside vLLM: it gives embeddings and scores the labels."""

    def __init__(self, model: FrozenModel, prompt: BoundPrompt) -> None:
        with extra("vllm", "--engine vllm"):
            vllm: Any = import_module("vllm")
        if not torch.cuda.is_available():
            raise ConfigError("--engine vllm needs a GPU; there is none here. Use --engine local.")
        if model.adapter is not None:
            raise ConfigError(
                f"--engine vllm reads the model's files, in which {model.adapter} is not merged. "
                "Save the merged model (peft: merge_and_unload, save_pretrained), or use --engine "
                "local."
            )
        self._model = model
        self._prompt = prompt
        self._prefix = SharedPrefix(model, prompt.prefix_ids)
        ids = torch.tensor([prompt.ids], device=model.device)
        with torch.inference_mode():
            self._template = model.embedding(ids)[0]  # [tokens, d_model]
        free, total = torch.cuda.mem_get_info()
        used = 1 - free / total
        self._engine: Any = vllm.LLM(
            model=model.network.name_or_path,
            revision=model.revision,
            enable_prompt_embeds=True,
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=len(prompt.ids) + _ROOM,
            gpu_memory_utilization=used + (1 - used) * _SHARE_OF_FREE_MEMORY,
        )
        self._parameters = vllm.SamplingParams

    def generate(
        self, soft_tokens: Tensor, seeds: Sequence[int], sampling: Sampling
    ) -> list[Generated]:
        sites = list(self._prompt.sites)
        prompts = []
        for row in soft_tokens.to(self._template):
            embedded = self._template.clone()
            embedded[sites] = row
            prompts.append({"prompt_embeds": embedded.cpu()})
        parameters = [
            self._parameters(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                repetition_penalty=sampling.repetition_penalty,
                max_tokens=sampling.max_new_tokens,
                seed=seed,
                stop=[CLOSING_QUOTE] if sampling.stop_at_quote else None,
                include_stop_str_in_output=True,
                stop_token_ids=[self._prompt.end_id],
                logprobs=0,  # of the token written, before temperature and penalties
            )
            for seed in seeds
        ]
        outputs = self._engine.generate(prompts, parameters, use_tqdm=False)
        return [_generated(output.outputs[0]) for output in outputs]

    def prefill(self, soft_tokens: Tensor) -> Prefilled:
        return prefill(self._model, self._prompt, self._prefix, soft_tokens)

    def score(
        self, read: Prefilled, answers: Sequence[Sequence[int]], owners: Tensor | None = None
    ) -> list[float]:
        return score_generated(self._model, read, answers, owners)


def _generated(answer: Any) -> Generated:
    ids = list(answer.token_ids)
    gained = (table[token].logprob for token, table in zip(ids, answer.logprobs, strict=True))
    return Generated(ids, float(sum(gained)), answer.finish_reason == "stop")
