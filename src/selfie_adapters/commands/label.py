"""`selfie label`: vectors in, labels out."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.commands.label_tables import show_controls, show_labels, show_why
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.config.labelling import LabelSettings
    from selfie_adapters.labelling.job import LabelJob


def label(
    source: str = "demo",
    *,
    model: str = "demo",
    out: str = "labels",
    adapter: str | None = None,
    confidence: str | None = None,
    mean: str | None = None,
    layer: int | None = None,
    split: Literal["train", "val", "test", "all"] = "all",
    which: Literal["decoder", "encoder"] = "decoder",
    indices: str | None = None,
    limit: int | None = None,
    scales: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    samples: int = 1,
    best_of: int | None = None,
    explain: Annotated[bool, Parameter(negative=())] = False,
    show_withheld: Annotated[bool, Parameter(negative=())] = False,
    temperature: float | None = None,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    max_new_tokens: int = 30,
    seed: int = 0,
    batch_size: int | None = None,
    shard_size: int | None = None,
    dtype: str = "auto",
    device: str | None = None,
    engine: Literal["local", "ray", "vllm"] = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    template: str | None = None,
    placeholder: str | None = None,
    ignore_binding: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Label vectors, one JSON line per label. Stopped at any moment, it resumes where it stopped.

    Parameters
    ----------
    source
        Training file (.json, .json.gz), vectors alone (.pt, .safetensors, .npy), or a SAE by its
        SAELens names, release:sae_id. Default: 40 nouns of the demo model, for a first look.
    model
        Hub id, local folder, .gguf file, or demo.
    out
        Run folder: config, progress, labels-00000.jsonl and so on.
    adapter
        Adapter file, hub path owner/repo/file.safetensors, or a shipped one's name (default for the
        model demo: demo); none, and the default for other models, is untrained SelfIE.
    confidence
        Confidence file; the one next to the adapter if there is one and it fits.
    mean
        safetensors file with a tensor layer_{i} or layer_{i}_at_{position}, subtracted from the
        vectors first.
    layer
        Which of the means, where neither source nor adapter states it.
    split
        Vectors of this split of a training file: train, val, test, or all of them.
    which
        Which rows of a SAE.
    indices
        Only these rows, such as 0:1000,5.
    limit
        Only the first N vectors.
    scales
        Numbers the adapter's input is multiplied by, such as 0.5,1,2: labels for each.
    samples
        Labels a vector and scale.
    best_of
        Samples per scale; the one with the highest gain over the zero vector is kept.
    explain
        With best-of: keep all, ranked, and show why for the first few vectors.
    show_withheld
        List labels too that are withheld: those for "no concept", and those below the confidence's
        threshold. The files always have them.
    temperature
        0 is greedy; default: 0 for one label and 0.7 for several.
    top_p
        Draw from the most likely tokens that make up this share.
    repetition_penalty
        Above 1: tokens that a label has already are less likely.
    max_new_tokens
        Longest label, in tokens.
    seed
        Makes each label's own seed, together with its row, scale and sample.
    batch_size
        Labels at a time; default: 256 on a CPU, up to 2,048 on a GPU.
    shard_size
        Vectors per file; default: as in the folder that is resumed, else 512, on a GPU 2,048.
    dtype
        Dtype of the model: auto, bfloat16, float16, float32.
    device
        Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices;
        default: the first GPU, else the CPU.
    engine
        local; ray for several processes or machines; vllm (docs/labelling.md).
    workers
        Processes of the ray engine.
    ray_address
        A running Ray cluster; default: one is started for this run.
    template
        Prompt text with the placeholder; default: the adapter's, else that of selfie prompt show.
    placeholder
        The token of the prompt that each soft token replaces; default: that of the prompt.
    ignore_binding
        Continue although the adapter was trained with another model or prompt.
    """
    if engine != "local":
        require_extra(engine, f"selfie label --engine {engine}")
    from selfie_adapters.adapters.locating import find_mean_file, shipped_concepts, usual_adapter
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.config.labelling import LabelSettings
    from selfie_adapters.errors import LabellingError
    from selfie_adapters.files.locking import folder_lock
    from selfie_adapters.labelling.inputs import open_source
    from selfie_adapters.labelling.job import LabelJob, usual_shard_size

    console = Console()
    adapter = usual_adapter(adapter, model)
    mean = find_mean_file(mean, None)
    settings = LabelSettings.checked(
        source=str(shipped_concepts()) if source == "demo" else source,
        model=model,
        adapter=adapter,
        mean=mean,
        layer=layer,
        split=split,
        which=which,
        indices=indices,
        limit=limit,
        explain=explain,
        **drawing(adapter, scales, samples, best_of, temperature),
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        shard_size=usual_shard_size(out, device) if shard_size is None else shard_size,
        dtype=dtype,
        device=device,
        engine="vllm" if engine == "vllm" else "local",
        template=template,
        placeholder=placeholder,
        ignore_binding=ignore_binding,
    )
    check_inputs(model=model, device=device, adapters=[adapter], files=[mean, confidence])
    settings = _with_confidence(console, settings, confidence)
    vectors = open_source(settings)
    with folder_lock(out):
        job = LabelJob(out, settings, vectors)
        _run(console, job, engine, workers, ray_address)
    if explain:
        show_why(console, job.shards[0].path)
    if job.todo():
        show_controls(console, job.folder)
    done = job.progress
    if done.labelled:
        show_labels(console, job, show_withheld)
    if done.failed:
        raise LabellingError(
            f"{done.failed} of {done.vectors} vectors failed and are marked in {job.folder}, the "
            f"first one: {job.first_failure()}. Run the same command again to retry them."
        )
    console.print(f"{done.labelled} vectors labelled: {job.folder}", highlight=False, markup=False)


def drawing(
    adapter: str | None,
    scales: list[str] | None,
    samples: int,
    best_of: int | None,
    temperature: float | None,
) -> dict[str, Any]:
    """Scales and samples, with the defaults that depend on each other.

    Raises ConfigError for scales that are no numbers.
    """
    from selfie_adapters.config.labelling import TRAINED_SCALES, UNTRAINED_SCALES

    several = samples > 1 or (best_of or 1) > 1
    return {
        "scales": _numbers(scales) or (TRAINED_SCALES if adapter else UNTRAINED_SCALES),
        "samples": samples,
        "best_of": best_of,
        "temperature": (0.7 if several else 0.0) if temperature is None else temperature,
    }


def _numbers(texts: list[str] | None) -> list[float]:
    from selfie_adapters.errors import ConfigError

    numbers: list[float] = []
    for text in (part for one in texts or [] for part in one.split(",")):
        try:
            numbers.append(float(text))
        except ValueError:
            raise ConfigError(
                f'scales: "{text}" is not a number; write 0.5,1,2 or 0.5 1 2.'
            ) from None
    return numbers


def _with_confidence(console: Console, settings: LabelSettings, path: str | None) -> LabelSettings:
    """The settings with a confidence file that was fitted on labels drawn as these will be.

    Raises ConfigError for one that was asked for and does not fit; one that is merely in the folder
    of the adapter is then omitted, with a message.
    """
    from selfie_adapters.adapters import find_adapter_file
    from selfie_adapters.errors import ConfigError
    from selfie_adapters.labelling.confidence import Confidence, confidence_file

    file = path
    if file is None and settings.adapter is not None:
        lying = confidence_file(find_adapter_file(settings.adapter))
        file = str(lying) if lying.exists() else None
    if file is None:
        return settings
    difference = Confidence.load(file).other_drawing(settings.way_of_drawing())
    if difference is None:
        return settings.model_copy(update={"confidence": file})
    message = f"{file} was fitted on labels sampled in another way ({difference})"
    if path is not None:
        raise ConfigError(f"{message}. Fit one for these: selfie confidence fit.")
    console.print(
        f"{message}: labels get no confidence.", style="yellow", highlight=False, markup=False
    )
    return settings


def _run(
    console: Console, job: LabelJob, engine: str, workers: int | None, ray_address: str | None
) -> None:
    from selfie_adapters.commands.progress import progress_bars

    if not job.todo():
        return
    with progress_bars(console) as progress:

        def advance(vectors: int) -> None:
            progress.advance(task, vectors)

        if engine == "ray":
            from selfie_adapters.labelling.engines.ray import run_with_ray

            with job.begun():
                task = progress.add_task("vectors", total=job.progress.left)
                run_with_ray(job, workers, ray_address, advance)
            return
        from selfie_adapters.labelling.job import run_here
        from selfie_adapters.labelling.worker import ShardWorker

        worker = ShardWorker(job.settings, job.source)  # before the folder: it may refuse
        with closing(worker), job.begun():
            task = progress.add_task("vectors", total=job.progress.left)
            run_here(job, worker, advance)
