"""The retrieval protocol: labels of held-out vectors find their topics, beside controls.

Every adapter and every file of labels is a condition; for the adapters come the zero vector,
random directions and, once, the untrained scales. The scale of each is chosen on training vectors,
which are not measured on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from selfie_adapters.config.evaluation.retrieval import UNTRAINED, RetrievalSettings
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.retrieval.conditions import conditions
from selfie_adapters.evaluation.retrieval.embedding import Embedder, SentenceEmbedder
from selfie_adapters.evaluation.retrieval.embedding_cache import CachedEmbedder
from selfie_adapters.evaluation.retrieval.lookup import Query, Scored, TopicIndex, compare
from selfie_adapters.evaluation.retrieval.task import read_task
from selfie_adapters.evaluation.spoken_labels import Progress, SpokenRow, silent
from selfie_adapters.files import atomic_path
from selfie_adapters.model import FrozenModel

TABLE = "labels.jsonl"


def run_retrieval(
    settings: RetrievalSettings,
    folder: str | Path,
    model: FrozenModel | None = None,
    embedder: Embedder | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the protocol, or resume it; returns the path of results.json.

    Beside it comes labels.jsonl, one row a condition and label. model and embedder may be loaded
    already. Raises what reading the inputs raises; DataError for a vector without a topic;
    ConfigError if the folder holds another evaluation.
    """
    task = read_task(settings)
    embedder = embedder or CachedEmbedder(
        SentenceEmbedder(settings.embedder, device=settings.device)
    )
    inputs = {**task.inputs(settings), "embedder_digest": embedder.digest}
    kept = EvaluationFolder(folder, "retrieval", settings, inputs, kind=SpokenRow)
    progress("embedding the index", 0, len(task.entries))
    index = TopicIndex(task.entries, settings.index, embedder)
    choices: dict[str, dict[str, float]] = {}
    scored: list[Scored] = []
    for one in conditions(settings, task, kept, index, model, choices, progress):
        progress(f"looking up: {one.name}", 0, len(task.targets))
        queries = [
            Query(target.key, target.topic, text, one.scale)
            for target, text in zip(task.targets, one.texts, strict=True)
        ]
        scored.append(index.look_up(one.name, one.meaning, queries))
    write_table(kept.folder / TABLE, index, scored)
    seed = settings.seed
    real = [one for one in scored if one.condition in {*settings.adapters, *settings.labels}]
    others = [one for one in scored if one.condition == UNTRAINED]
    return kept.finish(
        {
            "counts": {"topics": len(task.entries), "queries": len(task.targets)},
            "interval": "95 %, bootstrap over queries",
            "chance_at_1": 1 / len(task.entries),
            "scales_chosen_on_training_vectors": choices,
            "conditions": [one.summary(seed) for one in scored],
            "comparisons": [compare(a, b, seed) for a, b in combinations([*real, *others], 2)],
        }
    )


def write_table(path: Path, index: TopicIndex, scored: Sequence[Scored]) -> None:
    """All rows of all conditions, as JSON lines."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for one in scored:
            for row in index.table(one):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
