"""Labels a second, ours against plain `model.generate`, on the same model and vectors.

    python benchmarks/labelling.py                              # SmolLM2, untrained soft tokens
    python benchmarks/labelling.py --adapter A --source topics/topics.json --json
    .venv-vllm/bin/python benchmarks/labelling.py --vllm        # the vLLM engine too

Plain: `model.generate(inputs_embeds=…)` over the whole template with the soft token in it, greedy,
until every row of the batch has ended its turn. `plain_stopping` is the same, told to stop a row
at a closing quote. All run in this process, turn by turn, on the same batches; medians and ratios
are printed, and how many labels are the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial

import torch
import transformers
from torch import Tensor
from train_step import machine, show, wait_for

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.dataset import read_label_source
from selfie_adapters.inference.generate import quote_tokens
from selfie_adapters.inference.label_batches import CLOSING_QUOTE
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.model.fingerprint import mean_embedding_norm


@torch.inference_mode()
def plain(
    model: FrozenModel, labeller: Labeller, vectors: Tensor, limit: int, ends: list[int]
) -> list[str]:
    """Greedy labels of the baseline: the strings up to the closing quote."""
    prompt = labeller.prompt
    soft = labeller.soft_tokens(vectors).to(model.device)
    ids = torch.tensor([prompt.ids], device=model.device).expand(len(soft), -1)
    embedded = model.embedding(ids).clone()
    embedded[:, list(prompt.sites)] = soft.unsqueeze(1).to(embedded)
    written = model.network.generate(
        inputs_embeds=embedded,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=ends,
        pad_token_id=prompt.end_id,
    )
    texts = model.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [text.split(CLOSING_QUOTE, 1)[0].strip() for text in texts]


def ours(labeller: Labeller, vectors: Tensor, limit: int) -> list[str]:
    """The same labels by this project, scored over the zero vector as always."""
    labels = labeller.label(vectors, max_new_tokens=limit, batch_size=len(vectors))
    return [label[0].text for label in labels]


def measure(
    model: FrozenModel,
    labeller: Labeller,
    vectors: Tensor,
    batch: int,
    rounds: int,
    limit: int,
    other: Labeller | None = None,
) -> dict[str, object]:
    """Medians over `rounds` batches, each labelled all ways; a small one before them warms up.

    other: a labeller with another engine, measured as "vllm".
    """
    end = labeller.prompt.end_id
    quotes = quote_tokens(model).nonzero().flatten().tolist()
    ways = {
        "ours": lambda some: ours(labeller, some, limit),
        "plain": lambda some: plain(model, labeller, some, limit, [end]),
        "plain_stopping": lambda some: plain(model, labeller, some, limit, [end, *quotes]),
    }
    if other is not None:
        ways["vllm"] = lambda some: ours(other, some, limit)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    same = total = same_vllm = 0
    for index in range(rounds + 1):
        some = vectors[index * batch : (index + 1) * batch] if index else vectors[:8]
        texts = {}
        for way in list(ways) if index % 2 else list(ways)[::-1]:
            started = time.perf_counter()
            texts[way] = ways[way](some)
            wait_for(model)
            if index:
                seconds[way].append(time.perf_counter() - started)
        same += sum(a == b for a, b in zip(texts["ours"], texts["plain"], strict=True))
        if other is not None:
            same_vllm += sum(a == b for a, b in zip(texts["ours"], texts["vllm"], strict=True))
        total += len(some)
        print(f"round {index}/{rounds}: {same} of {total} labels alike", file=sys.stderr)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    of_vllm = {}
    if other is not None:
        of_vllm = {
            "vllm_labels_per_second": round(batch / median["vllm"], 1),
            "ratio_vllm_over_ours": round(median["ours"] / median["vllm"], 2),
            "same_texts_vllm": same_vllm,
        }
    return {
        "ratio": round(median["plain"] / median["ours"], 2),
        "ratio_plain_stopping": round(median["plain_stopping"] / median["ours"], 2),
        "labels_per_second": round(batch / median["ours"], 1),
        "plain_labels_per_second": round(batch / median["plain"], 1),
        "plain_stopping_labels_per_second": round(batch / median["plain_stopping"], 1),
        **of_vllm,
        "same_texts": same,
        "texts": total,
        "prompt_tokens": len(labeller.prompt.ids),
        "shared_tokens": len(labeller.prompt.prefix_ids),
        "batch": batch,
        "rounds": rounds,
        "max_new_tokens": limit,
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--adapter", help="untrained soft tokens if omitted")
    parser.add_argument("--source", help="training or vector file; random directions if omitted")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=30)
    parser.add_argument("--vllm", action="store_true", help="measure the vLLM engine as well")
    parser.add_argument("--json", action="store_true", help="one line with every figure")
    options = parser.parse_args()
    model = load_model(options.model, options.dtype)
    if options.adapter:
        adapter = load_adapter(options.adapter)
    else:
        adapter = create_adapter("scale_only", model.d_model, init_scale=mean_embedding_norm(model))
    labeller, other = Labeller(model, adapter), None
    if options.vllm:
        from selfie_adapters.labelling.engines.vllm import VllmEngine

        alone = load_model(options.model, options.dtype, embedding_only=True)
        engine = partial(VllmEngine, max_new_tokens=options.max_new_tokens)
        other = Labeller(alone, adapter, engine=engine)
    count = options.batch * (options.rounds + 1)
    if options.source:
        vectors = read_label_source(options.source).vectors(0, count)
    else:
        vectors = torch.randn(count, model.d_model, generator=torch.Generator().manual_seed(0))
    size = (options.batch, options.rounds, options.max_new_tokens)
    result = measure(model, labeller, vectors, *size, other)
    if other is not None:
        other.close()
    show(result, options.json)


if __name__ == "__main__":
    main()
