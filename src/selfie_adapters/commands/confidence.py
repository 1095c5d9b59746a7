"""`selfie confidence fit`: when to believe a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.config.labelling import ConfidenceSettings
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.labelling.confidence import Calibration, Confidence


@options(ConfidenceSettings)
def fit(settings: ConfidenceSettings, *, out: str | None = None, json: Json = False) -> None:
    """Label held-out vectors whose labels are known, and learn when to believe a label.

    A label is right if it is one of the vector's own labels, ignoring case and whitespace. Each
    layer and kind of position in the training file gets a calibration of its own.

    Parameters
    ----------
    out
        File to write; default: {adapter}.confidence.json in the adapter's folder, where selfie
        label finds it.
    """
    require_extra("confidence", "selfie confidence fit")
    if settings.figure is not None:
        require_extra("report", "selfie confidence fit --figure", "matplotlib")
    from selfie_adapters.adapters import find_adapter_file
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import count_shown
    from selfie_adapters.labelling.calibration import calibrate, first_of_each_section
    from selfie_adapters.labelling.confidence import confidence_file
    from selfie_adapters.labelling.inputs import open_source
    from selfie_adapters.labelling.worker import ShardWorker

    run = settings.label_settings(limit=None)
    check_inputs(model=run.model, device=run.device, adapters=[run.adapter])
    source = open_source(run)
    console = Console(quiet=json)
    with count_shown(console, "vectors") as progress:
        worker = ShardWorker(run, source)
        fitted = calibrate(
            worker,
            first_of_each_section(source, settings.limit),
            settings.precision,
            settings.control_rate,
            settings.controls,
            progress,
        )
    path = confidence_file(find_adapter_file(settings.adapter)) if out is None else Path(out)
    fitted.save(path)
    if settings.figure is not None:
        from selfie_adapters.files import write_text
        from selfie_adapters.report.figures import reliability_diagram

        write_text(settings.figure, reliability_diagram(fitted.measured["reliability"]))
    if json:
        print_json([{"file": str(path), **fitted.fields()}])
    for line in (*_summary(fitted), f"confidence: {path}"):
        print_line(line, console)


def _summary(fitted: Confidence) -> Iterator[str]:
    """What was measured: all places together, then one line for each."""
    m = fitted.measured
    silent = f", {m['no_concept']} answer no concept" if m["no_concept"] else ""
    yield f"{m['right']} of {m['vectors']} labels are right{silent}."
    yield f"{'all' if fitted.places else 'shown'}: {_shown(fitted, m)}"
    for place in fitted.places:
        at = "" if place.position is None else f" at {place.position}"
        yield f"layer {place.layer}{at}: {_shown(place, place.measured)}"
    for kind, counts in m["controls"].items():
        yield f"{kind}: {counts['shown']} of {counts['vectors']} shown as a concept"


def _shown(calibration: Calibration, m: dict[str, Any]) -> str:
    if calibration.threshold is None:
        return f"nothing is shown: no threshold keeps {m['asked_precision']:.0%} right"
    share = f" ({m['shown_and_right'] / m['shown']:.0%})" if m["shown"] else ""
    few = "too few labels of its own, so the common threshold holds: " if "common" in m else ""
    return (
        f"{few}at confidence {calibration.threshold:.2f} and above {m['shown']} of {m['vectors']} "
        f"are shown, {m['shown_and_right']} of those right{share}; {_quality(m)}"
    )


def _quality(m: Mapping[str, Any]) -> str:
    """How good the probabilities of labels are that were not fitted on."""
    found = ", ".join(f"{name.upper()} {_number(m.get(name))}" for name in ("auroc", "nll", "ece"))
    others = m.get("without_agreement")
    return found if others is None else f"{found} (without agreement: {_quality(others)})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
