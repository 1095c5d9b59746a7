"""Labelling runs in this process."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.job import LabelJob, run_here
from selfie_adapters.labelling.worker import ShardWorker


def run(folder: Path, settings: LabelSettings) -> LabelJob:
    """Begin or resume the run in `folder`."""
    source = open_source(settings)
    job = LabelJob(folder, settings, source)
    if not job.complete:
        worker = ShardWorker(settings, source)
        job.begin()
        run_here(job, worker)
    return job
