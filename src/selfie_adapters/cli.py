"""The command table. It imports no torch: each command's module is loaded when it is called."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import App

from selfie_adapters import interruption, output
from selfie_adapters.errors import SelfieError
from selfie_adapters.installed import own_version

COMMANDS = "selfie_adapters.commands"

app = App(
    name="selfie",
    suppress_keyboard_interrupt=False,  # interruption.py says what stopped it
    help="Ask a language model what its own vectors mean.",
    version=own_version,
)

app.register_install_completion_command()


def _group(name: str, help: str) -> App:
    group = App(name=name, help=help)
    app.command(group)
    return group


app.command(
    f"{COMMANDS}.demo:demo",
    name="demo",
    help="Read a sentence, name unseen concepts, compare with controls, train a little, report.",
)
app.command(
    f"{COMMANDS}.train:train", name="train", help="Train an adapter through a frozen model."
)
app.command(f"{COMMANDS}.label:label", name="label", help="Label vectors with a trained adapter.")
app.command(f"{COMMANDS}.read:read", name="read", help="Label every layer and token of a prompt.")
app.command(
    f"{COMMANDS}.serve:serve", name="serve", help="The same in the browser, on this machine."
)
app.command(
    f"{COMMANDS}.report:report",
    name="report",
    help="One page for runs of label, train and eval: labels, controls, curves, failures.",
)
app.command(
    f"{COMMANDS}.export:export",
    name="export",
    help="A labelling run for spreadsheets, training, Neuronpedia or other programs.",
)
app.command(
    f"{COMMANDS}.configs:configs",
    name="configs",
    help="List the configurations that come with the package, or print one.",
)
app.command(
    f"{COMMANDS}.doctor:doctor",
    name="doctor",
    help="Check the installation, and prove that soft tokens work with your model.",
)
_eval = _group("eval", "Measure labels by a protocol, alongside controls.")


def _summary(file: Path) -> str:
    """First paragraph of the docstring of the settings class in `file`, which is not imported."""
    kinds = (one for one in ast.parse(file.read_bytes()).body if isinstance(one, ast.ClassDef))
    kind = next(one for one in kinds if one.name.endswith("Settings"))
    return (ast.get_docstring(kind) or "").partition("\n\n")[0]


for _protocol in sorted((Path(__file__).parent / "config/evaluation").glob("[!_]*.py")):
    _eval.command(
        f"{COMMANDS}.eval:{_protocol.stem}", name=_protocol.stem, help=_summary(_protocol)
    )

_eval.command(
    f"{COMMANDS}.eval_published:published",
    name="published",
    help="Scores of published result files (hit rates) and label files (retrieval).",
)


_data = _group("data", "Look at and check training files; fetch the published ones.")
_data.command(
    f"{COMMANDS}.data:inspect",
    name="inspect",
    help="Sections, splits, labels, norms, and everything that is wrong.",
)

_data.command(f"{COMMANDS}.data:fetch", name="fetch", help="Fetch a published data file, checked.")

for _name, _help in {
    "check": "Will it train? Exit code 1 and what is wrong if not.",
    "merge": "Several training files into one.",
    "split": "Choose the validation rows again.",
    "convert": "Vector files between .pt and .safetensors.",
}.items():
    _data.command(f"{COMMANDS}.data_edit:{_name}", name=_name, help=_help)

_prepare = _group("prepare", "Make training files.")
_prepare.command(
    f"{COMMANDS}.prepare:sae",
    name="sae",
    help="Decoder vectors of an SAE with their labels.",
)
_prepare.command(
    f"{COMMANDS}.prepare_list:list_saes",
    name="list",
    help="Search SAELens' registry of published SAEs.",
)
_prepare.command(
    f"{COMMANDS}.prepare:topics",
    name="topics",
    help="Topic vectors from prompts or names, with their labels.",
)

_prepare.command(
    f"{COMMANDS}.prepare_difference:difference",
    name="difference",
    help="States of a fine-tune minus those of its base.",
)

_prepare.command(
    f"{COMMANDS}.prepare:labels",
    name="labels",
    help="The labels of a Neuronpedia source, as JSON lines.",
)

_prepare.command(
    f"{COMMANDS}.prepare:dataset",
    name="dataset",
    help="Prompts and labels for titles, written by a chat model.",
)

_adapter = _group("adapter", "Look at adapter files; share them on the hub.")
_adapter.command(
    f"{COMMANDS}.adapter:show",
    name="show",
    help="Kind, size, scale, singular values, training record, binding.",
)
_adapter.command(
    f"{COMMANDS}.adapter_sharing:push",
    name="push",
    help="Share an adapter on the hub, with means, calibration and a model card.",
)
_adapter.command(
    f"{COMMANDS}.adapter_sharing:pull", name="pull", help="Copy a shared adapter from the hub."
)

_confidence = _group("confidence", "When to believe a label.")
_confidence.command(
    f"{COMMANDS}.confidence:fit",
    name="fit",
    help="Calibrate on held-out labelled vectors; choose when to abstain.",
)


_runs = _group("runs", "List training runs, compare two of them.")
_runs.command(
    f"{COMMANDS}.runs:compare",
    name="compare",
    help="Where two runs differ: configuration, validation losses, training losses.",
)


@_runs.default
def _list_runs(folder: str = "runs", /, *, json: bool = False) -> None:
    """List the runs in a folder, lowest validation loss first.

    Parameters
    ----------
    folder
        Where run folders are (training.checkpoint_dir).
    json
        Print one JSON object a line instead of a table.
    """
    from selfie_adapters.commands.runs import runs

    runs(folder, json=json)


_prompt = _group("prompt", "Look at soft prompts.")
_prompt.command(
    f"{COMMANDS}.prompt:show", name="show", help="The prompt's tokens with the sites marked."
)


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
