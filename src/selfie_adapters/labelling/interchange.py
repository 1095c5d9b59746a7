"""Labels of a run in the formats of other programs: delphi, SAEBench, NLA tables."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from msgspec import UNSET

from selfie_adapters.dataset import nla
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.extras import extra
from selfie_adapters.files import atomic_path, write_json, write_text
from selfie_adapters.labelling.export import with_vectors
from selfie_adapters.labelling.finished_run import FinishedRun
from selfie_adapters.labelling.neuronpedia import of_one_dataset
from selfie_adapters.labelling.run_record import read_binding

EXPLANATIONS, SCORES, SCORER = "explanations", "scores", "selfie"
_QUESTION = f'What is the meaning of "{nla.INJECT}"?'
_ROW_GROUP = 1024


def to_saebench(run: FinishedRun, out: str | Path) -> int:
    """`explanations_override` of SAEBench's autointerp evaluation: {latent: label} as JSON, whose
    keys are strings. Returns how many. Raises ConfigError for a run over several datasets."""
    labels = {str(row.index): row.label for row in of_one_dataset(run)}
    write_json(out, labels)
    return len(labels)


def to_delphi(run: FinishedRun, out: str | Path, layer: int | None = None) -> int:
    """A folder of delphi's results: explanations/layers.{L}_latent{i}.txt, a JSON string each, and
    scores/selfie/ with what the run knows of the label, in place of delphi's scored examples.

    layer: where it is not known. Explanations and scores of the same layer in `out` are replaced.
    Returns how many. Raises like `with_vectors` and `to_saebench`.
    """
    folder = Path(out)
    rows = list(of_one_dataset(run))
    first = next(iter(with_vectors(run, layer)), None)
    if first is None:
        raise DataError(f"{run.folder}: no vector has a label.")
    site = f"layers.{first.layer}"
    for old in folder.glob(f"*/**/{site}_latent*.txt"):
        old.unlink()
    for row in rows:
        name = f"{site}_latent{row.index}.txt"
        write_text(folder / EXPLANATIONS / name, json.dumps(row.label, ensure_ascii=False))
        score: dict[str, Any] = {
            "str_tokens": [],
            "distance": None,
            "activating": None,
            "prediction": None,
            "probability": None if row.confidence is UNSET else row.confidence,
            "correct": None,
            "gain": row.gain,
            "log_prob": row.log_prob,
        }
        write_text(folder / SCORES / SCORER / name, json.dumps([score]))
    return len(rows)


def to_nla(run: FinishedRun, out: str | Path, layer: int | None = None) -> int:
    """A Parquet table of Natural Language Autoencoders with its sidecar: vectors, and labels as
    the answers to train on.

    layer: where it is not known. Returns how many rows. Raises like `with_vectors`, ConfigError
    for vectors of several layers and for a name that does not end in .parquet.
    """
    with extra("export", "Writing Parquet"):
        import pyarrow
        from pyarrow import parquet
    if Path(out).suffix.lower() != ".parquet":
        raise ConfigError(f"{out}: a name that ends in .parquet is expected.")
    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    schema = pyarrow.schema(
        [
            ("prompt", pyarrow.list_(message)),
            (nla.RESPONSE, pyarrow.string()),
            (nla.ACTIVATIONS, pyarrow.list_(pyarrow.float32())),
            (nla.LAYER, pyarrow.int64()),
            ("doc_id", pyarrow.string()),
        ]
    )
    labelled = with_vectors(run, layer)
    count, width, own = 0, 0, 0
    with atomic_path(out) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while some := list(islice(labelled, _ROW_GROUP)):
            layers = {one.layer for one in some} | ({own} if count else set())
            if len(layers) > 1:
                raise ConfigError(
                    f"{run.folder}: vectors of the layers {', '.join(map(str, sorted(layers)))}; a "
                    "table has one. Label them separately."
                )
            own, width = some[0].layer, len(some[0].vector)
            count += len(some)
            rows = [
                {
                    "prompt": [{"role": "user", "content": _QUESTION}],
                    nla.RESPONSE: nla.tagged(one.row.label),
                    nla.ACTIVATIONS: one.vector.numpy(),
                    nla.LAYER: one.layer,
                    "doc_id": str(one.row.index),
                }
                for one in some
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
        if not count:
            raise DataError(f"{run.folder}: no vector has a label.")
    sidecar = _sidecar(run, count, width, own)
    write_text(nla.sidecar_file(out), yaml.safe_dump(sidecar, sort_keys=False, allow_unicode=True))
    return count


def _sidecar(run: FinishedRun, rows: int, width: int, layer: int | None) -> dict[str, Any]:
    """What X.parquet.nla_meta.yaml states. The vectors are as they were labelled, of any length."""
    model = run.settings.model
    found: dict[str, Any] = {
        "kind": nla.KIND,
        "schema_version": nla.SCHEMA_VERSION,
        "stage": "av_sft",
        "row_count": rows,
        "extraction": {
            "base_model": Path(model).name if Path(model).exists() else model,
            "d_model": width,
            "layer_index": layer,
            "norm": "none",
            "injection_scale": None,
            "mse_scale": None,
        },
    }
    binding = read_binding(run.folder)
    if binding is not None:  # what a soft token takes the place of here
        found["tokens"] = {
            "injection_char": binding.placeholder,
            "injection_token_id": binding.placeholder_id,
        }
    return found
