"""Made-up results of `selfie demo`, for tests of what it prints and writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfie_adapters.adapters import create_adapter
from selfie_adapters.commands.demo_measuring import Measured
from selfie_adapters.commands.demo_report import Results
from selfie_adapters.commands.demo_settings import LAST_TOKEN, OWN_TOKEN, QUICK
from selfie_adapters.evaluation.naming.verdicts import Named, Verdict
from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell, Reading
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.training.run_reading import Run

HOSTILE = '<script>document.title="x"</script>\u202e&'
LONG = "a very long label that goes on and on about everything there is in the world"
CONDITIONS = (
    "adapter",
    "zero vector",
    "shuffled",
    "random",
    "untrained",
    "logit lens",
    "cosine",
    "ridge probe",
)
VERDICTS: tuple[Verdict, ...] = ("right", "related", "wrong", "no concept")


def named(condition: str, right: int, topics: int = 20, withheld: int | None = None) -> Named:
    """`right` right labels, then related, wrong and silent ones in turn; one of them withheld."""
    order = [0] * right + [1 + i % 3 for i in range(topics - right)]
    verdicts: list[Verdict] = [VERDICTS[i] for i in order]
    names = [f"concept {i}" for i in range(topics - 2)] + ["a man-of-war of great size", "owl"]
    labels = [f"label {i}" for i in range(topics - 2)] + [LONG, HOSTILE]
    return Named(
        condition,
        f"what <b>{condition}</b> is",
        [Topic((name,), name=name, split="test") for name in names],
        labels,
        verdicts,
        [one == "right" for one in verdicts],
        [False] * topics,
        [one != "no concept" and i != withheld for i, one in enumerate(verdicts)],
    )


def measured(place=OWN_TOKEN, adapter: int = 12, others: int = 1, lens: int = 1) -> Measured:
    """The adapter, and all others with as many right labels, the lens with its own number."""
    right = {"adapter": adapter, "logit lens": lens}
    return Measured(place, [named(one, right.get(one, others)) for one in CONDITIONS])


def reading() -> Reading:
    texts = ["<|im_start|>", "The", " Eiffel", " Tower", " of", HOSTILE, ".", "\n"]
    tokens = tuple(PromptToken(i, i, t, t.startswith("<|")) for i, t in enumerate(texts))
    plan = ReadingPlan("The Eiffel Tower of", "bare", tokens, (12, 20), (1, 2, 3, 4, 5, 6, 7))
    cells = []
    for layer, position in plan.cells():
        label, withheld = "nothing", "no concept"
        if position == 2:
            label, withheld = "Eiffel Tower", None
        elif position == 3:
            label, withheld = LONG, None
        elif position == 5:
            label, withheld = HOSTILE, None
        elif position == 6:
            label, withheld = "furniture", "below threshold"
        cells.append(
            Cell(layer, position, label, label, -2.0, 4, True, 1.0, 0.7, withheld, lens="iff")
        )
    return Reading(plan, tuple(cells))


def results(folder: Path) -> Results:
    adapter = create_adapter("full_rank", 8)
    file = folder / "made-up.safetensors"
    adapter.save(file)
    run = Run(folder, {}, {1: 3.5, 2: 3.0, 3: 2.5}, {2: 3.25, 3: 2.75}, True)
    places = [measured(), measured(LAST_TOKEN, adapter=9, lens=9)]
    size = replace(QUICK, test=20)
    return Results("demo", adapter, file, reading(), places, run, size, {"load": 1.0, "in all": 9})
