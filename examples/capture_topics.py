"""What a model holds after a question about a topic, and how alike that is for several topics.

    python examples/capture_topics.py owl bee volcano --layer 15

All topic vectors share a large part that says "a question was asked"; the cosines differ little
until the mean over many topics (here those of data/sample) is taken away.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from selfie_adapters import load_model
from selfie_adapters.sources import Topic, read_topics, topic_vectors
from selfie_adapters.sources.topics.reading import topic_texts

SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def show_cosines(title: str, names: list[str], vectors: Tensor) -> None:
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    print(title)
    for name, row in zip(names, (unit @ unit.T).tolist(), strict=True):
        print(f"  {name:12}" + "".join(f"{cosine:8.3f}" for cosine in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["owl", "bee", "volcano"])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layer", type=int, help="block to read; the middle one if not given")
    args = parser.parse_args()

    model = load_model(args.model)
    layer = model.n_layers // 2 if args.layer is None else args.layer
    topics = [Topic((), name=name) for name in args.names] + read_topics(SAMPLE / "topics.jsonl")
    texts = topic_texts(model, topics, "Tell me about {}.", "template")
    captured = topic_vectors(model, texts, [layer])[:, 0]  # [topics, d_model]
    asked, others = captured[: len(args.names)], captured[len(args.names) :]
    print(f"{model.name}, layer {layer}, last token of: {texts[0]!r}")
    show_cosines("as captured", args.names, asked)
    show_cosines("minus the mean topic", args.names, asked - others.mean(dim=0))


if __name__ == "__main__":
    main()
