"""Whether an SAE fits a model, and whether its activations here are those that SAELens computes."""

from __future__ import annotations

from pathlib import Path

import torch

from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.proof import REPORT, Proof
from selfie_adapters.model.tokens import begun_ids
from selfie_adapters.sources.sae.encoder import encoder_of, load_sae

TEXT = (
    "The owl is a bird that hunts at night. It sits in an old tree near the river and waits for a "
    "mouse. In the morning the children of the village found its feathers on the road to school."
)
_RELATIVE = 1e-3


@torch.no_grad()
def prove_sae(model: FrozenModel, source: str | Path) -> list[Proof]:
    """Two proofs on the states of a short English text, its first token excluded.

    The SAE's reconstruction explains some of their variance (it belongs to this model and layer),
    and the activations that this project computes are those of SAELens' own code.
    Raises what loading the SAE raises, and DataError for one of another width.
    """
    sae = load_sae(source)
    encoder = encoder_of(sae, range(sae.cfg.d_sae), force=True)
    if encoder.d_in != model.d_model:
        found = f"d_in {encoder.d_in}, and {model.name} has d_model {model.d_model}"
        return [Proof("SAE", False, found, "Give the SAE's own model.")]
    ids = torch.tensor(begun_ids(model.tokenizer, [TEXT]))
    states = capture(model, ids, [encoder.layer])[0, 0, 1:].float().cpu()
    theirs = sae.encode(states)
    back = sae.decode(theirs)
    explained = 1 - float((states - back).pow(2).sum() / (states - states.mean(0)).pow(2).sum())
    active = float((theirs > 0).sum(dim=-1).float().mean())
    fits = Proof(
        "SAE fits",
        explained > 0,
        f"layer {encoder.layer}: explains {explained:.0%} of the variance of {len(states)} states, "
        f"{active:.1f} latents active per token",
        f"It was trained on {encoder.model or 'another model'}: give that model, and its layer.",
    )
    ours = encoder.encode(states.unsqueeze(0), torch.arange(sae.cfg.d_sae).unsqueeze(0))[0]
    largest = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9))
    equal = Proof(
        "SAE activations",
        largest <= _RELATIVE,
        f"{ours.numel()} activations differ from SAELens' by {largest:.2g} of the largest one",
        REPORT,
    )
    return [fits, equal]
