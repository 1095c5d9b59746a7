"""`selfie confidence fit`: when to believe a label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.labelling.confidence import Calibration, Confidence


def fit(
    source: str,
    *,
    adapter: str,
    model: str,
    out: str | None = None,
    figure: str | None = None,
    precision: float = 0.8,
    control_rate: float = 0.05,
    controls: int = 200,
    split: Literal["train", "val"] = "val",
    limit: int | None = None,
    scales: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    samples: int = 1,
    best_of: int | None = None,
    temperature: float | None = None,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    max_new_tokens: int = 30,
    seed: int = 0,
    batch_size: int | None = None,
    dtype: str = "auto",
    template: str | None = None,
    placeholder: str | None = None,
    device: str | None = None,
) -> None:
    """Label held-out vectors whose labels are known, and learn when to believe a label.

    A label is right if it is one of the vector's own labels, ignoring case and whitespace. Each
    layer and kind of position in the training file gets a calibration of its own.

    Parameters
    ----------
    source
        Training file with vectors that the adapter was not trained on.
    adapter
        Adapter file.
    model
        Hub id, local folder, .gguf file, or demo.
    out
        File to write; default: {adapter}.confidence.json next to the adapter, where selfie label
        finds it.
    figure
        SVG file for the reliability figure.
    precision
        Share of the labels shown that is right on new vectors: the lower end of its 95 % interval
        must reach it. Labels below the threshold that results are withheld.
    control_rate
        Share of vectors that mean nothing (random directions, the zero vector, vectors without a
        concept) that may be shown as a concept: the upper end of its 95 % interval.
    controls
        How many random directions are labelled for each layer.
    split
        Which vectors of the training file.
    limit
        Only the first N vectors of each layer and position.
    scales, samples, best_of, temperature, top_p, repetition_penalty, max_new_tokens, seed
        As in selfie label; the confidence holds for labels drawn like these.
    batch_size
        Labels at a time; default: 256 on a CPU, up to 2,048 on a GPU.
    dtype
        Dtype of the model: auto, bfloat16, float16, float32.
    template
        Prompt text with the placeholder; default: the adapter's, else that of selfie prompt show.
    placeholder
        The token of the prompt that each soft token replaces; default: that of the prompt.
    device
        Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices;
        default: the first GPU, else the CPU.
    """
    require_extra("confidence", "selfie confidence fit")
    if figure is not None:
        require_extra("report", "selfie confidence fit --figure", "matplotlib")
    from selfie_adapters.adapters import find_adapter_file
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.label import drawing
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.config.labelling import LabelSettings
    from selfie_adapters.labelling.calibration import calibrate, first_of_each_section
    from selfie_adapters.labelling.confidence import confidence_file
    from selfie_adapters.labelling.inputs import open_source
    from selfie_adapters.labelling.worker import ShardWorker

    settings = LabelSettings.checked(
        source=source,
        model=model,
        adapter=adapter,
        split=split,
        **drawing(adapter, scales, samples, best_of, temperature),
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        dtype=dtype,
        template=template,
        placeholder=placeholder,
        device=device,
    )
    check_inputs(model=model, device=device, adapters=[adapter])
    source_of_vectors = open_source(settings)
    console = Console()
    with progress_bars(console) as progress:
        task = progress.add_task("vectors", total=None)
        worker = ShardWorker(settings, source_of_vectors)
        fitted = calibrate(
            worker,
            first_of_each_section(source_of_vectors, limit),
            precision,
            control_rate,
            controls,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    path = Path(out) if out is not None else confidence_file(find_adapter_file(adapter))
    fitted.save(path)
    if figure is not None:
        from selfie_adapters.files import write_text
        from selfie_adapters.report.figures import reliability_diagram

        write_text(figure, reliability_diagram(fitted.measured["reliability"]))
    for line in _summary(fitted):
        console.print(line, highlight=False, markup=False)
    console.print(f"confidence: {path}", highlight=False, markup=False)


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
        f"are shown, {m['shown_and_right']} of those right{share}; AUROC {_number(m.get('auroc'))}"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
