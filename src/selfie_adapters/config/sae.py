"""What `selfie prepare sae` and `selfie prepare labels` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from selfie_adapters.config.reading import Settings
from selfie_adapters.config.shared import SplitSettings
from selfie_adapters.config.types import Option


class LabelSourceSettings(Settings):
    """Where labels are fetched from, and which of them are kept."""

    labels_url: str | None = None
    """Copy of Neuronpedia's export bucket: a folder, or an address that answers S3's listing."""
    explainer: Annotated[str | None, Option(default="the one that labels the most latents")] = None
    """Keep the labels of this model, or model/type."""
    all_explainers: bool = False
    """Keep the labels of all of them."""


class SaeSettings(LabelSourceSettings, SplitSettings):
    """Which SAE, which labels, and how to split them."""

    output_name: str
    """Name of both files: {output-name}.pt and {output-name}_labels.json."""
    output_dir: Path = Path("data")
    """Folder to write them to."""
    release: str | None = None
    """Release in SAELens' registry, or its hub repository; see selfie prepare list."""
    sae_id: str | None = None
    """SAE of the release."""
    sae_path: Path | None = None
    """SAE on disk: a folder, or a file with a decoder. With --release: its weights' file."""
    layer: int | None = None
    """Block whose output the vectors are directions of, zero-based; where nothing else states
    it."""
    neuronpedia_id: str | None = None
    """Source of the labels, model/source, where the registry does not know it."""
    labels_json: Path | None = None
    """Labels from a file: {"12": "label", …}, the training format, or JSON lines with index and
    description; .gz too."""
    labels_jsonl: Path | None = None
    """The same; a file whose content leaves it open is read as JSON lines."""
    one_label: bool = False
    """Keep a latent's first label only."""
    force_new_split: bool = False
    """Split again even if the label file has splits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the vectors; bfloat16 and float16 halve the file."""
    device: str = "cpu"
    """Where SAELens loads what it alone can read; all else is copying and needs no GPU."""


class LabelFileSettings(LabelSourceSettings):
    """Which labels of a Neuronpedia source are written."""

    source: Annotated[str, Option(positional=True)]
    """model/source, such as llama3.1-8b/19-llamascope-res-32k."""
