"""Every error this project raises on purpose.

Each class is also the standard-library error a caller would expect, so `except ValueError` and
`except SelfieError` both work. A message names the file (or option), the position in it, what was
found, what was expected, and the fix; the command line prints it as one red line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SelfieError(Exception):
    """Base of all errors raised on purpose by this project."""

    exit_code = 1
    """What the command line ends with."""


class MissingFileError(SelfieError, FileNotFoundError):
    """A file or folder that was named does not exist."""

    # OSError formats itself from errno; the message is all there is to say here.
    def __str__(self) -> str:
        return str(self.args[0])


class DataError(SelfieError, ValueError):
    """A training file, label file or vector file contains something it must not."""


class ConfigError(SelfieError, ValueError):
    """A configuration key or value is wrong."""


class AdapterError(SelfieError, ValueError):
    """An adapter file or adapter option is wrong."""


class BindingError(AdapterError):
    """An adapter meets a model or prompt it was not trained with (invariant 4)."""


class ModelError(SelfieError, ValueError):
    """A model cannot be loaded, or has a structure that is not known here."""


class PromptError(SelfieError, ValueError):
    """A prompt template, placeholder or injection does not fit the tokenizer or the model."""


class DownloadError(SelfieError, ConnectionError):
    """Something could not be fetched; what was fetched so far stays in the cache."""


class UploadError(SelfieError, ConnectionError):
    """Something could not be uploaded."""


class StorageError(SelfieError, OSError):
    """A file cannot be written: the disk is full, or the folder is read-only."""


class FolderInUseError(SelfieError, BlockingIOError):
    """Another process works in the folder, or may do so."""


class TrainingError(SelfieError, RuntimeError):
    """Training cannot continue; what was written so far stays."""


class LabellingError(SelfieError, RuntimeError):
    """Labelling cannot continue; what was written so far stays."""


class TrainingStopped(TrainingError):
    """Training was asked to stop by a signal, saved its state and can be resumed."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal  # as a shell counts a process ended by a signal
        self._made_of = (message, signal)

    def __reduce__(self) -> tuple[type[TrainingStopped], tuple[str, int]]:
        return type(self), self._made_of


class MissingExtraError(SelfieError, ImportError):
    """An optional dependency is missing or broken; the message contains the install command."""

    def __init__(self, package: str, extra: str, purpose: str, broken: str | None = None) -> None:
        """broken: what the import of an installed package failed on."""
        state = "which is not installed" if broken is None else f"which fails to import ({broken})"
        super().__init__(
            f"{purpose} needs the package {package}, {state}. "
            f"Run: pip install 'selfie-adapters[{extra}]'"
        )
        # Exceptions are rebuilt from `args` when they cross a process boundary.
        self._made_of = (package, extra, purpose, broken)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str, str | None]]:
        return type(self), self._made_of


def first_line(error: BaseException) -> str:
    """The first line of an error's message, 300 characters at most; its class where it is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def nearest(word: str, choices: Iterable[str]) -> str:
    """A sentence that offers the valid choice nearest to `word`, or lists a few of them."""
    known = [str(choice) for choice in choices]
    word = str(word)[:100]  # comparing a longer one takes long and finds nothing
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f'Did you mean "{close[0]}"?'
    shown = ", ".join(known[:12])
    return f"Valid choices: {shown}{', …' if len(known) > 12 else ''}."
