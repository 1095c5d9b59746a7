"""Forward passes of the decoder over packed rows, replayed as CUDA graphs where shapes come back.

A pass over a few thousand tokens has thousands of kernels that run shorter than it takes to launch
them one by one. A CUDA graph launches them all at once, but for fixed shapes and addresses: sizes
are rounded up to few different ones (`packing.Sizes`), and what belongs to a batch is copied in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from selfie_adapters.errors import first_line
from selfie_adapters.model.attention import Layout, is_installed, laid_out, no_mask
from selfie_adapters.model.cache_use import UNSUPPORTED, cache_use, logit_tolerance
from selfie_adapters.model.library import cache_of, forward
from selfie_adapters.model.loading import FrozenModel, once_per_network
from selfie_adapters.model.packing import KeysValues, Packing, Sizes, to_device

_log = logging.getLogger(__name__)
_MOST_GRAPHS = 32


class Replayable(Layout, Protocol):
    """A layout of fixed addresses, or one that can be copied to such."""

    @property
    def sizes(self) -> Sizes:
        """Equal ones have the same kernels on tensors of the same shapes."""
        ...

    @property
    def is_causal(self) -> bool: ...

    def copied(self) -> Replayable:
        """One that stays, and can `become` others of the same sizes."""
        ...

    def become(self, other: Any) -> None: ...


class PackedPass:
    """The decoder of one model, on packed rows that all have read the same before."""

    def __init__(self, model: FrozenModel) -> None:
        self._decoder: Any = model.network.get_decoder()
        self._device, self._dtype = model.device, model.dtype
        with torch.inference_mode(False):
            self._no_mask = no_mask(model.device, model.dtype)
        # A model on several devices moves tensors between them, which a graph cannot hold.
        devices = {parameter.device for parameter in model.network.parameters()}
        self.replays = model.device.type == "cuda" and len(devices) == 1
        self._graphs: dict[tuple[Sizes, bool, bool], _Graph | None] = {}
        self._pool = _Pool()

    def hidden(self, embedded: Tensor, positions: Tensor, layout: Replayable) -> Tensor:
        """The decoder's output [tokens, d_model], differentiable in `embedded`.

        embedded: [1, tokens, d_model]. positions: [tokens], on the CPU. All layouts must come
        after the same tokens.
        """
        positions = to_device(positions, self._device).unsqueeze(0)
        wanted = torch.is_grad_enabled() and embedded.requires_grad
        key = (layout.sizes, layout.is_causal, wanted)
        if self.replays and key in self._graphs and (graph := self._graph(key, embedded, layout)):
            return _Replay.apply(embedded, positions, layout, graph)
        if len(self._graphs) < _MOST_GRAPHS:
            self._graphs.setdefault(key, None)  # a shape that comes back is worth a graph
        return self.once(embedded, positions, layout)

    def once(self, embedded: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """As `hidden`, never replayed; positions: [1, tokens], on the model's device."""
        wanted = torch.is_grad_enabled() and embedded.requires_grad
        if not wanted and (torch.is_grad_enabled() or torch.is_inference_mode_enabled()):
            # One mode for all passes without a gradient: blocks are compiled again for each.
            with torch.inference_mode(False), torch.no_grad():
                return self.once(embedded.clone(), positions.clone(), layout)
        with laid_out(layout):
            output = forward(
                self._decoder,
                inputs_embeds=embedded,
                position_ids=positions,
                attention_mask=self._no_mask,
                use_cache=False,
            )
        return output.last_hidden_state[0]

    def _graph(
        self, key: tuple[Sizes, bool, bool], embedded: Tensor, layout: Replayable
    ) -> _Graph | None:
        graph = self._graphs[key]
        if graph is None:
            try:
                graph = _Graph(self.once, embedded, layout, key[2], self._pool)
            except RuntimeError as error:
                self.replays = False
                _log.warning("passes are not replayed as CUDA graphs: %s", first_line(error))
            self._graphs[key] = graph
        return graph


class _Pool:
    """Memory that all graphs share, since only one of them is between its passes at a time."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.last: object = None  # whose activations it holds


class _Graph:
    """A forward pass, and where a gradient is asked for the backward pass, at fixed addresses."""

    def __init__(
        self,
        run: Callable[[Tensor, Tensor, Replayable], Tensor],
        embedded: Tensor,
        layout: Replayable,
        backward: bool,
        pool: _Pool,
    ) -> None:
        self.pool = pool
        # Whatever mode the caller is in: what is kept here is used in others.
        with torch.inference_mode(False), torch.set_grad_enabled(backward):
            self._capture(run, embedded, layout.copied(), backward)

    def _capture(
        self,
        run: Callable[[Tensor, Tensor, Replayable], Tensor],
        embedded: Tensor,
        layout: Replayable,
        backward: bool,
    ) -> None:
        pool, self.layout = self.pool, layout
        self.embedded = embedded.detach().clone().requires_grad_(backward)
        self.positions = torch.zeros(embedded.shape[:2], dtype=torch.int64, device=embedded.device)
        if pool.handle is None:
            pool.handle = torch.cuda.graph_pool_handle()
        pool.last = None
        side = torch.cuda.Stream(embedded.device)
        side.wait_stream(torch.cuda.current_stream(embedded.device))
        with torch.cuda.stream(side):  # what is set up in a first pass cannot be captured
            output = run(self.embedded, self.positions, layout)
            if backward:
                torch.autograd.grad(output, self.embedded, torch.ones_like(output))
        torch.cuda.current_stream(embedded.device).wait_stream(side)
        options: dict[str, Any] = {"pool": pool.handle, "capture_error_mode": "thread_local"}
        self._forward, self._backward = torch.cuda.CUDAGraph(), None
        with torch.cuda.graph(self._forward, **options):
            output = run(self.embedded, self.positions, layout)
        self.output = output.detach()
        if backward:
            self.slope = torch.zeros_like(self.output)
            self._backward = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._backward, **options):
                (self.gradient,) = torch.autograd.grad(output, self.embedded, self.slope)

    def forward(self, pass_: _Inputs) -> Tensor:
        self.embedded.detach().copy_(pass_.embedded)
        self.positions.copy_(pass_.positions)
        self.layout.become(pass_.layout)
        self._forward.replay()
        self.pool.last = pass_
        return self.output

    def backward(self, pass_: _Inputs, slope: Tensor) -> Tensor:
        if self.pool.last is not pass_:  # another pass took the memory
            self.forward(pass_)
        self.slope.copy_(slope)
        assert self._backward is not None
        self._backward.replay()
        return self.gradient


@dataclass(frozen=True, eq=False)
class _Inputs:
    embedded: Tensor
    positions: Tensor
    layout: Replayable


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embedded: Tensor, positions: Tensor, layout: Replayable, graph: _Graph
    ) -> Tensor:
        ctx.graph, ctx.inputs = graph, _Inputs(embedded.detach(), positions, layout)
        return graph.forward(ctx.inputs).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.graph.backward(ctx.inputs, grads[0]).clone(), None, None, None


_log = logging.getLogger(__name__)


@once_per_network
def packs(model: FrozenModel) -> bool:
    """Whether packed rows get the decoder's output that each gets alone."""
    if not is_installed(model.network) or not cache_use(model).branches:
        return False
    try:
        expected, found = tried_outputs(model)
    except UNSUPPORTED as error:  # another attention, or a decoder that takes no embeddings
        _log.info("%s is not run on packed rows: %s", model.name, first_line(error))
        return False
    return bool((found - expected).abs().max() <= logit_tolerance(model, expected))


@torch.no_grad()
def tried_outputs(model: FrozenModel) -> tuple[Tensor, Tensor]:
    """The decoder's output for rows of 5 and 3 tokens after 3 that they share, alone and packed."""
    ids = (torch.arange(16).view(2, 8) * 37 + 11) % min(model.vocab_size, 251)
    ids[1, :3] = ids[0, :3]
    decoder, device = model.network.get_decoder(), model.device
    lengths = torch.tensor([5, 3])
    kept = torch.arange(5) < lengths.unsqueeze(1)
    expected = forward(decoder, input_ids=ids.to(device), use_cache=False).last_hidden_state
    first = forward(decoder, input_ids=ids[:1, :3].to(device), use_cache=True)
    before = KeysValues.in_cache(cache_of(first))
    packing = Packing(lengths, before, device, model.dtype)
    embedded = model.embedding(ids[:, 3:][kept].to(device).unsqueeze(0))
    positions = torch.arange(3, 8).repeat(2, 1)[kept].to(device).unsqueeze(0)
    found = PackedPass(model).once(embedded, positions, packing)
    return expected[:, 3:][kept.to(expected.device)], found
