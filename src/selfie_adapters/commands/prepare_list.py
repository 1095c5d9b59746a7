"""`selfie prepare list`: search SAELens' registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.config.commands import SaeSearch

if TYPE_CHECKING:
    from selfie_adapters.sources.sae.registry import RegisteredSae

_SHOWN = 40  # single SAEs; more are counted by release


@options(SaeSearch)
def list_saes(settings: SaeSearch, *, json: Json = False) -> None:
    """Search SAELens' registry of published SAEs."""
    from selfie_adapters.sources.sae.registry import search_registry

    found = search_registry(settings.words, settings.model, settings.labelled)
    if json:
        print_json(_row(entry) for entry in found)
        return
    console = Console()
    if not found:
        print_line("no SAE matches; fewer words find more", console)
        return
    _print_columns(console, _by_sae(found) if len(found) <= _SHOWN else _by_release(found))
    with_labels = sum(entry.neuronpedia_id is not None for entry in found)
    releases = len({entry.release for entry in found})
    print_line(
        f"{len(found)} SAEs in {releases} releases, {with_labels} with a Neuronpedia source",
        console,
    )


def _row(entry: RegisteredSae) -> dict[str, str | None]:
    return {
        "release": entry.release,
        "sae_id": entry.sae_id,
        "model": entry.model,
        "repository": entry.repo,
        "path": entry.path,
        "neuronpedia_id": entry.neuronpedia_id,
    }


def _by_sae(found: list[RegisteredSae]) -> list[tuple[str, ...]]:
    rows = [(e.release, e.sae_id, e.model, e.neuronpedia_id or "–") for e in found]
    return [("release", "SAE id", "model", "labels on Neuronpedia"), *rows]


def _by_release(found: list[RegisteredSae]) -> list[tuple[str, ...]]:
    releases: dict[str, list[RegisteredSae]] = {}
    for entry in found:
        releases.setdefault(entry.release, []).append(entry)
    rows = [("release", "model", "SAEs", "labelled", "one of them")]
    for release, saes in releases.items():
        labelled = [entry for entry in saes if entry.neuronpedia_id]
        example = (labelled or saes)[0].sae_id
        rows.append((release, saes[0].model, str(len(saes)), str(len(labelled)), example))
    return rows


def _print_columns(console: Console, rows: list[tuple[str, ...]]) -> None:
    """Aligned, and never cut: names are there to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip(), console, "bold" if number == 0 else None)
