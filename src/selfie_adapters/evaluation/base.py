"""What all evaluation protocols are built on.

A protocol is a settings class and a subclass of `Protocol` in `evaluation/NAME/protocol.py`; the
folder's name is the protocol's. The subclass states what its results depend on (`inputs`), measures
(`measure`), and lays out what is printed (`report`). The base locks and resumes the folder, loads
the model once, and writes results.json. `selfie eval NAME`, its help and the tests of all protocols
find the class through `protocol_names` and `find_protocol`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from torch import Tensor

from selfie_adapters.chat import AnswerCache, ChatModel, ChatSettings, open_chat
from selfie_adapters.config.settings import Settings, read_config
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset import VectorLabelDataset
from selfie_adapters.errors import ConfigError, DataError, nearest
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.locking import folder_lock
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.model.precision import Workload
from selfie_adapters.progress import StepProgress, silent


class Published:
    """A published configuration, translated into settings of this project."""

    settings: Any
    ignored: Sequence[str] = ()
    """Keys of the file that have no meaning here."""

    @property
    def output_folder(self) -> str | None:
        """Where the configuration puts its results, if it states that."""
        return None

    def write(self, folder: Path) -> list[Path]:
        """Write the results in `folder` in the published format too; returns the files."""
        raise NotImplementedError


S = TypeVar("S", bound=Settings)


class Protocol(ABC, Generic[S]):
    """One run of an evaluation protocol; `run` makes it and finishes it."""

    settings_class: ClassVar[type[Settings]]
    row: ClassVar[type[msgspec.Struct]]
    """What every row of rows.jsonl is."""
    free: ClassVar[Collection[str]] = ()
    """Settings that do not change the results, such as a batch size."""
    removed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Settings of earlier versions → how their results differ, where folders that state them cannot
    be resumed."""
    recorded_as: ClassVar[str] = ""
    """The protocol's name in results.json, where it is not the folder's."""
    read_published: ClassVar[Callable[..., Any] | None] = None
    """What reads a configuration file that may be a published one, where there are such."""
    job: ClassVar[Workload] = "generation"
    """What the model is loaded for: "training" where losses are computed."""

    def __init__(
        self,
        settings: S,
        folder: str | Path,
        model: FrozenModel | None,
        chat: ChatModel | None,
        embedder: Any,
        progress: StepProgress,
    ) -> None:
        self.settings, self.progress = settings, progress
        self._path, self._model, self._chat, self._embedder = Path(folder), model, chat, embedder
        self._opened: EvaluationFolder | None = None

    @classmethod
    def name(cls) -> str:
        """The protocol's name on the command line."""
        return cls.__module__.split(".")[-2]

    @classmethod
    def read(
        cls,
        config: str | Path,
        changes: Sequence[str] = (),
        given: Mapping[str, Any] | None = None,
    ) -> Any:
        """Settings from a file, or a `Published` configuration; arguments as `read_config`."""
        if cls.read_published is not None:
            return cls.read_published(config, changes, given)
        return read_config(config, cls.settings_class, changes, given=given)

    @classmethod
    def run(
        cls,
        settings: S,
        folder: str | Path,
        model: FrozenModel | None = None,
        *,
        chat: ChatModel | None = None,
        embedder: Any = None,
        progress: StepProgress = silent,
    ) -> Path:
        """Run the protocol, or resume it; returns the path of results.json.

        model, chat, embedder: loaded already; None: by the settings. Raises what reading the inputs
        raises; ConfigError if the folder holds another evaluation; FolderInUseError if another
        process works on it.
        """
        with folder_lock(folder):
            return cls(settings, folder, model, chat, embedder, progress)._finish()

    def _finish(self) -> Path:
        self.check()
        inputs = self.inputs()
        recorded = self.recorded_as or self.name()
        self._opened = EvaluationFolder(
            self._path, recorded, self.settings, inputs, self.free, self.row, self.removed
        )
        if "model" in vars(self):  # `inputs` needed it
            self._record_weights(self.model)
        return self.folder.finish(self.measure())

    @property
    def folder(self) -> EvaluationFolder:
        """The rows that are done, and where the next ones go; there once `inputs` has returned."""
        assert self._opened is not None
        return self._opened

    def check(self) -> None:
        """Raise MissingExtraError if a package that the settings require is not installed."""

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Read the inputs; return a hash of everything that the results depend on, by name."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Measure what is missing in `folder`; return the content of results.json."""

    @classmethod
    @abstractmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        """Tables and lines that show the content of results.json."""

    @cached_property
    def model(self) -> FrozenModel:
        """The evaluated model, loaded on first use; the folder records its weights."""
        one: Any = self.settings
        model = self._model or load_model(one.model or "", one.dtype, one.device, job=self.job)
        if self._opened is not None:
            self._record_weights(model)
        return model

    def _record_weights(self, model: FrozenModel) -> None:
        self.folder.also_depends_on("model_weights", weights_digest(model))

    def chat(self, settings: ChatSettings, model: FrozenModel | None = None) -> ChatModel:
        """The chat model of the settings; its answers are kept in the folder.

        model: who answers where the settings name nobody. Raises DownloadError if a server does not
        answer.
        """
        device = getattr(self.settings, "device", None)
        answers = self._path / "answers"
        if self._chat is not None:
            chat: ChatModel = AnswerCache(self._chat, answers)
        else:
            chat = open_chat(settings, answers, model, device)
        self.folder.also_depends_on("chat_weights", chat.weights)
        return chat

    def check_width(self, dataset: VectorLabelDataset, file: str) -> None:
        """Raise DataError unless the vectors have the model's width."""
        if dataset.d_model != self.model.d_model:
            raise DataError(
                f"{file}: vectors of width {dataset.d_model}; the model {self.model.name} has "
                f"d_model {self.model.d_model}. Use the model the vectors come from."
            )

    def in_batches(
        self,
        unit: str,
        count: int,
        batch_size: int,
        field: str,
        make: Callable[[range], list[Any]],
    ) -> list[Any]:
        """`make` for 0 to count, batch by batch; each batch is a row {field: [...]} of the folder.

        make: called with a range of indices, returns one result per index. A batch is in the folder
        completely or not at all, so results after a kill are those of an uninterrupted run. Raises
        DataError for a row with another number of results.
        """
        found: list[Any] = []
        for number, start in enumerate(range(0, count, batch_size)):
            self.progress(unit, start, count)
            which = range(start, min(start + batch_size, count))
            found += self.folder.values(
                f"{unit}/{number}", field, len(which), lambda which=which: make(which)
            )
        self.progress(unit, count, count)
        return found

    def label(
        self,
        labeller: Labeller,
        condition: str,
        vectors: Tensor,
        keys: Sequence[str],
        scale: float,
        sampling: Sampling,
    ) -> list[str]:
        """One label per vector, kept batch by batch: vectors [n, d_model], keys of the n."""
        one: Any = self.settings

        def make(which: range) -> list[str]:
            answers = labeller.label(
                vectors[which.start : which.stop],
                (scale,),
                sampling=sampling,
                seed=one.seed,
                batch_size=one.batch_size,
                names=[(keys[i],) for i in which],
            )
            return [labels[0].text for labels in answers]

        unit = f"{condition} × {scale:g}"
        return self.in_batches(unit, len(keys), one.batch_size, "labels", make)


class LabelsRow(msgspec.Struct):
    """The labels of one batch of vectors, one each (`Protocol.label`)."""

    labels: list[str]


def protocol_names() -> list[str]:
    """All protocols: the folders of this package that hold a protocol.py."""
    folders = import_module(__package__ or "").__path__
    return sorted(file.parent.name for one in folders for file in Path(one).glob("*/protocol.py"))


def find_protocol(name: str) -> type[Protocol[Any]]:
    """The protocol of that name. Raises ConfigError with the nearest ones."""
    names = protocol_names()
    if name not in names:
        raise ConfigError(f"selfie eval {name}: unknown protocol. {nearest(name, names)}")
    module = import_module(f"{__package__}.{name}.protocol")
    return next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Protocol) and one.__module__ == module.__name__
    )
