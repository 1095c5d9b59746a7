"""The steps that compare kinds of adapters at one place: block and position of the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reproduce_sizes import Size, TrainingPoint
from reproduce_steps import Step, evaluate, prepare

from selfie_adapters.training.run_reading import read_run

CONFIG = "training/configs/smollm2_topics.yaml"
RANK = 32
KINDS: dict[str, tuple[str, ...]] = {
    "scale_only": (),
    "scalar_affine": (),
    "low_rank_only": ("--low-rank-rank", str(RANK)),
    "scalar_affine_plus_low_rank": ("--low-rank-rank", str(RANK)),
    "full_rank": (),
}
UNTRAINED = ("--untrained-scales", "0.8,1.3,2.1")


def vectors_at(folder: Path, place: TrainingPoint) -> Step:
    file = vector_file(folder, place)
    inside = ("--frames-per-topic", "1", "--no-concept", "0") if place.position == "name" else ()
    name = f"vectors at {place.name}"
    return prepare(folder, name, file, str(place.layer), place.position, inside)


def vector_file(folder: Path, place: TrainingPoint) -> Path:
    return folder / place.name / "nouns.json"


@dataclass(frozen=True)
class Trainings:
    """Every kind at one place: trainings; then loss, retrieval and names of all on test nouns."""

    folder: Path
    size: Size
    place: TrainingPoint

    def of_rates(self) -> list[Step]:
        """Of the first seed, at every rate."""
        return [
            _train(self.folder, self.size, self.place, kind, rate, self.size.seeds[0])
            for kind in KINDS
            for rate in self.size.rates
        ]

    def rates_are_chosen(self) -> bool:
        return all(step.makes.exists() for step in self.of_rates())

    def of_other_seeds(self) -> list[Step]:
        """At the rate that was best with the first seed."""
        first = self.size.seeds[0]
        return [step for (_kind, seed), step in self._chosen().items() if seed != first]

    def _chosen(self) -> dict[tuple[str, int], Step]:
        rates = {kind: chosen_rate(self.folder, self.size, self.place, kind) for kind in KINDS}
        return {
            (kind, seed): _train(self.folder, self.size, self.place, kind, rate, seed)
            for kind, rate in rates.items()
            for seed in self.size.seeds
        }

    def evaluations(self) -> list[Step]:
        size, place, file = self.size, self.place, vector_file(self.folder, self.place)
        adapters = [f"{kind}-{seed}={step.makes}" for (kind, seed), step in self._chosen().items()]
        named = [one for adapter in adapters for one in ("--adapters", adapter)]
        at = "the noun’s own token" if place.position == "name" else "last token"
        where = f"block {place.layer}, {at}"
        return [
            evaluate(
                self.folder,
                "loss",
                f"Every kind, {where}: loss of test names",
                ("--model", "demo", *named, "--datasets", f"nouns={file}", "--split", "test"),
                ("--limit", str(size.test), *UNTRAINED, "--choose-on", str(size.chosen_on)),
                name=f"loss_{place.name}",
            ),
            evaluate(
                self.folder,
                "retrieval",
                f"Every kind, {where}: retrieval of test nouns",
                ("--model", "demo", *named, "--vectors", str(file), "--split", "test"),
                ("--limit", str(size.test), "--topics", "concepts", "--max-new-tokens", "12"),
                (*UNTRAINED, "--choose-on", str(size.chosen_on)),
                name=f"retrieval_{place.name}",
            ),
            evaluate(
                self.folder,
                "naming",
                f"Every kind, {where}: names of test nouns",
                (str(file), *named, "--limit", str(size.test), "--retrieval", "0"),
                name=f"naming_{place.name}",
            ),
        ]


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
        begun=run / "config.yaml",
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
