"""`selfie adapter show`: what is in an adapter file."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, rich_table
from selfie_adapters.config.commands import AdapterFileSettings

if TYPE_CHECKING:
    from selfie_adapters.adapters import Adapter

TOP_SINGULAR_VALUES = 8

MAIN_CONFIG_KEYS = (
    "experiment_name",
    "seed",
    "model.name",
    "model.dtype",
    "data.labels_file",
    "data.batch_size",
    "training.optimizer_type",
    "training.learning_rate",
    "training.scheduler_type",
    "training.num_epochs",
    "training.max_steps",
)


@options(AdapterFileSettings)
def show(settings: AdapterFileSettings, *, json: Json = False) -> None:
    """Print what is in an adapter file."""
    from selfie_adapters.adapters import find_adapter_file, load_adapter

    path = find_adapter_file(settings.file)
    facts = describe(load_adapter(path), path)
    if json:
        print_json([facts])
        return

    Console().print(
        rich_table(("", ""), rows(facts), show_header=False, box=None, padding=(0, 2, 0, 0))
    )


def describe(adapter: Adapter, path: Path) -> dict[str, Any]:
    """All that is shown, as plain JSON values: the adapter's metadata, the file, the geometry.

    `singular_values` are the largest few, descending, of U Vᵀ or W; `low_rank_share` is
    ‖U Vᵀ‖_F / (scale·√d). A key whose quantity the kind does not have is None.
    """
    values = adapter.singular_values()
    return {
        "file": str(path),
        "file_bytes": path.stat().st_size,
        **adapter.get_metadata(),
        "scale": adapter.scale(),
        "bias_norm": adapter.bias_norm(),
        "singular_values": None if values is None else values[:TOP_SINGULAR_VALUES].tolist(),
        "low_rank_share": adapter.low_rank_share(),
    }


def rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The table's rows: name and value, both text. Quantities the kind does not have are absent."""
    found = [
        ("file", facts["file"]),
        ("kind", facts["kind"]),
        (
            "size",
            f"{facts['num_parameters']:,} parameters, width {facts['dim']:,}, "
            f"{facts['file_bytes']:,} bytes",
        ),
        ("input", "normalized to unit length" if facts["normalize_input"] else "as it is"),
    ]
    if facts["scale"] is not None:
        found.append(("scale", f"{facts['scale']:.4g} (started at {facts['init_scale']:g})"))
    if facts["bias_norm"] is not None:
        found.append(("bias norm", f"{facts['bias_norm']:.4g}"))
    if facts["singular_values"] is not None:
        total = facts["low_rank_rank"] or facts["dim"]
        matrix = "U Vᵀ" if facts["low_rank_rank"] else "W"
        shown = " ".join(f"{value:.3g}" for value in facts["singular_values"])
        count = min(TOP_SINGULAR_VALUES, total)
        found.append(("singular values", f"{shown} ({count} largest of {total} of {matrix})"))
    if facts["low_rank_share"] is not None:
        found.append(
            ("low-rank share", f"{facts['low_rank_share']:.1%} of the scaled identity's norm")
        )
    loss = facts["best_val_loss"]
    validated = "not validated" if loss is None else f"best validation loss {loss:.4f}"
    found.append(("trained", f"{facts['global_step']:,} steps, {validated}"))
    found += [
        (f"  {key}", str(value))
        for key in MAIN_CONFIG_KEYS
        if (value := _at(facts["config"], key)) is not None
    ]
    return found + _binding_rows(facts["binding"])


def _binding_rows(binding: dict[str, Any] | None) -> list[tuple[str, str]]:
    if binding is None:
        return [("binding", "not bound (fit to model and prompt cannot be checked)")]
    revision = f" at {binding['revision']}" if binding["revision"] else ""
    layer = "" if binding["layer"] is None else f", vectors from layer {binding['layer']}"
    sites = ", ".join(map(str, binding["sites"]))
    norm, fingerprint = binding["mean_embedding_norm"], binding["fingerprint"]
    libraries = ", ".join(f"{name} {version}" for name, version in binding["versions"].items())
    found = [
        ("binding", f"{binding['model']}{revision}, d_model {binding['d_model']:,}{layer}"),
        ("  template", json_module.dumps(binding["template"], ensure_ascii=False)),
        (
            "  placeholder",
            f"{binding['placeholder']} (token {binding['placeholder_id']}) at positions {sites}",
        ),
        ("  embedding norm", f"{norm:.4g} (mean)"),
        ("  fingerprint", f"{len(fingerprint)} numbers" if fingerprint else "none"),
    ]
    return [*found, ("  versions", libraries)] if libraries else found


def _at(config: dict[str, Any], dotted: str) -> Any:
    """`config["a"]["b"]` for "a.b"; None where a level is missing."""
    value: Any = config
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
