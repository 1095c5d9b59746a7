"""Windows of text that activate a latent, and windows that do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.files.memory import MemoryLimit, size_of
from selfie_adapters.files.text_lines import read_lines
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.tokens import begun_ids, plain_begin
from selfie_adapters.progress import StepProgress
from selfie_adapters.sources.sae.encoder import LatentEncoder

MARK = "<<{}>>"
RESERVED_PART = 3  # one of three activating windows is reserved
TOP_TOKENS = 3
_PLACE = 9  # bytes of a place in a list


@dataclass(frozen=True)
class Window:
    """A window as the judge sees it. fits: the right answer."""

    text: str
    fits: bool


@dataclass(frozen=True)
class Corpus:
    """All windows of all documents.

    rows: token ids of the documents. spans: of each window, its document, its first token and the
    one after its last. maxima: [windows, latents], each window's maximum activation. tokens: of
    each latent where it is above zero, in the order of the documents.
    """

    rows: Sequence[Sequence[int]]
    spans: Sequence[tuple[int, int, int]]
    maxima: np.ndarray
    tokens: Sequence[ActiveTokens]

    def ids(self, window: int) -> list[int]:
        text, first, last = self.spans[window]
        return list(self.rows[text][first:last])

    def activations(self, window: int, column: int) -> np.ndarray:
        """The latent's activation at each token of a window."""
        text, first, last = self.spans[window]
        own = self.tokens[column]
        start, stop = np.searchsorted(own.text, [text, text + 1])
        inside = slice(start, stop)
        found = np.zeros(len(self.rows[text]), dtype=np.float32)
        found[own.place[inside]] = own.value[inside]
        return found[first:last]


@dataclass(frozen=True)
class ActiveTokens:
    """Tokens at which one latent is above zero: document, position in it, and activation."""

    text: np.ndarray
    place: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class SampledWindows:
    """Numbers of windows of one latent: activating ones and silent ones to be judged, and other
    activating ones that nobody who judges is shown."""

    active: list[int]
    silent: list[int]
    reserved: list[int]


def read_texts(path: str | Path) -> list[str]:
    """Documents of a .txt file, one per line, or of JSON lines with "text".

    Blank ones are skipped. Raises MissingFileError, and DataError naming file and line.
    """
    file = existing_file(path)
    if file.suffix == ".txt":
        found = [line for _, line in read_lines(file)]
    else:
        found, limit = [], MemoryLimit(str(file), file.stat().st_size)
        for number, row in iter_jsonl(file):
            text = row.get("text")
            if not isinstance(text, str):
                raise DataError(f'{file}, line {number}: "text" is expected, found {row!r:.60}.')
            if text.strip():
                limit.take(size_of(text) + _PLACE)
                found.append(text)
    if not found:
        raise DataError(f"{file}: no documents.")
    return found


@torch.no_grad()
def read_corpus(
    model: FrozenModel,
    encoder: LatentEncoder,
    texts: Sequence[str],
    settings: DetectionSettings,
    progress: StepProgress,
) -> Corpus:
    """Activations of the encoder's latents in every window of the documents.

    A document is read once, from its begin token; its windows follow each other, and a last one
    shorter than half a window is dropped. The begin token is in no window.
    """
    rows = [ids[: settings.context] for ids in begun_ids(model.tokenizer, texts)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    maxima: dict[tuple[int, int, int], np.ndarray] = {}
    above: list[np.ndarray] = [np.empty((0, 4))]
    for start in range(0, len(order), settings.batch_size):
        progress("reading documents", start, len(order))
        batch = order[start : start + settings.batch_size]
        found = activations(model, encoder, [rows[i] for i in batch])
        for row, i in enumerate(batch):
            own = found[row, : len(rows[i])].numpy()
            for first, last in _spans(model, rows[i], settings.window):
                maxima[i, first, last] = own[first:last].max(axis=0)
            places, columns = own.nonzero()
            whole = [columns, np.full_like(places, i), places, own[places, columns]]
            above.append(np.stack(whole, axis=1))
    spans = sorted(maxima)
    empty = np.empty((0, len(encoder.latents)))
    table = np.stack([maxima[one] for one in spans]) if spans else empty
    return Corpus(rows, spans, table, _by_latent(np.concatenate(above), len(encoder.latents)))


def _by_latent(above: np.ndarray, latents: int) -> list[ActiveTokens]:
    """above: [activations, 4]: latent, document, position, value."""
    above = above[np.lexsort((above[:, 2], above[:, 1], above[:, 0]))]
    ends = np.searchsorted(above[:, 0], np.arange(latents + 1))
    text, place = above[:, 1].astype(np.int64), above[:, 2].astype(np.int64)
    value = above[:, 3].astype(np.float32)
    return [ActiveTokens(text[a:b], place[a:b], value[a:b]) for a, b in pairwise(ends)]


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
) -> SampledWindows:
    """Windows that activate the latent of a column, and as many that do not.

    `count` of each, or as many as there are of the rarer kind. A third of the activating windows
    is reserved, sampled at random. Those to be judged are sampled one per quantile of their
    activation, so that weak ones are judged too, as delphi does
    (https://github.com/EleutherAI/delphi).
    """
    maxima = corpus.maxima[:, column]
    active = np.flatnonzero(maxima > threshold)
    silent = np.flatnonzero(maxima <= threshold)
    generator = np.random.default_rng(row_seed(seed, "windows", column))
    reserved = generator.choice(active, len(active) // RESERVED_PART, replace=False)
    active = np.setdiff1d(active, reserved)
    count = min(count, len(active), len(silent))
    if not count:
        return SampledWindows([], [], [])
    ranked = active[np.argsort(maxima[active], kind="stable")]
    chosen = [int(generator.choice(part)) for part in np.array_split(ranked, count)]
    others = generator.choice(silent, count, replace=False)
    return SampledWindows(chosen, others.tolist(), sorted(reserved.tolist()))


def plain_windows(model: FrozenModel, corpus: Corpus, some: SampledWindows) -> list[Window]:
    """Windows as they are; the activating ones fit."""
    fits = {True: some.active, False: some.silent}
    return [
        Window(str(model.tokenizer.decode(corpus.ids(i))), kind)
        for kind, windows in fits.items()
        for i in windows
    ]


def marked_windows(
    model: FrozenModel,
    corpus: Corpus,
    some: SampledWindows,
    column: int,
    settings: DetectionSettings,
) -> list[Window]:
    """Activating windows with marked tokens: those that activate the latent of the column, or, in
    every second window, as many others. As many windows fit as do not."""
    generator = np.random.default_rng(row_seed(settings.seed, "marks", column))
    found: dict[bool, list[Window]] = {True: [], False: []}
    for number, i in enumerate(some.active):
        marked = corpus.activations(i, column) > settings.threshold
        if marked.all():
            continue  # there is nothing else to mark
        fits = number % 2 == 0
        if not fits:
            others = np.flatnonzero(~marked)
            chosen = generator.choice(others, min(marked.sum(), len(others)), replace=False)
            marked = np.isin(np.arange(len(marked)), chosen)
        pieces = [str(model.tokenizer.decode([token])) for token in corpus.ids(i)]
        words = "".join(MARK.format(p) if m else p for p, m in zip(pieces, marked, strict=True))
        found[fits].append(Window(words.replace(">><<", ""), fits))
    count = min(map(len, found.values()))
    return found[True][:count] + found[False][:count]


def top_tokens(model: FrozenModel, corpus: Corpus, some: SampledWindows, column: int) -> list[str]:
    """The tokens of the reserved windows that activate the latent of the column most, decoded, each
    once: what somebody reads off who looks at maximum activations, on windows of their own."""
    strongest: dict[str, float] = {}
    for i in some.reserved:
        values = corpus.activations(i, column)
        for token, value in zip(corpus.ids(i), values.tolist(), strict=True):
            text = str(model.tokenizer.decode([token])).strip()
            if value > 0 and text:
                strongest[text] = max(value, strongest.get(text, 0.0))
    return sorted(strongest, key=lambda text: -strongest[text])[:TOP_TOKENS]
