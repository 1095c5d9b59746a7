"""Rows read and read on in packed passes: a prompt's rows, then one token each, or whole labels.

What `Continuation` does with a cache of transformers, for models that pack and have a linear head.
"""

from __future__ import annotations

import copy
import weakref

import torch
from torch import Tensor

from selfie_adapters.inference.continuation import Continuation, SoftRows
from selfie_adapters.inference.lm_head import head_losses, lm_head
from selfie_adapters.inference.microbatch import offsets_in_rows, shared_rows, tokens_per_microbatch
from selfie_adapters.inference.packed_rows import fits_window, packing_pays
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix
from selfie_adapters.model.attention import Layout
from selfie_adapters.model.injection import injected_in_row
from selfie_adapters.model.kv_cache import ReadRows, Slots
from selfie_adapters.model.packed_pass import PackedPass
from selfie_adapters.model.packing import Packing, to_device

# Labels of one owner share a row up to about this many tokens: shorter rows copy the owner's keys
# more often, longer ones have more masked attention.
_TOKENS_PER_ROW = 64


class SlotRows(Continuation):
    """The rows of one prompt, each with its soft token."""

    def __init__(
        self, model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix, soft_tokens: Tensor
    ) -> None:
        """soft_tokens: [rows, d_model], on the model's device. prefix: the prompt's own."""
        linear = lm_head(model).linear
        assert linear is not None
        self._model, self._linear = model, linear
        self._pass = PackedPass(model)
        rows, size = len(soft_tokens), len(prompt.suffix_ids)
        self._prefix, self._length = prefix, prefix.length + size
        self._read = ReadRows(rows)
        self._slots: Slots | None = None
        self._owners: Tensor | None = None
        step = max(1, tokens_per_microbatch(model) // size)
        found = []
        for first in range(0, rows, step):
            soft = soft_tokens[first : first + step]
            lengths = torch.full((len(soft),), size)

            def keep(layer: int, keys: Tensor, values: Tensor, first: int = first) -> None:
                self._read.fill(layer, keys, values, first)

            layout = Packing(lengths, prefix.keys_values(), model.device, model.dtype, record=keep)
            ids = torch.tensor(prompt.suffix_ids).repeat(len(soft))
            places = prefix.length + torch.arange(size).repeat(len(soft))
            with injected_in_row(model.embedding, soft, ids, lengths, prompt.placeholder_id):
                states = self._states(layout, to_device(ids, model.device), places)
            found.append(self._logits(states.view(len(soft), size, -1)[:, -1].contiguous()))
        self.logits = torch.cat(found)

    def select(self, rows: Tensor) -> None:
        """Rows of a branch, or after `make_room`."""
        rows = rows.to(self._model.device)
        self.logits = self.logits[rows.to(self.logits.device)]
        if self._owners is not None:
            self._owners = self._owners[rows.cpu()]
        else:
            assert self._slots is not None
            self._slots.select(rows)

    def branch(self, rows: Tensor) -> SlotRows:
        """Nothing is copied: the branch reads what this one keeps."""
        other = copy.copy(self)
        other._owners = rows.cpu()
        other.logits = self.logits[rows.to(self.logits.device)]
        return other

    def make_room(self, tokens: int) -> None:
        """Before `read`, for as many tokens as it will be called with."""
        kept, self._prefix.slots = self._prefix.slots, None
        rows, room = len(self.logits), self._length + tokens
        fits = kept is not None and kept.room == room and kept.capacity >= rows
        if kept is None or not fits or kept.user() is not None:
            kept = None  # frees its memory first
            kept = Slots(self._model, rows, room)
        kept.user = weakref.ref(self)
        self._slots = self._prefix.slots = kept
        kept.take(self._read)

    def read(self, tokens: Tensor) -> None:
        assert self._slots is not None
        self.logits = self._logits(self._slots.read(tokens))

    def read_all(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self._logits(self._states_of_rows(ids, keep))

    def losses(self, ids: Tensor, keep: Tensor, targets: Tensor) -> Tensor:
        states = self._states_of_rows(ids, keep)
        states = states.to(self._linear.weight.device)
        targets = to_device(targets, states.device)
        predictors = torch.arange(targets.numel(), device=states.device)
        return head_losses(states, self._linear.weight, self._linear.bias, targets, 0.0, predictors)

    def _states_of_rows(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Hidden states where `keep` is True; rows of one owner share a row of the packing."""
        ids, keep = ids.cpu(), keep.cpu()
        n, width = ids.shape
        owners = torch.arange(n) if self._owners is None else self._owners
        sizes = (keep * torch.arange(1, width + 1)).amax(dim=1)
        row_of = shared_rows(sizes, owners, _TOKENS_PER_ROW)
        rows = int(row_of.max()) + 1
        offsets, lengths = offsets_in_rows(sizes, row_of, rows)
        begins = lengths.cumsum(0) - lengths
        of = torch.repeat_interleave(torch.arange(n), sizes)
        within = torch.arange(of.numel()) - (sizes.cumsum(0) - sizes)[of]
        place = (begins[row_of] + offsets)[of] + within  # in the packed row, for ids in label order
        packed, places, branch = (torch.empty_like(of) for _ in range(3))
        packed[place], places[place], branch[place] = ids[of, within], within, of
        inside = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        labels = torch.full(inside.shape, -1)
        labels[inside] = branch
        visible = (labels.unsqueeze(1) == labels.unsqueeze(2)).tril()
        before = self._read.filled()
        if len(before.keys[0]) > 1:
            owner = torch.empty(rows, dtype=torch.int64)
            owner[row_of] = owners
            before = before.of(to_device(owner, self._model.device))
        layout = Packing(lengths, before, self._model.device, self._model.dtype, visible)
        device = self._model.device
        states = self._states(layout, to_device(packed, device), places + self._length)
        wanted = torch.empty_like(keep, dtype=torch.int64)
        wanted[of, within] = place
        return states.index_select(0, to_device(wanted[keep], states.device))

    def _states(self, layout: Layout, ids: Tensor, places: Tensor) -> Tensor:
        """The decoder's output [tokens, d_model]; ids: on the device, places: not."""
        embedded = self._model.embedding(ids.unsqueeze(0))
        positions = to_device(places, ids.device).unsqueeze(0)
        return self._pass.once(embedded, positions, layout)

    def _logits(self, states: Tensor) -> Tensor:
        return self._linear(states.to(self._linear.weight.device))


_LONGEST_ANSWER = 512  # tokens


def after_prompt(
    model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix, soft_tokens: Tensor
) -> Continuation:
    """The prompt read once for each of soft_tokens [n, d_model]; `prefix` is the prompt's own.

    prompt: as `shareable` returns it.
    """
    soft_tokens = soft_tokens.to(model.device)
    fits = fits_window(model, len(prompt.ids) + _LONGEST_ANSWER)
    if fits and lm_head(model).linear is not None and packing_pays(model):
        return SlotRows(model, prompt, prefix, soft_tokens)
    ids = torch.tensor(prompt.suffix_ids).expand(len(soft_tokens), -1)
    soft = SoftRows(soft_tokens, prompt.placeholder_id, len(prompt.sites))
    return Continuation(model, ids, prefix.for_batch(len(soft_tokens)), soft)
