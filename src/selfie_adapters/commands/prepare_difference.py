"""`selfie prepare difference`: what a fine-tune changed, as vectors."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Overwrite, options
from selfie_adapters.commands.printing import print_line, print_table
from selfie_adapters.config.prepare import DifferenceSettings

if TYPE_CHECKING:
    from torch import Tensor

    from selfie_adapters.model import FrozenModel


@options(DifferenceSettings)
def difference(settings: DifferenceSettings, *, out: str, overwrite: Overwrite = False) -> None:
    """Subtract the states of one model from those of another, at the same tokens of the prompts.

    Row 0 of each section is the mean over prompts, row n the difference at prompt n. With --minus
    the models are loaded one after the other.

    Parameters
    ----------
    out
        Training file to write (.json or .json.gz); vectors go to the same folder.
    """
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.files.text_lines import read_prompts
    from selfie_adapters.model import load_model, with_lora
    from selfie_adapters.model.loading import load_tokenizer
    from selfie_adapters.sources.topics.difference import (
        check_tokens,
        difference_files,
        formatted,
        states_of,
        write_differences,
    )

    layers, positions, device = settings.layers, settings.positions, settings.device
    difference_files(out, layers, positions, overwrite)  # before a model is loaded
    prompts = read_prompts(settings.prompts)
    check_inputs(model=settings.model, lora=settings.lora, device=device)
    check_inputs(model=settings.minus)
    console = Console()
    first = load_model(settings.model, settings.dtype, device)
    second = first
    if settings.lora is not None:
        first = with_lora(first, settings.lora)
    texts = formatted(first, prompts, settings.chat)
    with progress_bars(console) as bars:
        total = len(prompts) * len(positions)

        def states(model: FrozenModel, name: str) -> Tensor:
            task = bars.add_task(f"states of {name}", total=total)
            return states_of(model, texts, layers, positions, lambda more: bars.advance(task, more))

        if settings.minus is not None:
            check_tokens(first, load_tokenizer(settings.minus), texts, settings.minus)
        found, name = states(first, settings.lora or settings.model), first.name
        if settings.minus is not None:
            del first, second  # one model at a time in memory
            gc.collect()
            second = load_model(settings.minus, settings.dtype, device)
        subtracted = states(second, settings.minus or settings.model)
    facts = {
        "model": name,
        "minus": second.name,
        "model_dim": second.d_model,
        "chat": settings.chat,
        "prompts": len(prompts),
    }
    changes = write_differences(
        out, found, subtracted, prompts, layers, positions, facts, overwrite
    )
    print_table(
        ("layer", "position", "‖mean‖", "mean ‖difference‖", "of the state", "agreement"),
        [
            (
                change.layer,
                change.position,
                f"{change.mean_norm:.3g}",
                f"{change.norm:.3g}",
                f"{change.relative:.1%}",
                "–" if change.agreement is None else f"{change.agreement:.2f}",
            )
            for change in changes
        ],
        console=console,
        names=0,
    )
    print_line(f"{len(prompts)} prompts: {out}", console)
