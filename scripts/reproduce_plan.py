"""What reproduce.py runs, as lists of steps that can run side by side.

To add a protocol, add one more step to a list; its table is what `selfie eval` prints.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from reproduce_kinds import Trainings, vector_file, vectors_at
from reproduce_sizes import Size
from reproduce_steps import TOPICS, Step, evaluate, prepare

from selfie_adapters.evaluation.naming.retrieval import CANDIDATES
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.sources.topics.reading import packaged_topics

DEMO_SAE = Path("src/selfie_adapters/sources/sae/demo_sae")
PASSAGES = "passages.jsonl"
"""What the demo SAE did not learn from; detection and fuzzing are on it."""
JUDGED = ("detection", "fuzzing")


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


def stages(folder: Path, size: Size, protocols: list[str]) -> Iterator[list[Step]]:
    """The steps, in lists whose steps do not need each other; each list is made from the results
    of those before it, so they must be done before it is asked for.

    protocols: those there are; steps of others are omitted.
    """
    for stage in _stages(folder, size):
        yield [step for step in stage if not step.protocol or step.protocol in protocols]


def _stages(folder: Path, size: Size) -> Iterator[list[Step]]:
    nouns = folder / "nouns/nouns.json"
    passages = Step(
        "passages",
        ("--out", str(folder / PASSAGES)),
        folder / PASSAGES,
        script="scripts/demo_sae_texts.py",
        needed_for=JUDGED,
    )
    yield [
        prepare(folder, "vectors of nouns", nouns, size.layers, "-1,name"),
        passages,
        *(vectors_at(folder, place) for place in size.places),
    ]
    judged = passages.makes.exists()
    places = {place: Trainings(folder, size, place) for place in size.places}
    first_seeds = _all(trainings.of_rates() for trainings in places.values())
    sae_labels = [_sae_labels(folder)] if judged else []
    yield [*_of_the_shipped_set(folder, size, nouns), *sae_labels, *first_seeds]
    # where one is missing, what comes next is not known
    places = {place: one for place, one in places.items() if one.rates_are_chosen()}
    first = size.places[0]
    before, after = (
        [trainings for place, trainings in places.items() if (place == first) is is_first]
        for is_first in (True, False)
    )
    yield [
        *(_judged(folder, size) if judged else []),
        *_all(one.of_other_seeds() for one in before),
    ]
    # of one place while those of another are trained: the last stage has steps for all cores
    yield [
        *_all(one.evaluations() for one in before),
        *_all(one.of_other_seeds() for one in after),
    ]
    taboo = evaluate(
        folder,
        "taboo",
        f"What the model knows without the vector (nouns of block {first.layer})",
        ("--topics", "concepts", "--retrieval", str(folder / f"retrieval_{first.name}")),
        ("--chat-model", "demo", "--max-tokens", "60"),
    )
    looked_up = [taboo] if before else []  # its labels are those of the first place
    yield [*looked_up, *_all(one.evaluations() for one in after)]


def _all(lists: Iterable[list[Step]]) -> list[Step]:
    return [step for steps in lists for step in steps]


def _of_the_shipped_set(folder: Path, size: Size, nouns: Path) -> Iterator[Step]:
    """What is measured of the adapters that come with the package."""
    yield evaluate(
        folder,
        "naming",
        "The shipped set: names of test nouns by block, with every control",
        (str(nouns), "--adapter", "demo", "--layers", size.layers),
        ("--limit", str(size.nouns), "--retrieval", "0"),
    )
    for place in size.places:
        # the slowest part, so one kind of position is enough
        if place.position == "name" and size.nouns >= CANDIDATES:
            yield evaluate(
                folder,
                "naming",
                f"Block {place.layer}, own token: own name among 60, and among names that begin "
                "with the same token",
                (str(vector_file(folder, place)), "--adapter", "demo"),
                ("--limit", str(CANDIDATES), "--retrieval", str(CANDIDATES)),
                name=f"spelling_{place.name}",
            )
    yield evaluate(
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
        yield evaluate(folder, name, title, (str(nouns), "--adapter", "demo"), pairs)
    yield evaluate(
        folder,
        "scoring",
        "Generation scoring: do conversations from a label activate the latent?",
        ("--adapter", "demo", "--labels-file", str(DEMO_SAE / "labels.json"), "--split", "test"),
        ("--limit", str(size.latents), "--scales", "1", "--untrained-scales", "2.1"),
        ("--label-tokens", "12", "--label-temperature", "0"),
        ("--conversations", str(size.conversations)),
        ("--conversation-tokens", str(size.conversation_tokens)),
    )
    bridge = (
        *("--model", "demo", "--adapter", "demo", "--layers", size.read_layers),
        *("--limit", str(size.questions), "--samples", str(size.samples)),
        *("--temperature", "0.0" if size.samples == 1 else "0.7"),
        *("--max-new-tokens", "10", "--untrained-scales", "2.1", "--no-random", "--keep-labels"),
    )
    yield evaluate(
        folder,
        "bridge",
        "Bridge entities, minus the mean of block and kind of position",
        bridge,
    )
    yield evaluate(
        folder,
        "bridge",
        "Bridge entities, minus the mean of the other questions of the category",
        (*bridge, "--mean", "questions"),
        name="bridge_of_questions",
    )


def _sae_labels(folder: Path) -> Step:
    """The shipped set's labels of the demo SAE's test latents."""
    out = folder / "sae_labels"
    return Step(
        "sae_labels",
        (
            *("eval", "scoring", "--evaluation-mode", "label_generation_only", "--adapter", "demo"),
            *("--labels-file", str(DEMO_SAE / "labels.json"), "--split", "test"),
            *("--scales", "1", "--out", str(out)),
            *("--label-tokens", "12", "--label-temperature", "0", "--conditions", "trained"),
        ),
        out / "results.json",
    )


def _judged(folder: Path, size: Size) -> Iterator[Step]:
    """Detection and fuzzing of these labels, on passages that are fetched with npm."""
    labels = ("--labels", f"adapter={_sae_labels(folder).makes.parent / 'trained_labels.jsonl'}")
    for task in JUDGED:
        yield evaluate(
            folder,
            "detection",
            f"{task.capitalize()}: does a label tell which passages activate its latent?",
            ("--texts", str(folder / PASSAGES), *labels),
            ("--task", task, "--judge-by", "likelihood"),
            ("--calibration-labels", str(DEMO_SAE / "labels.json")),
            ("--limit", str(size.latents), "--windows", str(size.windows)),
            name=task,
        )
