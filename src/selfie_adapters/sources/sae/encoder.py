"""Activations of chosen latents of an SAE: their encoder columns and thresholds, not all of d_sae.

Equal to `SAE.encode` of SAELens for standard, JumpReLU, gated and TopK SAEs. For the first three a
latent's activation needs its own column alone. Whether a latent of a TopK SAE is active depends on
all others, but only where its own pre-activation is above zero (TopK clips there): all
pre-activations are computed for those tokens alone, and the k-th largest is the threshold.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfie_adapters.errors import DataError, MissingFileError, first_line, nearest
from selfie_adapters.extras import extra
from selfie_adapters.files import read_json
from selfie_adapters.sources.sae.facts import SaeFacts, read_facts
from selfie_adapters.sources.sae.registry import find_sae, load_registered
from selfie_adapters.sources.sae.rows import is_sae_name

if TYPE_CHECKING:
    from sae_lens import SAE

_PURPOSE = "Encoding with an SAE"
KINDS = ("standard", "jumprelu", "gated", "topk")
DEMO_SAE = Path(__file__).parent / "demo_sae"
_NUMBERS_AT_ONCE = 2**25  # numbers in one block of TopK pre-activations: 128 MiB

# pre-activations of m latents [rows, tokens, m], the centered input [rows, tokens, d_in] and the
# latents' places among the columns [rows, m] → activations
_Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LatentEncoder:
    """What is needed to compute the activations of `latents`, float32.

    layer: the zero-based block whose output is encoded. decoder: [latents, d_in], their rows of
    W_dec. model: the one the SAE says it was trained on.
    """

    kind: str
    latents: tuple[int, ...]
    d_in: int
    d_sae: int
    layer: int
    model: str | None
    decoder: Tensor
    _columns: Tensor  # [latents, d_in]
    _bias: Tensor  # [latents]
    _center: Tensor  # [d_in]
    _normalize: Callable[[Tensor], Tensor]
    _rule: _Rule

    def digest(self) -> str:
        """SHA-256 of what the activations are computed from."""
        found = hashlib.sha256(f"{self.kind} {self.layer} {self.latents}".encode())
        for tensor in (self.decoder, self._columns, self._bias, self._center):
            found.update(tensor.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def places(self, latents: Tensor) -> Tensor:
        """Position of each of `latents` (numbers in the SAE) among the columns that are kept."""
        place = {latent: i for i, latent in enumerate(self.latents)}
        found = [place[latent] for latent in latents.flatten().tolist()]
        return torch.tensor(found, device=self._center.device).reshape(latents.shape)

    @torch.no_grad()
    def encode(self, states: Tensor, latents: Tensor) -> Tensor:
        """Activations, for each row of its own latents.

        states: [rows, tokens, d_in], block outputs; latents: [rows, m], numbers in the SAE, each
        among `self.latents`. Returns [rows, tokens, m], float32.
        """
        places = self.places(latents)
        centered = self._normalize(states.float().to(self._center.device)) - self._center
        pre = torch.bmm(centered, self._columns[places].transpose(1, 2))
        return self._rule(pre + self._bias[places].unsqueeze(1), centered, places)


def open_encoder(
    source: str | Path,
    latents: Sequence[int],
    force: bool = False,
    device: torch.device | str = "cpu",
) -> LatentEncoder:
    """Encoder of `latents` of an SAE: a SAELens folder, release:sae_id, or "demo".

    Raises MissingExtraError without SAELens, MissingFileError, DownloadError, and DataError as
    `encoder_of` does.
    """
    return encoder_of(load_sae(source), latents, force, device)


def load_sae(source: str | Path) -> SAE[Any]:
    """The whole SAE through SAELens, float32 on the CPU. Raises like `open_encoder`."""
    text = str(source)
    path = DEMO_SAE if text == "demo" else Path(text).expanduser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters of them is an error in `encoder_of`
        if is_sae_name(text) and not path.exists():
            release, _, sae_id = text.partition(":")
            return load_registered(find_sae(release, sae_id), _PURPOSE)
        with extra("sae", _PURPOSE):
            from sae_lens import SAE
        if not (path / "cfg.json").is_file():
            raise MissingFileError(
                f"{path}: no SAELens folder (cfg.json next to sae_weights.safetensors). Give such "
                'a folder, release:sae_id, or "demo".'
            )
        read_facts(path / "cfg.json")  # names a key whose value is of the wrong type
        try:
            return SAE.load_from_disk(path, "cpu", "float32", converter=_components)
        except DataError:
            raise
        except Exception as error:  # as in `load_registered`
            raise DataError(f"{path}: SAELens cannot load it ({first_line(error)}).") from error


def _components(
    path: str | Path, device: str, cfg_overrides: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a SAELens folder; its own reader takes no byte order mark."""
    from sae_lens.loading.pretrained_sae_loaders import read_sae_components_from_disk

    config = read_json(Path(path) / "cfg.json") | {"device": device} | (cfg_overrides or {})
    weights = Path(path) / "sae_weights.safetensors"
    return read_sae_components_from_disk(config, weights, device)


def encoder_of(
    sae: SAE[Any],
    latents: Sequence[int],
    force: bool = False,
    device: torch.device | str = "cpu",
) -> LatentEncoder:
    """The part of a SAELens SAE that `latents` need, on `device`.

    Raises DataError for a latent out of range or an SAE that does not read the output of a block;
    unless `force`, for one that was trained on a model with processed weights, or on activations
    scaled by a factor that its file does not hold.
    """
    config = sae.cfg
    kind = config.architecture()
    if kind not in KINDS:
        raise DataError(f"an SAE of architecture {kind} is not known here. {nearest(kind, KINDS)}")
    wrong = [i for i in latents if not 0 <= i < config.d_sae]
    if wrong:
        raise DataError(
            f"latent {wrong[0]} is out of range: the SAE has {config.d_sae}, numbered from 0."
        )
    layer = _layer(config)
    if not force:
        _refuse_other_states(config)
    chosen = torch.tensor(list(latents), dtype=torch.int64, device=device)
    w = {name: value.detach().float().to(device) for name, value in sae.state_dict().items()}
    bias = w["b_gate" if kind == "gated" else "b_enc"]
    if getattr(config, "rescale_acts_by_decoder_norm", False):
        norms = w["W_dec"].norm(dim=-1)
        w["W_enc"], bias = w["W_enc"] * norms, bias * norms
    return LatentEncoder(
        kind=kind,
        latents=tuple(latents),
        d_in=config.d_in,
        d_sae=config.d_sae,
        layer=layer,
        model=config.metadata.model_name,
        decoder=w["W_dec"][chosen].cpu(),
        _columns=w["W_enc"].T[chosen].clone(),
        _bias=bias[chosen].clone(),
        _center=w["b_dec"].clone() * config.apply_b_dec_to_input,
        _normalize=_NORMALIZE.get(config.normalize_activations, lambda x: x),
        _rule=_rule(kind, config, w, bias, chosen),
    )


def _rule(kind: str, config: Any, w: dict[str, Tensor], bias: Tensor, chosen: Tensor) -> _Rule:
    if kind == "standard":
        return lambda pre, _x, _places: pre.relu()
    if kind == "jumprelu":
        threshold = w["threshold"][chosen].clone()
        return lambda pre, _x, places: pre.relu() * (pre > threshold[places].unsqueeze(1))
    if kind == "gated":
        return _gated(w["b_gate"][chosen], w["b_mag"][chosen], w["r_mag"][chosen].exp())
    return _top_k(config.k, w["W_enc"], bias, chosen)


def _gated(gate_bias: Tensor, magnitude_bias: Tensor, stretch: Tensor) -> _Rule:
    def rule(pre: Tensor, _x: Tensor, places: Tensor) -> Tensor:
        product = pre - gate_bias[places].unsqueeze(1)
        size = product * stretch[places].unsqueeze(1) + magnitude_bias[places].unsqueeze(1)
        return size.relu() * (pre > 0)

    return rule


def _top_k(k: int, w_enc: Tensor, bias: Tensor, chosen: Tensor) -> _Rule:
    def rule(pre: Tensor, centered: Tensor, places: Tensor) -> Tensor:
        result = torch.zeros_like(pre)
        rows, tokens = (pre > 0).any(dim=-1).nonzero(as_tuple=True)
        step = max(1, _NUMBERS_AT_ONCE // len(bias))
        for start in range(0, len(rows), step):
            row, token = rows[start : start + step], tokens[start : start + step]
            everyone = centered[row, token] @ w_enc + bias
            least = everyone.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
            own = everyone.gather(1, chosen[places[row]])
            result[row, token] = own.relu() * (own >= least)
        return result

    return rule


def _constant_norm(x: Tensor) -> Tensor:
    return x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))


def _layer_norm(x: Tensor) -> Tensor:
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.std(dim=-1, keepdim=True) + 1e-5)  # as SAELens: Bessel's correction, this ε


_NORMALIZE = {"constant_norm_rescale": _constant_norm, "layer_norm": _layer_norm}


def _layer(config: Any) -> int:
    hook = config.metadata.hook_name
    layer = SaeFacts(hook_name=hook).layer
    block_output = hook is not None and hook.endswith(("hook_resid_post", "hook_resid_pre"))
    if not block_output or layer is None or layer < 0:
        raise DataError(
            f"the SAE reads {hook}; activations of latents are computed for the output of a block "
            "(blocks.L.hook_resid_post, or hook_resid_pre of the next one)."
        )
    return layer


def _refuse_other_states(config: Any) -> None:
    processed = config.metadata.model_from_pretrained_kwargs or {}
    if processed.get("center_writing_weights"):
        raise DataError(
            "the SAE was trained on a model with processed weights (center_writing_weights): its "
            "residual stream is not the plain model's, so activations would be wrong. Choose "
            "another SAE, or set force_sae: true to see what comes out."
        )
    if config.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise DataError(
            f"the SAE was trained on activations normalized by {config.normalize_activations}, and "
            "its file does not hold the factors. Fold them in before saving, or set force_sae: "
            "true to take the activations as they are."
        )
