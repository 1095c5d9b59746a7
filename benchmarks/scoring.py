"""Labels scored per minute, ours and the baseline, same labels and same conversations.

    python benchmarks/scoring.py            # SmolLM2 and an SAE of 16,384 random latents
    python benchmarks/scoring.py --small    # a random model of three blocks, seconds

Plain: `model.generate` over the whole template, ten conversations of a label at a time, until all
have ended; then each conversation alone through all blocks with all logits, and `sae.encode` for
all latents. `plain_padded` scores a label's ten in one padded batch instead. The plain
ways take transformers' own temperature and top-p, and then our draws through a logits processor,
so the conversations are the same but for rounding; each way scores its own. The result is one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from train_step import machine, wait_for
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.evaluation.scoring.conversations import (
    BEGUN,
    ChatTokens,
    Writing,
    chat_tokens,
    parse_conversation,
    requests_for,
    write_conversations,
)
from selfie_adapters.evaluation.scoring.maximum_activations import maximum_activations
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.inference.generate import row_uniforms
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.model.chat_format import end_of_turn
from selfie_adapters.model.tokens import token_id
from selfie_adapters.sources.sae.encoder import LatentEncoder, encoder_of

ROOT = Path(__file__).parents[1]
CONCEPTS = ROOT / "src/selfie_adapters/sources/topics/concepts.jsonl"
SMALL = ROOT / "tests/golden/llama/model"
Scores = list[list[tuple[bool, bool]]]  # label → conversation → hit anywhere, hit in the content


class _SameDraws(LogitsProcessor):
    """After transformers' own temperature and top-p: leaves the token that our draw falls on."""

    def __init__(self, uniforms: Tensor, prompt: int) -> None:
        self._uniforms, self._prompt = uniforms, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = scores.topk(min(256, scores.shape[1]), dim=-1).indices.sort(dim=-1).values
        ranked, order = scores.gather(1, tokens).sort(dim=-1, descending=True, stable=True)
        ladder = ranked.softmax(dim=-1).cumsum(dim=-1)
        step = self._uniforms[:, input_ids.shape[1] - self._prompt].unsqueeze(1)
        place = torch.searchsorted(ladder, step * ladder[:, -1:], right=True)
        chosen = tokens.gather(1, order.gather(1, place.clamp(max=ladder.shape[1] - 1)))
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def random_sae(d_in: int, d_sae: int, layer: int) -> Any:
    """A JumpReLU SAE of SAELens with random weights: its cost is that of a trained one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAELens' own libraries warn as they are imported
        from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
        from sae_lens.saes.sae import SAEMetadata
    torch.manual_seed(0)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae))
    sae.cfg.metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
    return sae


@torch.inference_mode()
def plain_writing(model: FrozenModel, label: str, how: Writing) -> list[str]:
    requests = requests_for([label], how, seed=0)
    turns = [message._asdict() for message in requests[0].messages]
    tokenizer = model.tokenizer
    prompt = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    ids = tokenizer.encode(prompt + BEGUN, add_special_tokens=False)
    rows = torch.tensor([ids]).expand(len(requests), -1).to(model.device)
    uniforms = row_uniforms([request.seed for request in requests], how.max_tokens)
    ends = [model.network.generation_config.eos_token_id, tokenizer.eos_token_id]
    if end := end_of_turn(tokenizer):
        ends.append(token_id(tokenizer, end))
    written = model.network.generate(
        rows,
        attention_mask=torch.ones_like(rows),
        do_sample=False,
        max_new_tokens=how.max_tokens,
        logits_processor=LogitsProcessorList(
            [
                TemperatureLogitsWarper(how.temperature),
                TopPLogitsWarper(how.top_p),
                _SameDraws(uniforms.to(rows.device), len(ids)),
            ]
        ),
        eos_token_id=sorted({end for end in ends if isinstance(end, int)}),
        pad_token_id=tokenizer.eos_token_id,
    )
    texts = tokenizer.batch_decode(written[:, len(ids) :], skip_special_tokens=True)
    return [f"{BEGUN}{text}" if text.strip() else "" for text in texts]


def tokens_of(model: FrozenModel, texts: Sequence[str]) -> list[ChatTokens]:
    return [chat_tokens(model.tokenizer, parse_conversation(text)) for text in texts if text]


@torch.inference_mode()
def plain_scoring(
    model: FrozenModel, sae: Any, layer: int, latent: int, batches: Sequence[list[ChatTokens]]
) -> list[tuple[bool, bool]]:
    """Whole network, all logits, all latents, for each batch of conversations."""
    hits = []
    for batch in batches:
        width = max(len(one.ids) for one in batch)
        ids = torch.tensor([[*one.ids, *[0] * (width - len(one.ids))] for one in batch])
        mask = torch.tensor([[1] * len(o.ids) + [0] * (width - len(o.ids)) for o in batch])
        out = model.network(
            ids.to(model.device), attention_mask=mask.to(model.device), output_hidden_states=True
        )
        activations = sae.encode(out.hidden_states[layer + 1].float())[..., latent].tolist()
        for values, one in zip(activations, batch, strict=True):
            said = [value for value, content in zip(values, one.content, strict=False) if content]
            hits.append((max(values[1 : len(one.ids)]) > 0, max(said, default=0) > 0))
    return hits


class Ways:
    """The three ways over the same labels; label i is scored at latent i."""

    def __init__(
        self, model: FrozenModel, sae: Any, layer: int, latents: int, how: Writing, batch: int
    ) -> None:
        self.model, self.sae, self.layer, self.how = model, sae, layer, how
        self.encoder: LatentEncoder = encoder_of(sae, range(latents))
        self.chat = InProcessChat(model, batch)
        self.seconds: dict[str, float] = {}

    def ours(self, labels: Sequence[str]) -> tuple[list[list[str]], Scores]:
        started = time.perf_counter()
        written = write_conversations(self.chat, [[label] for label in labels], self.how, seed=0)
        wait_for(self.model)
        self.seconds["ours_writing"] = time.perf_counter() - started
        texts = [groups[0] for groups in written]
        tokens = [tokens_of(self.model, of_label) for of_label in texts]
        owners = [[i] for i, of_label in enumerate(tokens) for _ in of_label]
        maxima = maximum_activations(
            self.model, self.encoder, [one for of in tokens for one in of], torch.tensor(owners)
        )
        hits = iter(zip((maxima.anywhere > 0).tolist(), (maxima.content > 0).tolist(), strict=True))
        scores = [[(a[0], c[0]) for a, c in (next(hits) for _ in of)] for of in tokens]
        self.seconds["ours"] = time.perf_counter() - started
        return texts, scores

    def plain(self, labels: Sequence[str]) -> tuple[list[list[str]], Scores, Scores]:
        """Written once; scored one by one, and again in padded batches."""
        started = time.perf_counter()
        texts = [plain_writing(self.model, label, self.how) for label in labels]
        wait_for(self.model)
        writing = time.perf_counter() - started
        self.seconds["plain_writing"] = writing
        alone, padded = [], []
        for name, found, batched in (("plain", alone, False), ("plain_padded", padded, True)):
            started = time.perf_counter()
            for latent, of_label in enumerate(texts):
                tokens = tokens_of(self.model, of_label)
                batches = [tokens] if batched else [[one] for one in tokens]
                found.append(
                    plain_scoring(self.model, self.sae, self.layer, latent, batches)
                    if tokens
                    else []
                )
            wait_for(self.model)
            self.seconds[name] = writing + time.perf_counter() - started
        return texts, alone, padded


def alike(pairs: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> tuple[int, int]:
    """How many conversations are the same, and of how many."""
    equal = [x == y for mine, theirs in pairs for x, y in zip(mine, theirs, strict=True)]
    return sum(equal), len(equal)


def measure(ways: Ways, labels: Sequence[str], rounds: int) -> dict[str, Any]:
    """Medians over rounds of new labels, after a small one that warms up."""
    size = len(labels) // (rounds + 1)
    seconds: dict[str, list[float]] = {}
    compared: dict[str, list[tuple[Any, Any]]] = {"texts": [], "hits": []}
    for number in range(rounds + 1):
        some = labels[number * size : (number + 1) * size] if number else labels[:1]
        if number % 2:
            texts, hits = ways.ours(some)
            plain_texts, plain_hits, _ = ways.plain(some)
        else:
            plain_texts, plain_hits, _ = ways.plain(some)
            texts, hits = ways.ours(some)
        for mine, theirs, a, b in zip(texts, plain_texts, hits, plain_hits, strict=True):
            compared["texts"].append((mine, theirs))
            if mine == theirs:  # hits of different conversations show nothing about the scoring
                compared["hits"].append((a, b))
        if number:
            for name, value in ways.seconds.items():
                seconds.setdefault(name, []).append(value)
        print(f"round {number}/{rounds}: {ways.seconds}", file=sys.stderr)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    same_texts, texts_compared = alike(compared["texts"])
    same_hits, hits_compared = alike(compared["hits"])
    return {
        "ratio": round(median["plain"] / median["ours"], 2),
        "ratio_plain_padded": round(median["plain_padded"] / median["ours"], 2),
        "ratio_writing": round(median["plain_writing"] / median["ours_writing"], 2),
        **{f"{name}_s": round(value, 3) for name, value in median.items()},
        "labels": size,
        "conversations": size * ways.how.conversations,
        "rounds": rounds,
        "same_texts": same_texts,
        "texts": texts_compared,
        "same_hits": same_hits,
        "hits_compared": hits_compared,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layer", type=int, default=24)
    parser.add_argument("--d-sae", type=int, default=16_384)
    parser.add_argument("--labels", type=int, default=12, help="a round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128, help="conversations written at once")
    parser.add_argument("--small", action="store_true", help="random model of the tests, 2 labels")
    options = parser.parse_args()
    if options.small:
        options.model, options.dtype, options.layer = str(SMALL), "float32", 1
        options.d_sae, options.labels, options.max_tokens = 64, 2, 20
    model = load_model(options.model, options.dtype)
    sae = random_sae(model.d_model, options.d_sae, options.layer)
    how = Writing(max_tokens=options.max_tokens)
    ways = Ways(model, sae, options.layer, options.labels, how, options.batch)
    names = [row["name"] for row in read_jsonl(CONCEPTS)[:: 8000 // 200]]
    result = measure(ways, names[: options.labels * (options.rounds + 1)], options.rounds)
    about = {
        "d_sae": options.d_sae,
        "layer": options.layer,
        "max_tokens": options.max_tokens,
        "batch": options.batch,
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result | about))


if __name__ == "__main__":
    main()
