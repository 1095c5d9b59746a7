"""What the engine uses of vLLM, computed by transformers: for tests where vLLM is not installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from selfie_adapters.model import load_model


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True


class LLM:
    """Greedy, one prompt at a time. fail_at: the call of `generate` that raises."""

    alive = 0
    fail_at: int | None = None
    scale = 1.0  # what it multiplies embeddings by, and the table not

    def __init__(self, model: str, **options: Any) -> None:
        assert options["enable_prompt_embeds"] is True
        assert options["enable_prefix_caching"] is False
        self._model = load_model(model, options["dtype"], "cpu")
        self._room = options["max_model_len"]
        self._calls = 0
        LLM.alive += 1
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shut_down))

    def _shut_down(self) -> None:
        LLM.alive -= 1

    @torch.inference_mode()
    def generate(self, prompts: list[dict[str, Any]], params: Any, use_tqdm: bool) -> list[Any]:
        assert use_tqdm is False
        self._calls += 1
        if self._calls == LLM.fail_at:
            raise ValueError("EngineCore encountered an issue.\nSee stack trace.")
        each = params if isinstance(params, list) else [params] * len(prompts)
        return [self._answer(prompt, one) for prompt, one in zip(prompts, each, strict=True)]

    def _answer(self, prompt: dict[str, Any], params: SamplingParams) -> Any:
        assert params.temperature == 0
        assert params.ignore_eos
        assert not params.detokenize
        ids = prompt["prompt_token_ids"]
        assert len(ids) + params.max_tokens <= self._room
        table = self._model.embedding
        if "prompt_embeds" in prompt:
            assert prompt["prompt_is_token_ids"] == [False] * len(ids)
            embedded = prompt["prompt_embeds"] * self.scale
        else:
            embedded = table(torch.tensor(ids))
        found: list[int] = []
        steps = []
        for _ in range(params.max_tokens):
            log_probs = self._log_probs(torch.cat([embedded, table(torch.tensor(found).long())]))
            token = int(log_probs[-1].argmax())
            steps.append({token: SimpleNamespace(logprob=float(log_probs[-1, token]))})
            found.append(token)
            if token in params.stop_token_ids:
                break
        scores = None
        if params.prompt_logprobs is not None:
            targets = zip(self._log_probs(embedded)[:-1], ids[1:], strict=True)
            scores = [None, *({t: SimpleNamespace(logprob=float(p[t]))} for p, t in targets)]
        answer = SimpleNamespace(token_ids=found, logprobs=steps)
        return SimpleNamespace(outputs=[answer], prompt_logprobs=scores)

    def _log_probs(self, embedded: torch.Tensor) -> torch.Tensor:
        output = self._model.network(inputs_embeds=embedded.unsqueeze(0), use_cache=False)
        return output.logits[0].float().log_softmax(-1)


def install(monkeypatch: Any) -> type[LLM]:
    """Make `import vllm` find this module's classes, as on a machine without a GPU."""
    vllm, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    vllm.__spec__ = ModuleSpec("vllm", None)
    vllm.__dict__.update(LLM=LLM, SamplingParams=SamplingParams)
    platforms.__dict__["current_platform"] = SimpleNamespace(device_type="cpu")
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr(LLM, "alive", 0)
    return LLM
