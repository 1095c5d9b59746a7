"""Generate and score labels with vLLM, from prompts of embeddings.

vLLM holds the weights; of the model only the embedding table is loaded here. Every token goes in as
its embedding, with token ids that vLLM reads for two purposes: as the targets of prompt
log-probabilities, which score a label, and as tokens that a repetition penalty counts as seen.

Greedy labels are those of the local engine. Sampled ones are not: vLLM generates its own random
numbers. Needs an environment of its own (docs/labelling.md).
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.errors import ConfigError, LabellingError, ModelError, first_line
from selfie_adapters.extras import extra
from selfie_adapters.inference.generate import Generated, quote_tokens
from selfie_adapters.model import BoundPrompt, FrozenModel

# What the user has set stays.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    # In one process the engine forms the same batches in every run, so that a resumed run equals
    # an uninterrupted one to the last digit; with a second process they depend on timing.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # forked workers hang with prompts of embeddings
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # other work on the machine shares its cores
}
_SHARE_OF_FREE_MEMORY = 0.85
_ROWS = 256
# On a CPU, where vLLM allocates a row's cache in blocks of 128 tokens: more than a label needs.
_CPU_BLOCK = 32
_CPU_CACHE = 1 << 30  # bytes
_TOLERANCE = 0.1  # nats, between a prompt of token ids and the same prompt of embeddings


LOADS_MODEL = True


def make_engine(model: FrozenModel, prompt: BoundPrompt, settings: LabelSettings) -> VllmEngine:
    return VllmEngine(model, prompt, settings.max_new_tokens, settings.device)


class VllmEngine:
    """Implements `labelling.engines.base.Engine`; `close` releases the weights."""

    def __init__(
        self,
        model: FrozenModel,
        prompt: BoundPrompt,
        max_new_tokens: int = 30,
        device: str | None = None,
    ) -> None:
        """model: with `embedding_only`, or loaded completely. max_new_tokens: the longest label.

        device: None is the kind that the installed vLLM was built for, and the only one it can use.
        Raises MissingExtraError, ConfigError, and ModelError for a model that vLLM cannot take or
        whose embeddings it treats in another way than transformers.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._prompt = prompt
        self._stops = quote_tokens(model).nonzero().flatten().tolist()
        self._embedding = model.embedding
        self._template = self._embed(prompt.ids)
        with _quiet(), extra("vllm", "--engine vllm"):
            self._vllm: Any = import_module("vllm")
            kind = import_module("vllm.platforms").current_platform.device_type
        if device not in (None, kind):
            raise ConfigError(
                f"device is {device}; the installed vLLM runs on {kind} only. Omit --device "
                "(CUDA_VISIBLE_DEVICES chooses among GPUs), or use --engine local."
            )
        options = {
            "model": model.network.name_or_path,
            "revision": model.revision,
            "enable_prompt_embeds": True,
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_model_len": len(prompt.ids) + max_new_tokens + 1,
            "max_num_seqs": _ROWS,
            # What is cached depends on what ran before, which a resumed run would not repeat.
            "enable_prefix_caching": False,
            "generation_config": "vllm",  # not the model's own sampling settings
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **(_cpu_options() if kind == "cpu" else _gpu_options()),
        }
        self._engine: Any = None
        try:
            with _quiet(kind):
                self._engine = self._vllm.LLM(**options)
            self._check_embeddings(model.name)
        except ModelError:
            self.close()
            raise
        except Exception as error:  # vLLM raises whatever it stumbles over
            self.close()
            raise ModelError(
                f"{model.name}: vLLM cannot load it ({_one_line(error)}). Set "
                "VLLM_LOGGING_LEVEL=INFO to see its log, or use --engine local."
            ) from error
        except BaseException:
            self.close()
            raise

    def generate(
        self, soft_tokens: Tensor, seeds: Sequence[int], sampling: Sampling
    ) -> list[Generated]:
        stops = {self._prompt.end_id, *(self._stops if sampling.stop_at_quote else ())}
        # The penalty is for tokens of the label. The placeholder is one that a label never has.
        seen = [self._prompt.placeholder_id] * len(self._prompt.ids)
        prompts = [self._of_embeddings(self._with(row), seen) for row in soft_tokens]
        parameters = [
            self._vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                repetition_penalty=sampling.repetition_penalty,
                max_tokens=sampling.max_new_tokens,
                seed=seed,
                stop_token_ids=list(stops),
                ignore_eos=True,  # the prompt states which token ends an answer
                logprobs=0,  # of the token generated, before temperature and penalties
                detokenize=False,
            )
            for seed in seeds
        ]
        answers = [output.outputs[0] for output in self._run(prompts, parameters)]
        found = []
        for answer in answers:
            ids = list(answer.token_ids)
            gained = [step[token].logprob for token, step in zip(ids, answer.logprobs, strict=True)]
            found.append(Generated(ids, float(sum(gained)), ids[-1] in stops))
        return found

    def prefill(self, soft_tokens: Tensor) -> Tensor:
        """Nothing is computed before the labels are known: vLLM reads prompt and label at once."""
        return soft_tokens

    def score(
        self, read: Tensor, answers: Sequence[Sequence[int]], owners: Tensor | None = None
    ) -> list[float]:
        belongs = [0] * len(answers) if owners is None else owners.tolist()
        pairs = [(owner, tuple(ids)) for owner, ids in zip(belongs, answers, strict=True)]
        different = list(dict.fromkeys(pairs))
        prompts = [
            self._of_embeddings(
                torch.cat([self._with(read[owner]), self._embed(ids)]), [*self._prompt.ids, *ids]
            )
            for owner, ids in different
        ]
        scores = [sum(found[len(self._prompt.ids) :]) for found in self._prompt_log_probs(prompts)]
        table = dict(zip(different, scores, strict=True))
        return [table[pair] for pair in pairs]

    def close(self) -> None:
        """Shut vLLM down and release its memory; a second call does nothing."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.llm_engine.engine_core.shutdown()

    def _check_embeddings(self, name: str) -> None:
        """Raise ModelError unless vLLM reads embeddings as it reads the ids that they are of.

        An architecture may scale or normalize embeddings outside the module that looks them up.
        """
        ids = list(self._prompt.ids)
        by_id, by_embedding = self._prompt_log_probs(
            [{"prompt_token_ids": ids}, self._of_embeddings(self._template, ids)]
        )
        apart = max(abs(a - b) for a, b in zip(by_id, by_embedding, strict=True))
        if not apart <= _TOLERANCE:
            raise ModelError(
                f"{name}: vLLM reads the prompt's embeddings in another way than its token ids "
                f"(log-probabilities are up to {apart:.3g} nats apart, {_TOLERANCE} are allowed). "
                "Use --engine local for this architecture."
            )

    def _prompt_log_probs(self, prompts: list[dict[str, Any]]) -> list[list[float]]:
        """Of each prompt, the log-probability of every token; 0 for the first, which has none."""
        scored = self._vllm.SamplingParams(
            temperature=0.0, max_tokens=1, ignore_eos=True, prompt_logprobs=0, detokenize=False
        )
        found = []
        for prompt, output in zip(prompts, self._run(prompts, scored), strict=True):
            ids = prompt["prompt_token_ids"][1:]
            steps = zip(ids, output.prompt_logprobs[1:], strict=True)
            found.append([0.0, *(step[token].logprob for token, step in steps)])
        return found

    def _run(self, prompts: list[dict[str, Any]], parameters: Any) -> list[Any]:
        if self._engine is None:
            raise LabellingError("vLLM has been shut down. Start the command again to resume.")
        try:
            return self._engine.generate(prompts, parameters, use_tqdm=False)
        except BaseException as error:
            self.close()  # requests that are not finished would come back with the next ones
            if not isinstance(error, Exception):
                raise
            raise LabellingError(
                f"vLLM failed: {first_line(error)} Finished labels are kept; start the command "
                "again to resume. A smaller --batch-size needs less memory."
            ) from error

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """[tokens, d_model], on the CPU."""
        device = next(self._embedding.parameters()).device
        with torch.inference_mode():
            return self._embedding(torch.tensor([list(ids)], device=device))[0].cpu()

    def _with(self, soft_token: Tensor) -> Tensor:
        """The prompt's embeddings with a soft token in place of each placeholder."""
        embedded = self._template.clone()
        embedded[list(self._prompt.sites)] = soft_token.to(embedded)
        return embedded

    @staticmethod
    def _of_embeddings(embedded: Tensor, ids: Sequence[int]) -> dict[str, Any]:
        """A prompt for vLLM of which no token is looked up."""
        return {
            "prompt_embeds": embedded,
            "prompt_token_ids": list(ids),
            "prompt_is_token_ids": [False] * len(ids),
        }


def _one_line(error: Exception) -> str:
    """pydantic states what is wrong with an option on the lines after the first."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _cpu_options() -> dict[str, Any]:
    return {
        "block_size": _CPU_BLOCK,
        "kv_cache_memory_bytes": _CPU_CACHE,
        "enforce_eager": True,  # compiling takes longer than most runs, and a compiler
    }


def _gpu_options() -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": free / total * _SHARE_OF_FREE_MEMORY}


@contextmanager
def _quiet(kind: str = "") -> Iterator[None]:
    """Inside, vLLM prints no warnings while it starts, unless the user asked for its log."""
    if os.environ["VLLM_LOGGING_LEVEL"] != _ENVIRONMENT["VLLM_LOGGING_LEVEL"]:
        yield
        return
    logging.getLogger("vllm").setLevel(logging.ERROR)  # it warns before it configures its log
    with warnings.catch_warnings(), _no_stderr() if kind == "cpu" else nullcontext():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what is written to file descriptor 2: vLLM's CPU extension warns there, with no switch.

    Errors come as exceptions.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
