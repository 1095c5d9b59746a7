"""From topics to a training file: capture, centre, split, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from selfie_adapters.dataset import Item, Section, save_dataset, split_indices
from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.user_text import Chat
from selfie_adapters.sources.topic import Topic
from selfie_adapters.sources.topics import topic_texts, topic_vectors

QUESTION = "Tell me about {}."
_ROUNDING = 1e-5  # a centred vector relatively shorter than this is rounding


@dataclass(frozen=True)
class TopicSettings:
    """Where a topic's vector is taken: output of block `layer`, token `position` of the text."""

    layers: tuple[int, ...]
    question: str = QUESTION
    chat: Chat = "template"
    position: int = -1
    val_fraction: float = 0.1
    seed: int = 42


def write_topic_dataset(
    model: FrozenModel,
    topics: Sequence[Topic],
    settings: TopicSettings,
    labels_file: str | Path,
    progress: Callable[[int], None] = lambda _done: None,
) -> Path:
    """Capture the topics' vectors and write a training file with one section a layer.

    Beside `{name}.json` come `{name}_l{layer}.safetensors` (vectors minus the mean over training
    topics) and `{name}_mean.safetensors` (that mean, keys `layer_{layer}`, to be subtracted from
    whatever is labelled later). Returns the path of the training file. Raises DataError, and writes
    nothing, where a topic's vector is NaN or no different from the mean.
    """
    path = Path(labels_file)
    name = path.name.removesuffix(".gz").removesuffix(".json")
    if not settings.layers or len(set(settings.layers)) != len(settings.layers):
        raise DataError(f"layers {list(settings.layers)}: give each layer once, and at least one.")
    train, val = _split(topics, settings)
    held_out = set(val)
    texts = topic_texts(model, topics, settings.question, settings.chat)
    captured = topic_vectors(model, texts, settings.layers, settings.position, progress)
    means = captured[train].mean(dim=0)  # [layers, d_model]; held-out topics stay out of it
    centred = captured - means
    _check(centred, captured, topics, settings)
    items = [
        Item(i, list(topics[i].labels), "val" if i in held_out else "train") for i in [*train, *val]
    ]
    sections = []
    for column, layer in enumerate(settings.layers):
        metadata = {
            "dataset_name": name,
            "filename": f"{name}_l{layer}.safetensors",
            "layer": layer,
            "source": "topics",
            "vector_type": "topic",
            "model": model.name,
            "model_dim": model.d_model,
            "question": settings.question,
            "chat": settings.chat,
            "position": settings.position,
            "mean_file": f"{name}_mean.safetensors",
        }
        sections.append(Section(metadata, centred[:, column], items))
    with atomic_path(path.parent / f"{name}_mean.safetensors") as temporary:
        tensors = {f"layer_{layer}": means[i].clone() for i, layer in enumerate(settings.layers)}
        facts = {"question": settings.question, "chat": settings.chat, "model": model.name}
        save_file(tensors, temporary, {**facts, "position": str(settings.position)})
    save_dataset(path, sections)
    return path


def _split(topics: Sequence[Topic], settings: TopicSettings) -> tuple[list[int], list[int]]:
    """Numbers of the training and the held-out topics: as they say themselves, or drawn."""
    said = [i for i, topic in enumerate(topics) if topic.split is not None]
    if not said:
        return split_indices(range(len(topics)), settings.val_fraction, settings.seed)
    if len(said) < len(topics):
        missing = next(topic for topic in topics if topic.split is None)
        raise DataError(
            f'the topic "{missing.title}" has no split and {len(said)} others have one. Give all '
            "of them one, or none."
        )
    train = [i for i, topic in enumerate(topics) if topic.split == "train"]
    if not train:
        raise DataError('no topic has the split "train".')
    return train, [i for i, topic in enumerate(topics) if topic.split == "val"]


def _check(
    centred: Tensor, captured: Tensor, topics: Sequence[Topic], settings: TopicSettings
) -> None:
    """Raise DataError for a vector that holds nothing about its topic."""
    left = centred.norm(dim=2) / captured.norm(dim=2)  # [n, layers]
    for i, column in (~(left > _ROUNDING)).nonzero().tolist():  # NaN is not greater either
        topic = topics[i]
        alike = bool(left[i, column] <= _ROUNDING)
        what = "is the mean of the training topics" if alike else "is NaN or infinite"
        raise DataError(
            f'the vector of "{topic.name or topic.prompt}" at layer {settings.layers[column]}, '
            f"position {settings.position}, {what}. Give more topics, a position after the "
            "topic's name, or --dtype float32."
        )
