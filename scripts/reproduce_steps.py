"""The steps of reproduce.py: each is a name, one command of `selfie`, and the file that it makes.

To add a protocol, yield one more `Step`; its table is what `selfie eval` prints.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduce_sizes import Size, TrainingPoint

from selfie_adapters.evaluation.naming.retrieval import CANDIDATES
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.sources.topics.reading import packaged_topics
from selfie_adapters.training.run_reading import read_run

DEMO_SAE = Path("src/selfie_adapters/sources/sae/demo_sae")
CONFIG = "training/configs/smollm2_topics.yaml"
RANK = 32
TOPICS = "topics.jsonl"
PASSAGES = "passages.jsonl"
"""What the demo SAE did not learn from; detection and fuzzing are on it."""


@dataclass(frozen=True)
class Step:
    """command: arguments of `selfie`, or of `script`. makes: the file that is there when the step
    is done.

    title: heading of its table; "" for a step without one. resume: the command that continues it,
    where that is another one; `begun` is the file that shows that it has begun. needed_for: names
    of the steps that are omitted, without being failures, if this one does not succeed.
    """

    name: str
    command: tuple[str, ...]
    makes: Path
    title: str = ""
    resume: tuple[str, ...] = ()
    begun: Path | None = None
    script: str = ""
    needed_for: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The command as a user types it."""
        return self.as_typed(self.command)

    def as_typed(self, command: Sequence[str]) -> str:
        return shlex.join([*(("python", self.script) if self.script else ("selfie",)), *command])

    @property
    def protocol(self) -> str:
        """The evaluation protocol; "" for other commands."""
        return "" if self.script or self.command[0] != "eval" else self.command[1]


KINDS: dict[str, tuple[str, ...]] = {
    "scale_only": (),
    "scalar_affine": (),
    "low_rank_only": ("--low-rank-rank", str(RANK)),
    "scalar_affine_plus_low_rank": ("--low-rank-rank", str(RANK)),
    "full_rank": (),
}
UNTRAINED = ("--untrained-scales", "0.8,1.3,2.1")


def write_topics(folder: Path, size: Size) -> None:
    """Write topics.jsonl: nouns drawn at random by split, with names and synonyms as labels.

    Glosses are omitted: a short training learns how they look, not what they say.
    """
    topics = packaged_topics()
    random.Random(0).shuffle(topics)
    counts = {"train": size.train, "val": size.held_out, "test": size.held_out}
    rows = []
    for split, count in counts.items():
        for topic in [one for one in topics if one.split == split][:count]:
            labels = [label for label in topic.labels if ", " not in label]
            rows.append({"name": topic.name, "labels": labels, "split": split})
    write_jsonl(folder / TOPICS, rows)


def all_steps(folder: Path, size: Size, protocols: list[str]) -> Iterator[Step]:
    """The steps in order; later ones are made from the results of earlier ones, so each must be
    done before the next is asked for. protocols: those there are; steps of others are omitted."""
    for step in _steps(folder, size):
        if not step.protocol or step.protocol in protocols:
            yield step


def _steps(folder: Path, size: Size) -> Iterator[Step]:
    nouns = folder / "nouns/nouns.json"
    yield _prepare(folder, "vectors of nouns", nouns, size.layers, "-1,name")
    yield _evaluate(
        folder,
        "naming",
        "The shipped set: names of test nouns by block, with every control",
        (str(nouns), "--adapter", "demo", "--layers", size.layers),
        ("--limit", str(size.nouns), "--retrieval", "0"),
    )
    if size.nouns >= CANDIDATES:
        yield _evaluate(
            folder,
            "naming",
            "Own name among 60, and among names that begin with the same token",
            (str(nouns), "--adapter", "demo", "--layers", size.spelled),
            ("--limit", str(CANDIDATES), "--retrieval", str(CANDIDATES)),
            name="spelling",
        )
    yield _evaluate(
        folder,
        "inversion",
        "Text inversion: prompts that describe a concept without naming it",
        ("--adapter", "demo", "--layers", "12,24", "--limit", str(size.nouns)),
    )
    for name, title in (
        ("composition", "Two concepts in one vector: is the label complete?"),
        ("sensitivity", "Does the label follow the vector?"),
    ):
        pairs = ("--pairs", str(size.pairs))
        yield _evaluate(folder, name, title, (str(nouns), "--adapter", "demo"), pairs)
    for place in size.places:
        yield from _kinds(folder, size, place)
    first = size.places[0]
    yield _evaluate(
        folder,
        "taboo",
        f"What the model knows without the vector (nouns of block {first.layer})",
        ("--topics", "concepts", "--retrieval", str(folder / f"retrieval_{first.name}")),
        ("--chat-model", "demo", "--max-tokens", "60"),
    )
    yield _evaluate(
        folder,
        "scoring",
        "Generation scoring: do conversations from a label activate the latent?",
        ("--adapter", "demo", "--labels-file", str(DEMO_SAE / "labels.json"), "--split", "test"),
        ("--limit", str(size.latents), "--scales", "1", "--untrained-scales", "2.1"),
        ("--label-tokens", "12", "--label-temperature", "0"),
        ("--conversations", str(size.conversations)),
        ("--conversation-tokens", str(size.conversation_tokens)),
    )
    yield from _judged(folder, size)
    bridge = (
        *("--model", "demo", "--adapter", "demo", "--layers", size.read_layers),
        *("--limit", str(size.questions), "--samples", str(size.samples)),
        *("--temperature", "0.0" if size.samples == 1 else "0.7"),
        *("--max-new-tokens", "10", "--untrained-scales", "2.1", "--no-random", "--keep-labels"),
    )
    yield _evaluate(
        folder,
        "bridge",
        "Bridge entities, minus the mean of block and kind of position",
        bridge,
    )
    yield _evaluate(
        folder,
        "bridge",
        "Bridge entities, minus the mean of the other questions of the category",
        (*bridge, "--mean", "questions"),
        name="bridge_of_questions",
    )


def _judged(folder: Path, size: Size) -> Iterator[Step]:
    """Detection and fuzzing of the shipped set's labels, on passages that are fetched with npm."""
    passages, tasks = folder / PASSAGES, ("detection", "fuzzing")
    yield Step(
        "passages",
        ("--out", str(passages)),
        passages,
        script="scripts/demo_sae_texts.py",
        needed_for=tasks,
    )
    if not passages.exists():
        return
    labels = str(DEMO_SAE / "labels.json")
    out = folder / "sae_labels"
    yield Step(
        "sae_labels",
        (
            *("eval", "scoring", "--evaluation-mode", "label_generation_only", "--adapter", "demo"),
            *("--labels-file", labels, "--split", "test", "--scales", "1", "--out", str(out)),
            *("--label-tokens", "12", "--label-temperature", "0", "--conditions", "trained"),
        ),
        out / "results.json",
    )
    for task in tasks:
        yield _evaluate(
            folder,
            "detection",
            f"{task.capitalize()}: does a label tell which passages activate its latent?",
            ("--texts", str(passages), "--labels", f"adapter={out / 'trained_labels.jsonl'}"),
            ("--task", task, "--judge-by", "likelihood", "--calibration-labels", labels),
            ("--limit", str(size.latents), "--windows", str(size.windows)),
            name=task,
        )


def _prepare(
    folder: Path,
    name: str,
    file: Path,
    layers: str,
    positions: str,
    extra: tuple[str, ...] = (),
) -> Step:
    command = (
        *("prepare", "topics", str(folder / TOPICS), "--model", "demo", "--layers", layers),
        *("--positions", positions, "--chat", "bare"),
        *extra,
        *("--out", str(file), "--overwrite"),
    )
    return Step(name, command, file)


def _evaluate(
    folder: Path, protocol: str, title: str, *options: tuple[str, ...], name: str = ""
) -> Step:
    out = folder / (name or protocol)
    given = [one for some in options for one in some]
    command = ("eval", protocol, *given, "--out", str(out))
    return Step(name or protocol, command, out / "results.json", title)


def _kinds(folder: Path, size: Size, place: TrainingPoint) -> Iterator[Step]:
    """Every kind at one place: vectors, trainings, loss and retrieval of all on test nouns."""
    file = folder / place.name / "nouns.json"
    inside = ("--frames-per-topic", "1", "--no-concept", "0") if place.position == "name" else ()
    name = f"vectors at {place.name}"
    yield _prepare(folder, name, file, str(place.layer), place.position, inside)
    adapters: dict[str, Path] = {}
    for kind in KINDS:
        tried = [_train(folder, size, place, kind, rate, size.seeds[0]) for rate in size.rates]
        yield from tried
        if not all(step.makes.exists() for step in tried):
            return  # what comes next is not known before they are done
        rate = chosen_rate(folder, size, place, kind)
        chosen = [_train(folder, size, place, kind, rate, seed) for seed in size.seeds]
        yield from chosen[1:]
        for seed, step in zip(size.seeds, chosen, strict=True):
            adapters[f"{kind}-{seed}"] = step.makes
    named = [one for name, path in adapters.items() for one in ("--adapters", f"{name}={path}")]
    at = "the noun’s own token" if place.position == "name" else "last token"
    where = f"block {place.layer}, {at}"
    yield _evaluate(
        folder,
        "loss",
        f"Every kind, {where}: loss of test names",
        ("--model", "demo", *named, "--datasets", f"nouns={file}", "--split", "test"),
        ("--limit", str(size.test), *UNTRAINED, "--choose-on", str(size.chosen_on)),
        name=f"loss_{place.name}",
    )
    yield _evaluate(
        folder,
        "retrieval",
        f"Every kind, {where}: retrieval of test nouns",
        ("--model", "demo", *named, "--vectors", str(file), "--split", "test"),
        ("--limit", str(size.test), "--topics", "concepts", "--max-new-tokens", "12", *UNTRAINED),
        ("--choose-on", str(size.chosen_on)),
        name=f"retrieval_{place.name}",
    )
    yield _evaluate(
        folder,
        "naming",
        f"Every kind, {where}: names of test nouns",
        (str(file), *named, "--limit", str(size.test), "--retrieval", "0"),
        name=f"naming_{place.name}",
    )


def _train(
    folder: Path, size: Size, place: TrainingPoint, kind: str, rate: float, seed: int
) -> Step:
    runs = folder / "runs" / place.name
    name = f"{kind}-rate{rate:g}-seed{seed}"
    command = (
        *("train", "--config", CONFIG, "--experiment-name", name, "--seed", str(seed)),
        *("--labels-file", str(folder / place.name / "nouns.json")),
        *("--adapter-kind", kind, *KINDS[kind], "--adapter-init", "closed_form"),
        *("--learning-rate", f"{rate:g}"),
        # One of d² entries moves a soft token with d others.
        *(("--direction-learning-rate", f"{rate / 10:g}") if kind == "full_rank" else ()),
        *("--batch-size", str(size.batch), "--max-steps", str(size.steps), "--num-epochs", "100"),
        *("--validation-every-n-steps", str(size.steps), "--val-fraction", "0.15"),
        *("--checkpoint-dir", str(runs)),
    )
    run = runs / name
    return Step(
        f"train {kind} at {place.name}, rate {rate:g}, seed {seed}",
        command,
        run / "adapter_final.safetensors",
        resume=("train", "--resume", str(run)),
        begun=run / "adapter_last.safetensors",
    )


def chosen_rate(folder: Path, size: Size, place: TrainingPoint, kind: str) -> float:
    """The rate with the lowest validation loss of the first seed, the first of equal ones."""
    losses = rate_losses(folder, size, place, kind)
    return min(losses, key=lambda rate: losses[rate])


def rate_losses(folder: Path, size: Size, place: TrainingPoint, kind: str) -> dict[float, float]:
    """Validation loss by rate, of the first seed."""
    found = {}
    for rate in size.rates:
        run = _train(folder, size, place, kind, rate, size.seeds[0]).makes.parent
        best = read_run(run).best
        found[rate] = float("inf") if best is None else best[1]
    return found
