"""Label files in the training format: labels whose vectors have not been made yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.dataset.schema import Problem, section_place


def labels_only(file: Path, document: Any) -> Iterator[Problem]:
    """One problem per section of a published label file, which has no `filename`; else none."""
    if not isinstance(document, list) or not document:
        return
    for number, section in enumerate(document):
        metadata = section.get("metadata") if isinstance(section, dict) else None
        if not isinstance(metadata, dict) or "filename" in metadata or not section.get("vectors"):
            return
        release, sae = _sae_of(metadata)
        yield Problem(
            section_place(number, metadata),
            "labels only: there is no filename, so the vectors are missing",
            "Make them from the SAE: selfie prepare sae "
            f"--release {release} --sae-id {sae} --labels-json {file} --output-dir data "
            f"--output-name {file.name.removesuffix('.gz').removesuffix('.json')}",
        )


def _sae_of(metadata: dict[str, Any]) -> tuple[str, str]:
    """SAELens release and id as far as the metadata states it."""
    name = str(metadata.get("dataset_name", ""))
    known = metadata.get("saelens_release"), metadata.get("saelens_sae_id")
    layer = metadata.get("layer", "…")
    guesses = {
        "Goodfire/Llama-3.1-8B": "goodfire-llama-3.1-8b-instruct",
        "Goodfire/Llama-3.3-70B": "goodfire-llama-3.3-70b-instruct",
    }
    guess = next((r for start, r in guesses.items() if name.startswith(start)), "RELEASE")
    return str(known[0] or guess), str(known[1] or f"layer_{layer}")
