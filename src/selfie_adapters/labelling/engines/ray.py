"""Label with Ray Data: a pool of processes, on one machine or many, each with its own model.

They read and write the same shards as the local engine, in a folder that all of them see; what a
process that dies leaves behind is resumed by the one that follows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.errors import LabellingError, SelfieError
from selfie_adapters.extras import extra
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.job import LabelJob
from selfie_adapters.labelling.shards import Shard
from selfie_adapters.labelling.worker import ShardWorker


class _Actor:
    """Lives in a Ray process: loads the model once, then labels the shards it is given."""

    def __init__(self, settings: dict[str, Any], folder: str) -> None:
        parsed = LabelSettings.model_validate(settings)
        self._worker = ShardWorker(parsed, open_source(parsed))
        self._folder = folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        counts: dict[str, list[int]] = {"labelled": [], "failed": []}
        columns = (batch[key].tolist() for key in ("number", "start", "stop", "first"))
        for number, start, stop, first in zip(*columns, strict=True):
            self._worker.write_binding(self._folder)
            done = self._worker.run(Shard(self._folder, number, start, stop))
            if first:  # any of the processes can do it; one does
                self._worker.write_controls(self._folder)
            counts["labelled"].append(done.labelled)
            counts["failed"].append(done.failed)
        return counts


def run_with_ray(
    job: LabelJob,
    workers: int | None = None,
    address: str | None = None,
    progress: Callable[[int], None] = lambda _vectors: None,
) -> None:
    """Label every shard that is left.

    workers: processes; None is one per GPU of the cluster, or one per four cores. address: of a
    running cluster; None starts one in this process for the time of the run. progress: called with
    the number of vectors tried, after each shard.
    Raises MissingExtraError without Ray, the error of a process that could not begin, and
    LabellingError for any other.
    """
    with extra("ray", "--engine ray"):
        ray: Any = import_module("ray")
        import_module("ray.data")
    todo = job.todo()
    if not todo:
        return
    rows = [
        {"number": s.number, "start": s.start, "stop": s.stop, "first": s is todo[0]} for s in todo
    ]
    # Ray logs a traceback before it raises what `_cause` turns into one line.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        cores, gpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("CPU", "GPU"))
        count = min(workers or gpus or max(1, cores // 4), len(todo))
        labelled = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=[job.settings.model_dump(), str(job.folder.resolve())],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=max(1, (cores - 1) // count),
            num_gpus=min(1, gpus / count),
        )
        for row in labelled.iter_rows():
            job.note(row["labelled"], row["failed"])
            progress(row["labelled"] + row["failed"])
    except Exception as error:  # Ray wraps whatever a process raised
        raise _cause(error) from error
    finally:
        ray.shutdown()


def _cause(error: BaseException) -> SelfieError:
    """This project's error inside Ray's wrappings, or one that states what Ray reported."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, SelfieError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return LabellingError(f"Ray: {lines[-1]}. Complete shards stay; run again to resume.")
