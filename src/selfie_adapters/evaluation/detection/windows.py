"""Windows of text that activate a latent, and windows that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file, read_plain
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.inference.sampling import row_seed
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.tokens import begun_ids, plain_begin
from selfie_adapters.sources.sae.encoder import LatentEncoder

MARK = "<<{}>>"


@dataclass(frozen=True)
class Window:
    """A window as the judge sees it. fits: the right answer."""

    text: str
    fits: bool


@dataclass(frozen=True)
class Corpus:
    """All windows of all documents.

    rows: token ids of the documents. spans: of each window, its document, its first token and the
    one after its last. peaks: [windows, latents], each window's highest activation.
    """

    rows: Sequence[Sequence[int]]
    spans: Sequence[tuple[int, int, int]]
    peaks: np.ndarray

    def tokens(self, window: int) -> list[int]:
        text, first, last = self.spans[window]
        return list(self.rows[text][first:last])


def read_texts(path: str | Path) -> list[str]:
    """Documents of a .txt file, one per line, or of JSON lines with "text".

    Blank ones are skipped. Raises MissingFileError, and DataError naming file and line.
    """
    file = existing_file(path)
    if file.suffix == ".txt":
        try:
            lines = read_plain(file).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}, byte {error.start}: not UTF-8. Convert the file.") from error
        found = [line for line in lines if line.strip()]
    else:
        found = []
        for number, row in iter_jsonl(file):
            if not isinstance(row.get("text"), str):
                raise DataError(f'{file}, line {number}: "text" is expected, found {row!r:.60}.')
            found += [row["text"]] if row["text"].strip() else []
    if not found:
        raise DataError(f"{file}: no documents.")
    return found


@torch.no_grad()
def read_corpus(
    model: FrozenModel,
    encoder: LatentEncoder,
    texts: Sequence[str],
    settings: DetectionSettings,
    progress: Callable[[str, int, int], None],
) -> Corpus:
    """Peaks of the encoder's latents in every window of the documents.

    A document is read once, from its begin token; its windows follow each other, and a last one
    shorter than half a window is dropped. The begin token is in no window.
    """
    rows = [ids[: settings.context] for ids in begun_ids(model.tokenizer, texts)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    peaks: dict[tuple[int, int, int], np.ndarray] = {}
    for start in range(0, len(order), settings.batch_size):
        progress("reading documents", start, len(order))
        batch = order[start : start + settings.batch_size]
        found = activations(model, encoder, [rows[i] for i in batch])
        for row, i in enumerate(batch):
            for first, last in _spans(model, rows[i], settings.window):
                peaks[i, first, last] = found[row, first:last].amax(dim=0).numpy()
    spans = sorted(peaks)
    table = (
        np.stack([peaks[one] for one in spans]) if spans else np.empty((0, len(encoder.latents)))
    )
    return Corpus(rows, spans, table)


@torch.no_grad()
def activations(
    model: FrozenModel, encoder: LatentEncoder, rows: Sequence[Sequence[int]]
) -> Tensor:
    """Activations of all of the encoder's latents: [rows, tokens, latents], on the CPU."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(rows):
        ids[row, : len(one)] = torch.tensor(one)
        mask[row, : len(one)] = 1
    states = capture(model, ids, [encoder.layer], None, mask)[:, 0]
    # As one row: an encoder gathers its columns for each row.
    latents = torch.tensor([encoder.latents])
    found = encoder.encode(states.flatten(0, 1).unsqueeze(0), latents)
    return found.reshape(len(rows), width, -1).cpu()


def _spans(model: FrozenModel, ids: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    begin = plain_begin(model.tokenizer)
    first = int(begin is not None and bool(ids) and ids[0] == begin)
    for start in range(first, len(ids), size):
        stop = min(start + size, len(ids))
        if 2 * (stop - start) >= size:
            yield start, stop


def sampled_windows(
    corpus: Corpus, column: int, count: int, threshold: float, seed: int
) -> tuple[list[int], list[int]]:
    """Numbers of windows that activate the latent of a column, and of as many that do not.

    `count` of each, or as many as there are of the rarer kind. The activating ones are sampled one
    per quantile of their activation, so that weak ones are judged too, as delphi does
    (https://github.com/EleutherAI/delphi).
    """
    peaks = corpus.peaks[:, column]
    active = np.flatnonzero(peaks > threshold)
    silent = np.flatnonzero(peaks <= threshold)
    count = min(count, len(active), len(silent))
    if not count:
        return [], []
    generator = np.random.default_rng(row_seed(seed, "windows", column))
    ranked = active[np.argsort(peaks[active], kind="stable")]
    chosen = [int(generator.choice(part)) for part in np.array_split(ranked, count)]
    return chosen, generator.choice(silent, count, replace=False).tolist()


def plain_windows(
    model: FrozenModel, corpus: Corpus, active: Sequence[int], silent: Sequence[int]
) -> list[Window]:
    """Windows as they are; the activating ones fit."""
    fits = {True: active, False: silent}
    return [
        Window(str(model.tokenizer.decode(corpus.tokens(i))), kind)
        for kind, some in fits.items()
        for i in some
    ]


def marked_windows(
    model: FrozenModel,
    encoder: LatentEncoder,
    corpus: Corpus,
    active: Sequence[int],
    column: int,
    settings: DetectionSettings,
) -> list[Window]:
    """Activating windows with marked tokens: those that activate the latent of the column, or, in
    every second window, as many others. As many windows fit as do not."""
    generator = np.random.default_rng(row_seed(settings.seed, "marks", column))
    found: dict[bool, list[Window]] = {True: [], False: []}
    for number, i in enumerate(active):
        text, first, last = corpus.spans[i]
        own = activations(model, encoder, [corpus.rows[text]])[0, first:last, column]
        marked = (own > settings.threshold).numpy()
        if marked.all():
            continue  # there is nothing else to mark
        fits = number % 2 == 0
        if not fits:
            others = np.flatnonzero(~marked)
            chosen = generator.choice(others, min(marked.sum(), len(others)), replace=False)
            marked = np.isin(np.arange(len(own)), chosen)
        pieces = [str(model.tokenizer.decode([token])) for token in corpus.tokens(i)]
        words = "".join(MARK.format(p) if m else p for p, m in zip(pieces, marked, strict=True))
        found[fits].append(Window(words.replace(">><<", ""), fits))
    count = min(map(len, found.values()))
    return found[True][:count] + found[False][:count]
