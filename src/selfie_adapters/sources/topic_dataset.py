"""From topics to a training file: capture, centre, split, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from selfie_adapters.adapters.containers import safetensors_bytes
from selfie_adapters.dataset import Item, Section, save_dataset, split_indices
from selfie_adapters.errors import DataError
from selfie_adapters.files import check_free
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
    overwrite: bool = False,
) -> Path:
    """Capture the topics' vectors and write a training file with one section a layer.

    Beside `{name}.json` come `{name}_l{layer}.safetensors` (vectors minus the mean over training
    topics) and `{name}_mean.safetensors` (that mean, keys `layer_{layer}`, to be subtracted from
    whatever is labelled later). Returns the path of the training file. Raises DataError, and writes
    nothing, where a topic's vector is NaN or no different from the mean; ConfigError where a file
    exists and `overwrite` is not given.
    """
    path = Path(labels_file)
    name = _name(path)
    if not settings.layers or len(set(settings.layers)) != len(settings.layers):
        raise DataError(f"layers {list(settings.layers)}: give each layer once, and at least one.")
    topic_files(path, settings.layers, overwrite)
    train, val = _split(topics, settings)
    held_out = set(val)
    texts = topic_texts(model, topics, settings.question, settings.chat)
    captured = topic_vectors(model, texts, settings.layers, settings.position, progress)
    means = captured[train].mean(dim=0)  # [layers, d_model]; held-out topics stay out of it
    centred = captured - means
    _check(centred, captured, topics, settings)
    items = [
        Item(i, list(topics[i].labels), topics[i].split or ("val" if i in held_out else "train"))
        for i in [*train, *val]
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
    tensors = {f"layer_{layer}": means[i].clone() for i, layer in enumerate(settings.layers)}
    facts = {"question": settings.question, "chat": settings.chat, "model": model.name}
    facts["position"] = str(settings.position)
    mean = {f"{name}_mean.safetensors": safetensors_bytes(tensors, facts)}
    save_dataset(path, sections, overwrite, mean)
    return path


def topic_files(labels_file: str | Path, layers: Sequence[int], overwrite: bool) -> list[Path]:
    """The files `write_topic_dataset` writes. Raises ConfigError if one exists, unless it may be
    replaced."""
    path = Path(labels_file)
    beside = [f"{_name(path)}_mean", *(f"{_name(path)}_l{layer}" for layer in layers)]
    files = [path, *(path.parent / f"{one}.safetensors" for one in beside)]
    for file in files:
        check_free(file, overwrite)
    return files


def _name(labels_file: Path) -> str:
    return labels_file.name.removesuffix(".gz").removesuffix(".json")


def _split(topics: Sequence[Topic], settings: TopicSettings) -> tuple[list[int], list[int]]:
    """Numbers of the training and the held-out topics: as they state themselves, or sampled.

    Held-out topics are those of "val", then those of "test", which only a source states. A topic
    that occurs more than once (the same name, or the same prompt) is in one of them only.
    """
    first = _first_of_each(topics)
    said = [i for i, topic in enumerate(topics) if topic.split is not None]
    if not said:
        _, val = split_indices(set(first), settings.val_fraction, settings.seed)
        held_out = set(val)
        val = [i for i, one in enumerate(first) if one in held_out]
        return [i for i, one in enumerate(first) if one not in held_out], val
    if len(said) < len(topics):
        missing = next(topic for topic in topics if topic.split is None)
        raise DataError(
            f'the topic "{missing.title}" has no split and {len(said)} others have one. Give all '
            "of them one, or none."
        )
    for i, one in enumerate(first):
        if topics[i].split != topics[one].split:
            raise DataError(
                f'the topic "{topics[i].title}" is in more than one split, so that what is held '
                "out is trained on. Give its rows one split."
            )
    train = [i for i, topic in enumerate(topics) if topic.split == "train"]
    if not train:
        raise DataError('no topic has the split "train".')
    held_out = [i for i, topic in enumerate(topics) if topic.split != "train"]
    return train, sorted(held_out, key=lambda i: topics[i].split == "test")


def _first_of_each(topics: Sequence[Topic]) -> list[int]:
    """For each topic, the first that is the same: by name (case and whitespace aside) or prompt."""
    first = list(range(len(topics)))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    seen: dict[tuple[str, str], int] = {}
    for i, topic in enumerate(topics):
        for kind, text in (("name", topic.name), ("prompt", topic.prompt)):
            if text:
                one, other = sorted((root(seen.setdefault((kind, _plain(text)), i)), root(i)))
                first[other] = one
    return [root(i) for i in range(len(topics))]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


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
