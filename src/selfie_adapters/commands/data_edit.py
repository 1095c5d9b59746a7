"""`selfie data check|merge|split|convert`: training files as wholes."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from selfie_adapters.commands.options import Overwrite, options
from selfie_adapters.commands.printing import print_line
from selfie_adapters.config.splitting import SplitFileSettings

_SHOWN = 20


def check(file: str) -> None:
    """Say whether a training file will train; exit code 1, and what is wrong, if not.

    Parameters
    ----------
    file
        Training file (.json or .json.gz).
    """
    from selfie_adapters.dataset.inspection import inspect_file

    found = inspect_file(file)
    wrong = [str(problem) for problem in found.problems]
    if not wrong:
        for split, count in (
            ("train", sum(section.train for section in found.sections)),
            ("val", sum(section.val for section in found.sections)),
        ):
            if not count:
                wrong.append(f'no vector has the split "{split}". Try: selfie data split {file}')
    console = Console(stderr=bool(wrong))
    if not wrong:
        labels = sum(section.labels for section in found.sections)
        width = found.sections[0].d_model
        print_line(f"will train: {labels} labels, vectors of width {width}", console)
        return
    for problem in wrong[:_SHOWN]:
        print_line(problem, console)
    if len(wrong) > _SHOWN:
        print_line(f"… and {len(wrong) - _SHOWN} more", console)
    print_line(f"will not train: {len(wrong)} problems in {file}", console)
    sys.exit(1)


def merge(*files: Path, out: Path, overwrite: Overwrite = False) -> None:
    """Put the sections of several training files into one; vector files stay where they are.

    Parameters
    ----------
    files
        Training files, two or more.
    out
        Training file to write.
    """
    from selfie_adapters.dataset.editing import merge_files

    print_line(str(merge_files(files, out, overwrite)))


@options(SplitFileSettings)
def split(
    settings: SplitFileSettings, *, out: Path | None = None, overwrite: Overwrite = False
) -> None:
    """Choose the validation rows of a training or label file again; test rows stay.

    Parameters
    ----------
    out
        File to write; default: the file itself.
    """
    from selfie_adapters.dataset.editing import split_file

    path = split_file(settings.file, settings.val_fraction, settings.seed, out, overwrite)
    print_line(str(path))


def convert(file: Path, *, overwrite: Overwrite = False) -> None:
    """Write vectors as .safetensors if they are .pt, else as .pt; old vector files stay.

    Parameters
    ----------
    file
        Vector file, or training file: then all its vector files, and filename in it.
    """
    from selfie_adapters.dataset.editing import convert_file

    for path in convert_file(file, overwrite):
        print_line(str(path))
