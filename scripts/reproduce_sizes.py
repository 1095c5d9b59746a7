"""How much of everything reproduce.py runs: the standard size, a quick one, and full length."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPoint:
    """Where the vectors of the compared kinds are taken: block (zero-based) and position."""

    layer: int
    position: str

    @property
    def name(self) -> str:
        return f"block_{self.layer}"


@dataclass(frozen=True)
class Size:
    """How much of everything.

    train, held_out: nouns drawn from the project's 8,000: to train on, and each of val and test.
    layers: blocks at which the shipped set is measured. nouns: test nouns per block. pairs: of
    nouns, two in one vector. places, rates, seeds, steps, batch: of the trainings in which kinds
    are compared; the rate is chosen with the first seed on validation nouns. chosen_on: vectors on
    which an untrained scale is chosen.
    """

    train: int
    held_out: int
    layers: str
    nouns: int
    pairs: int
    places: tuple[TrainingPoint, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    batch: int
    test: int
    chosen_on: int
    latents: int
    conversations: int
    conversation_tokens: int
    windows: int
    questions: int
    samples: int
    read_layers: str


STANDARD = Size(
    train=3000,
    held_out=300,
    layers="8,12,16,20,24",
    nouns=60,
    pairs=30,
    places=(TrainingPoint(12, "name"), TrainingPoint(24, "-1")),
    rates=(0.01, 0.03),
    seeds=(0, 1, 2),
    steps=16,
    batch=32,
    test=50,
    chosen_on=40,
    latents=12,
    conversations=4,
    conversation_tokens=40,
    windows=4,
    questions=20,
    samples=1,
    read_layers="12,16,20",
)
QUICK = Size(
    train=120,
    held_out=24,
    layers="12",
    nouns=4,
    pairs=2,
    places=(TrainingPoint(12, "name"),),
    rates=(0.01, 0.03),
    seeds=(0, 1),
    steps=1,
    batch=8,
    test=4,
    chosen_on=4,
    latents=3,
    conversations=2,
    conversation_tokens=12,
    windows=2,
    questions=2,
    samples=1,
    read_layers="12",
)
FULL = Size(
    train=6400,
    held_out=800,
    layers="8,12,16,20,24,28",
    nouns=200,
    pairs=100,
    places=tuple(TrainingPoint(layer, "name") for layer in (8, 12, 16, 20, 24))
    + tuple(TrainingPoint(layer, "-1") for layer in (26,)),
    rates=(0.003, 0.01, 0.03, 0.1),
    seeds=(0, 1, 2),
    steps=600,
    batch=128,
    test=200,
    chosen_on=100,
    latents=200,
    conversations=10,
    conversation_tokens=100,
    windows=10,
    questions=500,
    samples=10,
    read_layers="4:30:4",
)
SIZES = {"quick": QUICK, "standard": STANDARD, "full": FULL}
