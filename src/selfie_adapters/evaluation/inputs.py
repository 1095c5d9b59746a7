"""Hashes of what an evaluation depends on."""

from __future__ import annotations

import hashlib
import json

from selfie_adapters.dataset import VectorLabelDataset
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.labelling.run_record import vectors_hash


def dataset_hash(dataset: VectorLabelDataset) -> str:
    """SHA-256 of a training file's vectors that have labels, of these and of their splits."""
    items = dataset.labelled()
    labels = [(item.split, item.labels) for item in items]
    digest = hashlib.sha256(json.dumps(labels).encode())
    places = [(item.section, item.row) for item in items]
    digest.update(vectors_hash(LabelSource(dataset, None, places)).encode())
    return digest.hexdigest()
