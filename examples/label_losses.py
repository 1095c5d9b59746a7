"""How well does a vector speak for a label? Its loss, compared with its loss under the zero vector.

    python examples/label_losses.py owl violin "a bird that hunts at night" --topic owl
    python examples/label_losses.py --adapter runs/example/run/adapter_final.safetensors

Common words are likely under any vector. What the vector itself adds is the difference (positive:
it makes the label likelier). The vector is the topic's, minus the mean over data/sample's topics.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from selfie_adapters import SoftPrompt, create_adapter, label_losses, load_adapter, load_model
from selfie_adapters.sources import Topic, read_topics, topic_vectors
from selfie_adapters.sources.topics.reading import topic_texts

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
DEFAULT = ["owl", "violin", "a bird that hunts at night"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="*", default=DEFAULT)
    parser.add_argument("--topic", default="owl")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--adapter", help="adapter file; without one, an untrained adapter")
    parser.add_argument("--layer", type=int, help="block to read; the middle one if not given")
    args = parser.parse_args()

    model = load_model(args.model)
    layer = model.n_layers // 2 if args.layer is None else args.layer
    topics = [Topic((), name=args.topic), *read_topics(SAMPLE / "topics.jsonl")]
    texts = topic_texts(model, topics, "Tell me about {}.", "template")
    captured = topic_vectors(model, texts, [layer])[:, 0]
    vector = captured[0] - captured[1:].mean(dim=0)

    if args.adapter:
        adapter = load_adapter(args.adapter)
    else:
        adapter = create_adapter("scalar_affine", model.d_model, init_scale=5.0)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    count = len(args.labels)
    with torch.no_grad():
        rows = vector.expand(count, -1)
        given = label_losses(model, prompt, adapter, rows, args.labels)
        zero = label_losses(model, prompt, adapter, torch.zeros_like(rows), args.labels)
    print(f"nats per token under the vector of {args.topic!r}, layer {layer}")
    print("vector    zero  difference  label")
    for label, a, b in zip(args.labels, given.tolist(), zero.tolist(), strict=True):
        print(f"{a:6.3f}  {b:6.3f}  {b - a:+10.3f}  {label}")


if __name__ == "__main__":
    main()
