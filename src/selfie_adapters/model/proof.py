"""Proofs that soft tokens work with a model: each compares two ways to the same numbers.

The tests prove the same on small models of every family; these run on the model at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.config.types import Chat
from selfie_adapters.errors import SelfieError, first_line
from selfie_adapters.model.chat_format import chat_format
from selfie_adapters.model.injection import injected
from selfie_adapters.model.library import forward
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.prefix import SharedPrefix
from selfie_adapters.model.prompt import BoundPrompt
from selfie_adapters.model.tokens import leading, plain_begin
from selfie_adapters.model.user_text import UserText

REPORT = "Report it with the model's name: the labels of this model cannot be trusted."
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_OF_HALF = 0.06  # bfloat16 keeps 8 bits, and a kernel for another shape rounds in another order


@dataclass(frozen=True)
class Proof:
    """found: what was measured. fix: what to do where it failed."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def prove(model: FrozenModel, prompt: BoundPrompt) -> Iterator[Proof]:
    """The proofs, one after another; an error of this project is a proof that failed."""
    proofs: dict[str, Callable[[FrozenModel, BoundPrompt], tuple[bool, str]]] = {
        "one begin token": one_begin_token,
        "injection": injection_is_exact,
        "soft token": soft_token_is_seen,
        "shared prefix": prefix_is_equal,
    }
    for name, proof in proofs.items():
        try:
            ok, found = proof(model, prompt)
        except SelfieError as error:
            ok, found = False, str(error)
        except (RuntimeError, ValueError, TypeError) as error:  # of a kernel or of a library
            ok, found = False, f"{type(error).__name__}: {first_line(error)}"
        yield Proof(name, ok, found, "" if ok else REPORT)


def one_begin_token(model: FrozenModel, prompt: BoundPrompt) -> tuple[bool, str]:
    """Every kind of prompt begins with one begin token where the model has one, else with none."""
    begin = model.tokenizer.bos_token_id
    expected = int(plain_begin(model.tokenizer) is not None)
    known: dict[Chat, bool] = {
        "template": bool(model.tokenizer.chat_template),
        "bare": chat_format(model.tokenizer) is not None,
        "none": True,
    }
    counts = {}
    chats: list[Chat] = [name for name, there in known.items() if there]
    for chat in chats:
        ids = UserText(model.tokenizer, chat).ids("a")
        counts[f"chat {chat}"] = leading(ids, begin) if isinstance(begin, int) else 0
    counts["soft prompt"] = leading(prompt.ids, begin) if isinstance(begin, int) else 0
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    # A chat format may begin with one where plain text has none.
    wrong = [n for n, count in counts.items() if count > 1 or count < expected]
    return not wrong, f"{shown} (expected: {'1' if expected else '0, or 1 in a chat format'})"


@torch.inference_mode()
def injection_is_exact(model: FrozenModel, prompt: BoundPrompt) -> tuple[bool, str]:
    """The placeholder's own embedding as the soft token changes no logit."""
    ids = _ids(model, prompt)
    plain = _logits(model, ids)
    with injected(model.embedding, _own_row(model, prompt), prompt.placeholder_id, _sites(prompt)):
        same = _logits(model, ids)
    return _equal(model, same, plain, "logits with the placeholder's own embedding injected")


@torch.inference_mode()
def soft_token_is_seen(model: FrozenModel, prompt: BoundPrompt) -> tuple[bool, str]:
    """Another soft token changes the logits at its sites and where the label begins, and none
    before. Between them, a model that forgets (recurrent, sliding windows) may have no trace of it.
    """
    ids, site = _ids(model, prompt), prompt.sites[0]
    plain = _logits(model, ids)
    other = _own_row(model, prompt).flip(-1) * 3 + 1
    with injected(model.embedding, other, prompt.placeholder_id, _sites(prompt)):
        soft = _logits(model, ids)
    before_ok, _ = _equal(model, soft[:, :site], plain[:, :site], "") if site else (True, "")
    rows = [*prompt.sites, -1]
    changed = float((soft[:, rows] - plain[:, rows]).abs().amax(dim=-1).min())
    found = f"another soft token moves logits at its sites and at the end by {changed:.3g} or more"
    if not before_ok:
        return False, f"{found}, and rows before it as well"
    return changed > 0, found


@torch.inference_mode()
def prefix_is_equal(model: FrozenModel, prompt: BoundPrompt) -> tuple[bool, str]:
    """Logits after the shared keys and values are those of the whole prompt."""
    prefix = SharedPrefix(model, prompt.prefix_ids)
    if not prefix.length:
        return (
            True,
            "nothing is shared: the prompt begins with its placeholder, or the model's "
            "cache cannot be repeated",
        )
    ids, row = _ids(model, prompt), _own_row(model, prompt)
    with injected(model.embedding, row, prompt.placeholder_id, _sites(prompt)):
        whole = _logits(model, ids)[:, prefix.length :]
        rest = forward(
            model.network,
            input_ids=ids[:, prefix.length :],
            cache=prefix.for_batch(1),
            use_cache=True,
        ).logits.float()
    return _equal(model, rest, whole, f"logits after {prefix.length} shared tokens")


def _ids(model: FrozenModel, prompt: BoundPrompt) -> Tensor:
    return torch.tensor([prompt.ids], device=model.device)


def _sites(prompt: BoundPrompt) -> int:
    return len(prompt.sites)


def _own_row(model: FrozenModel, prompt: BoundPrompt) -> Tensor:
    token = torch.tensor([[prompt.placeholder_id]], device=model.device)
    return model.embedding(token)[0].clone()


def _logits(model: FrozenModel, ids: Tensor) -> Tensor:
    return forward(model.network, input_ids=ids, use_cache=False).logits.float()


def _equal(model: FrozenModel, found: Tensor, expected: Tensor, what: str) -> tuple[bool, str]:
    """Whether the largest difference is within the rounding of the model's dtype."""
    if not bool(found.isfinite().all() and expected.isfinite().all()):
        return False, f"{what}: NaN or infinity. Try --dtype float32"
    largest = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-9))
    limit = _TOLERANCE.get(model.dtype, _OF_HALF)
    dtype = str(model.dtype).removeprefix("torch.")
    return largest <= limit, (
        f"{what} differ by {largest:.2g} of the largest one (at most {limit:g} in {dtype})"
    )
