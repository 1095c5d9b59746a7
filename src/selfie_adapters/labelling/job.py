"""A labelling run: a folder that is stopped at any moment and resumed.

config.json          what was asked for, and hashes of the files it was asked of
binding.json         the model and prompt that wrote the labels
labels-00000.jsonl   shards (labelling/shards.py)
progress.json        how far the run is
controls.json        how vectors that mean nothing scored (labelling/controls.py)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import exists, write_json
from selfie_adapters.files.locking import LOCK_NAME
from selfie_adapters.files.resumable_folder import ResumableFolder
from selfie_adapters.labelling.rows import FailedRow, read_rows
from selfie_adapters.labelling.run_record import CONFIG, RunRecord, read_controls
from selfie_adapters.labelling.shards import Shard, cut_into_shards, failed, shard_rows
from selfie_adapters.labelling.worker import ShardWorker
from selfie_adapters.model.devices import is_cpu, resolve_device

# Settings that change the speed or what is displayed, and not the labels.
_FREE = ("batch_size", "device", "ignore_binding")


def usual_shard_size(folder: str | Path, device: str | None) -> int:
    """Vectors per file where the user does not state it: as in the folder that is resumed, else as
    many as a GPU labels at once, or 512. Raises what `RunRecord.read` raises."""
    if exists(Path(folder) / CONFIG):
        return RunRecord.read(folder).settings.shard_size
    return 512 if is_cpu(resolve_device(device)) else 2048


@dataclass
class Progress:
    """Counts of vectors, for progress.json and for the bar."""

    vectors: int
    labelled: int = 0
    failed: int = 0

    @property
    def left(self) -> int:
        """Vectors that have no labels."""
        return self.vectors - self.labelled

    @property
    def complete(self) -> bool:
        return self.labelled == self.vectors


class LabelJob:
    """What of a run is done and what is not."""

    def __init__(self, folder: str | Path, settings: LabelSettings, source: LabelSource) -> None:
        """Nothing is written yet.

        Raises ConfigError if `folder` is a file, or holds a run with other settings or inputs;
        DataError if there is nothing to label.
        """
        self._store = ResumableFolder(folder, "a run")
        self.folder = self._store.path
        self.settings = settings
        self.source = source
        if self.folder.suffix in (".jsonl", ".json", ".csv"):
            raise ConfigError(
                f"{folder}: --out must name a folder, but this looks like a file name. "
                "Labels go into "
                "labels-00000.jsonl and so on in it; selfie export makes one file of them."
            )
        if not len(source):
            raise DataError(f"{settings.source}: no vector to label (split {settings.split}).")
        self.shards = cut_into_shards(folder, len(source), settings.shard_size)
        self._record = RunRecord.of(settings, source)
        self._check_same_run()
        self._todo = [shard for shard in self.shards if not self._finished(shard)]
        done = len(source) - sum(map(len, self._todo))
        self.progress = Progress(len(source), done)
        self._written = 0.0

    def _check_same_run(self) -> None:
        if self._store.earlier("labels-*.jsonl*") is None:
            return
        now, earlier = self._record, RunRecord.read(self.folder)
        was, is_now = (
            {**one.settings.model_dump(mode="json"), "vectors": one.vectors}
            for one in (earlier, now)
        )
        self._store.check_settings(was, is_now, _FREE)
        self._store.check_inputs(earlier.inputs, now.inputs)
        if earlier.ranking != now.ranking:
            raise ConfigError(
                f"{self.folder} holds labels ranked by {earlier.ranking}, and this version ranks "
                f"them by {now.ranking}. Give another --out."
            )

    def _finished(self, shard: Shard) -> bool:
        rows = shard_rows(shard, self.source, self.settings.rows_per_vector)
        return len(rows) == len(shard) and not any(map(failed, rows.values()))

    def todo(self) -> list[Shard]:
        """Shards that are not complete, or hold failed vectors."""
        return list(self._todo)

    @property
    def complete(self) -> bool:
        """Whether every vector has labels, and the controls are measured."""
        return not self._todo and read_controls(self.folder) is not None

    def take_part(self, part: str) -> None:
        """Leave only every Nth shard to be done, from shard I on. part: "I/N".

        Raises ConfigError where the run has no such shard.
        """
        number, count = map(int, part.split("/"))
        if number >= len(self.shards):
            raise ConfigError(
                f"--shard {part}: the run has {len(self.shards)} files of "
                f"{self.settings.shard_size} vectors, so this part is empty. Use fewer parts, or "
                "a smaller --shard-size."
            )
        self._todo = [shard for shard in self._todo if shard.number % count == number]

    def first_failure(self) -> str:
        """Where and why the first failed vector failed; empty if none has."""
        for shard in self.shards:
            for rows in (read_rows(shard.path) if shard.path.exists() else {}).values():
                if isinstance(rows[0], FailedRow):
                    return f"row {rows[0].index}: {rows[0].error}"
        return ""

    def begin(self) -> None:
        """Make the folder and write config.json, if this is its first run."""
        self._store.begin(self._record.content())
        self.note(0, 0)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """`begin`, taken back if the block raises before anything else is in the folder.

        A folder without a label is then free for other settings.
        """
        fresh = not self._store.config.exists()
        self.begin()
        try:
            yield
        except BaseException:
            if fresh:
                self._take_back()
            raise

    def _take_back(self) -> None:
        own = {CONFIG, "progress.json"}
        if {file.name for file in self.folder.iterdir()} - {LOCK_NAME} <= own:
            for name in own:
                (self.folder / name).unlink(missing_ok=True)

    def note(self, labelled: int, failed: int) -> None:
        """Count more vectors; progress.json follows, at most once per second until the end."""
        self.progress.labelled += labelled
        self.progress.failed += failed
        tried = self.progress.labelled + self.progress.failed
        if time.monotonic() - self._written > 1 or tried == self.progress.vectors:
            self._written = time.monotonic()
            counts = {**vars(self.progress), "complete": self.progress.complete}
            write_json(self.folder / "progress.json", counts)


def run_here(
    job: LabelJob,
    worker: ShardWorker,
    progress: Callable[[int], None] = lambda _vectors: None,
    labelled: Callable[[], None] = lambda: None,
) -> None:
    """Label every shard that is left, in this process; then measure the controls, once.

    progress: called with the number of vectors tried. labelled: called when no shard is left, so
    that labels are seen before the controls are there.
    """

    def note(labelled: int, failed: int) -> None:
        job.note(labelled, failed)
        progress(labelled + failed)

    worker.write_binding(job.folder)
    for shard in job.todo():
        worker.run(shard, note)
    labelled()
    worker.write_controls(job.folder)
