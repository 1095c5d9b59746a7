"""Tables of Natural Language Autoencoders: Parquet with activation vectors and explanations.

Columns: `activation_vector`; `response`, the explanation in tags; `activation_layer`. Next to
X.parquet, X.parquet.nla_meta.yaml states width and layer (github.com/kitft/
natural_language_autoencoders, nla/schema.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.config.yaml_reading import read_yaml
from selfie_adapters.errors import DataError
from selfie_adapters.files.table_rows import file_rows

ACTIVATIONS = "activation_vector"
RESPONSE = "response"
LAYER = "activation_layer"
INJECT = "<INJECT>"
KIND, SCHEMA_VERSION = "nla_dataset", 2

_EXPLANATION = re.compile(r"<explanation>(.*?)</explanation>", re.DOTALL)


@dataclass(frozen=True)
class Sidecar:
    """What X.parquet.nla_meta.yaml states about the vectors; None: it does not."""

    file: Path
    d_model: int | None
    layer: int | None


def sidecar_file(table: str | Path) -> Path:
    """Where the sidecar of a table is."""
    path = Path(table)
    return path.with_name(f"{path.name}.nla_meta.yaml")


def read_sidecar(table: str | Path) -> Sidecar | None:
    """The sidecar of a table, None where there is none. Raises DataError for a wrong one."""
    file = sidecar_file(table)
    if not file.is_file():
        return None
    content = read_yaml(file)
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise DataError(f"{file}: kind: {KIND} is expected. Restore the file or remove it.")
    extraction = content.get("extraction") or {}
    if not isinstance(extraction, dict):
        raise DataError(f"{file}: extraction is {extraction!r:.60}; keys with values are expected.")
    return Sidecar(
        file,
        _whole(file, "extraction.d_model", extraction.get("d_model"), 1),
        _whole(file, "extraction.layer_index", extraction.get("layer_index"), 0),
    )


def explanation(response: str) -> str:
    """The text between the tags of an answer; the whole answer where it has none."""
    found = _EXPLANATION.search(response)
    return (found[1] if found else response).strip()


def tagged(label: str) -> str:
    """A label as the answer that such a model is trained to give."""
    return f"<explanation>\n{label}\n</explanation>"


def read_explanations(table: Path) -> dict[int, str]:
    """Explanations by row, blank ones included.

    Raises MissingExtraError without pyarrow; DataError naming file and row for a table without the
    column `response`, and for values that are no text.
    """
    found: dict[int, str] = {}
    for row, (place, values) in enumerate(file_rows(table, columns=[RESPONSE])):
        text = values.get(RESPONSE)
        if text is not None and not isinstance(text, str):
            raise DataError(f"{place}: {RESPONSE} is {text!r:.60}; a string is expected.")
        found[row] = explanation(text or "")
    return found


def _whole(file: Path, key: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not least <= value < 2**31:
        raise DataError(f"{file}: {key} is {value!r:.60}; an integer is expected.")
    return value
