"""What a run depends on besides its configuration, as digests, so that resuming notices a change.

Digests are of content and not of files: a file that was moved, converted or downloaded again is
still the same. Rows of vectors that no label uses do not count.
"""

from __future__ import annotations

import hashlib

from selfie_adapters.adapters import find_adapter_file
from selfie_adapters.errors import MissingFileError, TrainingError
from selfie_adapters.files import sha256
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.training.epochs import Split
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.setup import Setup

_BLOCK_ROWS = 4096


def input_digests(setup: Setup) -> dict[str, str]:
    """Name → digest of everything that decides the result.

    Reads the vectors of all labels and the weights once: less than the first epoch does.
    """
    model = setup.model
    digests = {
        "the training labels": setup.train.digest(),
        "the training vectors": _vectors_digest(setup.train),
        "the validation labels": setup.val.digest(),
        "the validation vectors": _vectors_digest(setup.val),
        # Weights of another dtype cannot be compared; the binding's fingerprint still is.
        f"the weights of the model in {str(model.dtype).removeprefix('torch.')}": weights_digest(
            model
        ),
    }
    source = setup.config.training.resume_from_checkpoint
    if source is not None:
        try:
            digests["the adapter that training starts from"] = sha256(find_adapter_file(source))
        except MissingFileError:  # a run that has a checkpoint no longer needs it
            return digests
    return digests


def check_inputs(setup: Setup, run: RunFolder, now: dict[str, str]) -> None:
    """Raise TrainingError if an input is not the one that the run began with.

    Runs of earlier versions recorded none; they are not checked.
    """
    began = run.inputs()
    changed = [name for name in now if name in began and began[name] != now[name]]
    if not changed:
        return
    config = setup.config
    files = {
        "model": config.model.name,
        "adapter": str(config.training.resume_from_checkpoint),
    }
    file = next((f for word, f in files.items() if word in changed[0]), config.data.labels_file)
    raise TrainingError(
        f"{file}: {' and '.join(changed)} changed since {run.path} began. Put the file back, or "
        "start a new run in another folder."
    )


def _vectors_digest(split: Split) -> str:
    digest = hashlib.sha256()
    sections, rows = split.examples.section, split.examples.row
    for number, section in enumerate(split.dataset.sections):
        used = rows[sections == number].unique()
        for block in used.split(_BLOCK_ROWS):
            digest.update(section.vectors[block].float().contiguous().numpy().data)
    return digest.hexdigest()
