"""`selfie label`: vectors in, labels out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from selfie_adapters.commands.label_look import check_look, look_at
from selfie_adapters.commands.label_tables import show_controls, show_labels, show_why
from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.config.labelling import LabelOptions, LabelSettings
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.labelling.job import LabelJob

_OUT = "labels"


@options(LabelOptions)
def label(options: LabelOptions, *, out: str = _OUT, json: Json = False) -> None:
    """Label vectors, one JSON line per label. Stopped at any moment, it resumes where it stopped.

    With --text or --concept it prints the labels of one state, and writes nothing.

    Parameters
    ----------
    out
        Run folder: config, progress, labels-00000.jsonl and so on.
    """
    if options.text is not None or options.concept is not None:
        check_look(options, out, _OUT)
        look_at(options, json)
        return
    if options.engine != "local":
        require_extra(options.engine, f"selfie label --engine {options.engine}")
    from selfie_adapters.adapters.locating import find_mean_file, shipped_concepts, usual_adapter
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.errors import LabellingError
    from selfie_adapters.files.locking import folder_lock
    from selfie_adapters.labelling.finished_run import open_run
    from selfie_adapters.labelling.inputs import check_chosen, open_source
    from selfie_adapters.labelling.job import LabelJob, usual_shard_size

    console = Console(quiet=json)
    adapter = usual_adapter(options.adapter, options.model)
    settings = options.label_settings(
        source=str(shipped_concepts(adapter)) if options.source == "demo" else options.source,
        adapter=adapter,
        mean=find_mean_file(options.mean, None),
        confidence=None,
        engine="vllm" if options.engine == "vllm" else "local",
        **(
            {}
            if "shard_size" in options.model_fields_set
            else {"shard_size": usual_shard_size(out, options.device)}
        ),
    )
    check_inputs(
        model=settings.model,
        device=settings.device,
        adapters=[settings.adapter],
        files=[settings.mean, options.confidence],
    )
    settings = _with_confidence(console, settings, options.confidence)
    vectors = open_source(settings)
    check_chosen(settings, vectors)
    with folder_lock(out):
        job = LabelJob(out, settings, vectors)
        if options.shard is not None:
            job.take_part(options.shard)
        _run(console, job, options)
    done = job.progress
    if done.labelled and json:
        print_json(msgspec.to_builtins(row) for row in open_run(job.folder).leading())
    if done.failed:
        raise LabellingError(
            f"{done.failed} of {done.vectors} vectors failed and are marked in {job.folder}, the "
            f"first one: {job.first_failure()}. Run the same command again to retry them."
        )
    noun = "vector" if done.labelled == 1 else "vectors"
    print_line(f"{done.labelled} {noun} labelled: {job.folder}", console)


def _with_confidence(console: Console, settings: LabelSettings, path: str | None) -> LabelSettings:
    """The settings with a confidence file that was fitted on labels sampled as these will be.

    Raises ConfigError for one that was asked for and does not fit; one that is merely in the folder
    of the adapter is then omitted, with a message.
    """
    from selfie_adapters.adapters import find_adapter_file
    from selfie_adapters.labelling.confidence import usable_confidence

    def warn(message: str) -> None:
        print_line(message, console, "yellow")

    adapter_file = None if settings.adapter is None else find_adapter_file(settings.adapter)
    found = usable_confidence(adapter_file, path, settings.way_of_drawing(), warn)
    if found is None:
        return settings
    return settings.model_copy(update={"confidence": path or str(found[0])})


def _run(console: Console, job: LabelJob, options: LabelOptions) -> None:
    """Label what is left and show it: labels as soon as they are there, then the controls."""

    def show() -> None:
        if job.settings.explain:
            show_why(console, next(one.path for one in job.shards if one.path.exists()))
        if job.progress.labelled:
            show_labels(console, job, options.show_withheld)

    if job.complete:
        show()
    else:
        _work(console, job, options, show)
    show_controls(console, job.folder)


def _work(
    console: Console, job: LabelJob, options: LabelOptions, labelled: Callable[[], None]
) -> None:
    from selfie_adapters.commands.progress import progress_bars

    with progress_bars(console) as progress:

        def advance(vectors: int) -> None:
            progress.advance(task, vectors)

        def no_shard_left() -> None:
            labelled()
            progress.update(task, visible=False)
            progress.add_task("controls", total=None)

        if options.engine == "ray" and job.todo():
            from selfie_adapters.labelling.engines.ray import run_with_ray

            with job.begun():
                task = progress.add_task("vectors", total=sum(map(len, job.todo())))
                run_with_ray(job, options.workers, options.ray_address, advance)
            labelled()
            return
        from selfie_adapters.labelling.job import run_here
        from selfie_adapters.labelling.worker import ShardWorker

        worker = ShardWorker(job.settings, job.source)  # before the folder: it may refuse
        with closing(worker), job.begun():
            task = progress.add_task("vectors", total=sum(map(len, job.todo())))
            run_here(job, worker, advance, no_shard_left)
