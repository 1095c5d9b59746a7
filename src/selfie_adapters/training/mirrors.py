"""Mirrors of metrics.jsonl in wandb, mlflow and trackio: views that may fail, never the truth.

Each works in a thread of its own, so a slow or dead service neither delays nor stops training; a
mirror that fails says so in one line and is dropped.
"""

from __future__ import annotations

import importlib
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfie_adapters.config import TrainConfig
from selfie_adapters.errors import first_line
from selfie_adapters.extras import extra
from selfie_adapters.training.run_reading import flat

_PATIENCE_SECONDS = 30.0  # for what is still unsent at the end

Metrics = dict[str, float]


class Mirror(ABC):
    """One service: opened, fed with numbers by name at a step, closed. All in one thread."""

    name: str

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def send(self, numbers: Metrics, step: int) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Wandb(Mirror):
    """Weights & Biases; WANDB_MODE=offline keeps everything in the run folder."""

    name = "wandb"

    def __init__(self, config: TrainConfig, run: Path, run_id: str) -> None:
        self._config, self._folder, self._run_id = config, run, run_id

    def open(self) -> None:
        wandb = _import("wandb")
        logging = self._config.logging
        self._run = wandb.init(
            project=logging.wandb_project or "selfie-adapters",
            entity=logging.wandb_entity,
            name=logging.wandb_run_name or self._config.experiment_name,
            id=self._run_id,
            resume="allow",  # a resumed run continues its own curve
            dir=str(self._folder),
            config=self._config.model_dump(mode="json"),
            settings=wandb.Settings(
                silent=True, init_timeout=_PATIENCE_SECONDS, x_disable_stats=True
            ),
        )

    def send(self, numbers: Metrics, step: int) -> None:
        self._run.log({**numbers, "step": step})

    def close(self) -> None:
        self._run.finish()


class Mlflow(Mirror):
    """mlflow: a folder (the default) or a tracking server."""

    name = "mlflow"

    def __init__(self, config: TrainConfig, run: Path, run_id: str) -> None:
        self._config, self._folder, self._run_id = config, run, run_id

    def open(self) -> None:
        # Can only be set by the environment: plain files are required, and a dead server
        # should fail soon instead of being tried for minutes.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        tracking = _import("mlflow.tracking", "mlflow-skinny")
        logging = self._config.logging
        place = logging.mlflow_tracking_uri or (self._folder.parent / "mlruns").resolve().as_uri()
        self._client = tracking.MlflowClient(tracking_uri=place)
        title = logging.mlflow_experiment_name or self._config.experiment_name
        known = self._client.get_experiment_by_name(title)
        experiment = known.experiment_id if known else self._client.create_experiment(title)
        mine = f"tags.selfie_run = '{self._run_id}'"
        found = self._client.search_runs([experiment], filter_string=mine)
        if found:
            self._mlflow_id = found[0].info.run_id
            return
        name = self._config.experiment_name
        created = self._client.create_run(
            experiment, run_name=name, tags={"selfie_run": self._run_id}
        )
        self._mlflow_id = created.info.run_id
        for key, value in flat(self._config.model_dump(mode="json")).items():
            self._client.log_param(self._mlflow_id, key, str(value)[:500])

    def send(self, numbers: Metrics, step: int) -> None:
        for key, value in numbers.items():
            self._client.log_metric(self._mlflow_id, key, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._mlflow_id)


class Trackio(Mirror):
    """trackio: a database on this machine, shown by `trackio show`."""

    name = "trackio"

    def __init__(self, config: TrainConfig, run: Path, run_id: str) -> None:
        self._config, self._run_id = config, run_id

    def open(self) -> None:
        trackio = _import("trackio")
        self._run = trackio.init(
            project=self._config.logging.trackio_project or "selfie-adapters",
            name=f"{self._config.experiment_name}-{self._run_id}",
            resume="allow",
            config=flat(self._config.model_dump(mode="json")),
        )

    def send(self, numbers: Metrics, step: int) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


class MirrorThread:
    """Feeds one mirror from a queue; the first failure is warned of and ends it."""

    def __init__(self, mirror: Mirror, warn: Callable[[str], None]) -> None:
        self._mirror, self._warn = mirror, warn
        self._rows: queue.SimpleQueue[tuple[Metrics, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=mirror.name, daemon=True)
        self._thread.start()

    def send(self, numbers: Metrics, step: int) -> None:
        if self._thread.is_alive():
            self._rows.put((numbers, step))

    def close(self) -> None:
        """Wait a while for what is still to be sent."""
        self._rows.put(None)
        self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"{self._mirror.name}: still busy after the end; left behind unfinished.")

    def _run(self) -> None:
        try:
            self._mirror.open()
            while (row := self._rows.get()) is not None:
                self._mirror.send(*row)
            self._mirror.close()
        # A tracker may raise anything, even SystemExit; none of it is worth a training run.
        except BaseException as error:
            self._warn(
                f"warning: {self._mirror.name} failed and is dropped from here on: "
                f"{first_line(error)}"
            )


def open_mirrors(
    config: TrainConfig, run: Path, run_id: str, warn: Callable[[str], None]
) -> list[MirrorThread]:
    """The mirrors that the configuration requests. run_id tells runs of one name apart."""
    wanted = (
        (config.logging.use_wandb, Wandb),
        (config.logging.use_mlflow, Mlflow),
        (config.logging.use_trackio, Trackio),
    )
    return [MirrorThread(kind(config, run, run_id), warn) for asked, kind in wanted if asked]


def _import(module: str, package: str | None = None) -> Any:
    with extra("track", f"Mirroring metrics to {package or module}"):
        return importlib.import_module(module)
