"""The command table. It imports no torch: each command's module is loaded when it is called."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import App

from selfie_adapters import interruption, output
from selfie_adapters.errors import SelfieError
from selfie_adapters.extras import own_version

COMMANDS = "selfie_adapters.commands"

app = App(
    name="selfie",
    suppress_keyboard_interrupt=False,  # interruption.py says what stopped it
    help="Ask a language model what its own vectors mean.",
    version=own_version,
)

app.register_install_completion_command()


_GROUPS = {
    "eval": "Measure labels by a protocol, alongside controls.",
    "data": "Look at and check training files; fetch the published ones.",
    "prepare": "Make training files.",
    "adapter": "Look at adapter files; share them on the hub.",
    "confidence": "When to believe a label.",
    "prompt": "Look at soft prompts.",
}
"""Commands that are named by two words, and what those of one first word are for."""


def _protocols() -> Iterator[tuple[str, tuple[str, str]]]:
    """`selfie eval NAME` for each file of settings, which is not imported: its first paragraph."""
    for file in sorted((Path(__file__).parent / "config/evaluation").glob("[!_]*.py")):
        kinds = (one for one in ast.parse(file.read_bytes()).body if isinstance(one, ast.ClassDef))
        kind = next(one for one in kinds if one.name.endswith("Settings"))
        summary = (ast.get_docstring(kind) or "").partition("\n\n")[0]
        yield f"eval {file.stem}", (f"eval:{file.stem}", summary)


_COMMANDS = {
    "demo": (
        "demo:demo",
        "Read a sentence, name unseen concepts, compare with controls, train a little, report.",
    ),
    "train": ("train:train", "Train an adapter through a frozen model."),
    "label": ("label:label", "Label vectors with a trained adapter."),
    "read": ("read:read", "Label every layer and token of a prompt."),
    "serve": ("serve:serve", "The same in the browser, on this machine."),
    "report": (
        "report:report",
        "One page for runs of label, train and eval: labels, controls, curves, failures.",
    ),
    "export": (
        "export:export",
        "A labelling run for spreadsheets, training, Neuronpedia or other programs.",
    ),
    "configs": (
        "configs:configs",
        "List the configurations that come with the package, or print one.",
    ),
    "doctor": (
        "doctor:doctor",
        "Check the installation, and prove that soft tokens work with your model.",
    ),
    **dict(_protocols()),
    "eval published": (
        "eval_published:published",
        "Scores of published result files (hit rates) and label files (retrieval).",
    ),
    "data inspect": (
        "data:inspect",
        "Sections, splits, labels, norms, and everything that is wrong.",
    ),
    "data fetch": ("data:fetch", "Fetch a published data file, checked."),
    "data check": ("data:check", "Will it train? Exit code 1 and what is wrong if not."),
    "data merge": ("data:merge", "Several training files into one."),
    "data split": ("data:split", "Choose the validation rows again."),
    "data convert": ("data:convert", "Vector files between .pt and .safetensors."),
    "prepare sae": ("prepare:sae", "Decoder vectors of an SAE with their labels."),
    "prepare list": ("prepare:list_saes", "Search SAELens' registry of published SAEs."),
    "prepare topics": (
        "prepare:topics",
        "Topic vectors from prompts or names, with their labels.",
    ),
    "prepare difference": (
        "prepare:difference",
        "States of a fine-tune minus those of its base.",
    ),
    "prepare labels": ("prepare:labels", "The labels of a Neuronpedia source, as JSON lines."),
    "prepare dataset": (
        "prepare:dataset",
        "Prompts and labels for titles, written by a chat model.",
    ),
    "adapter show": (
        "adapter:show",
        "Kind, size, scale, singular values, training record, binding.",
    ),
    "adapter push": (
        "adapter_sharing:push",
        "Share an adapter on the hub, with means, calibration and a model card.",
    ),
    "adapter pull": ("adapter_sharing:pull", "Copy a shared adapter from the hub."),
    "confidence fit": (
        "confidence:fit",
        "Calibrate on held-out labelled vectors; choose when to abstain.",
    ),
    "runs": ("runs:runs", "List training runs, compare two of them."),
    "prompt show": ("prompt:show", "The prompt's tokens with the sites marked."),
}
"""The words of each command, in the order of help: where it is, and what it does."""

for _words, (_where, _help) in _COMMANDS.items():
    _group, _, _name = _words.rpartition(" ")
    if _group and _group not in app:
        app.command(App(name=_group, help=_GROUPS[_group]))
    (app[_group] if _group else app).command(f"{COMMANDS}.{_where}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `selfie`: errors made on purpose become one red line, never a traceback.

    arguments: what follows `selfie`; None takes the process's own.
    """
    with interruption.installed():
        _run(sys.argv[1:] if arguments is None else arguments)


def _run(arguments: Sequence[str]) -> None:
    with output.prepared():
        try:
            _answer(arguments)
        except BrokenPipeError:  # the reader (head, less) went away
            output.drop()
            sys.exit(output.CLOSED)
        except SystemExit as ended:
            if isinstance(ended.__context__, BrokenPipeError):  # rich noticed it first
                sys.exit(output.CLOSED)
            raise


def _answer(arguments: Sequence[str]) -> None:
    """Run a command and put out all that it printed. Raises BrokenPipeError and SystemExit."""
    try:
        try:
            app(arguments)
        finally:
            sys.stdout.flush()  # not at the interpreter's end, where nothing can answer an error
    except SelfieError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        output.drop()  # it may be the output itself that cannot be written
        _fail(f"{error.filename or 'output'}: {error.strerror or error}.", 1)


def _fail(message: str, code: int) -> NoReturn:
    from rich.console import Console
    from rich.text import Text

    # A styled text, not a style of the print: rich 14 would color the end of the line too.
    Console(stderr=True, soft_wrap=True).print(
        Text(output.visible(f"error: {message}", keep="\n"), style="red")
    )
    sys.exit(code)
