"""How published SAEs lie in files: which file, which tensor, which way round, which site.

A layout goes by the name that SAELens' registry gives it. The rows that come out are those of
`SAE.from_pretrained(…).W_dec`, so what SAELens' loaders do to a decoder is written down here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ROWS = False  # [d_sae, d_in], a row per latent
COLUMNS = True  # [d_in, d_sae], as a torch.nn.Linear keeps its weight

RESIDUAL = "blocks.{layer}.hook_resid_post"
MLP = "blocks.{layer}.hook_mlp_out"
ATTENTION = "blocks.{layer}.hook_attn_out"
HEADS = "blocks.{layer}.attn.hook_z"


@dataclass(frozen=True)
class SaeLayout:
    """Where a layout keeps its decoder. In strings, `{path}` is the registry's path of an SAE."""

    weights: str
    tensors: Mapping[str, bool]
    """Possible names of the decoder tensor and its orientation; the first one found counts."""
    config: str | None = None
    extra_config: str | None = None
    """A configuration file that need not be there; it is looked for on disk alone."""
    hooks: Mapping[str, str] = field(default_factory=dict)
    """Word in repository or path → site of the vectors, where no configuration names it; the
    first one found counts."""
    either_way: bool = False
    """Files of both orientations are about; the configuration's widths decide."""
    scaled: bool = False
    """Always trained on scaled activations, whatever the configuration states."""

    def weights_file(self, path: str) -> str:
        """The weights' file in the repository."""
        return self.weights.format(path=path)

    def config_file(self, path: str) -> str | None:
        """The configuration file in the repository, if the layout has one."""
        return None if self.config is None else self.config.format(path=path.split(".pt")[0])


_W_DEC = {"W_dec": ROWS}
_NPZ = {"W_dec": ROWS, "w_dec": ROWS}
_LINEAR = {"decoder.weight": COLUMNS}

LAYOUTS: dict[str, SaeLayout] = {
    "sae_lens": SaeLayout("{path}/sae_weights.safetensors", _W_DEC, "{path}/cfg.json"),
    "connor_rob_hook_z": SaeLayout("{path}", _W_DEC, "{path}_cfg.json"),
    "gemma_2": SaeLayout(
        "{path}/params.npz",
        _NPZ,
        hooks={
            "embedding": "hook_embed",
            "-res": RESIDUAL,
            "-mlp": MLP,
            "-att": HEADS,
            "-transcoders": MLP,
        },
    ),
    "gemma_2_transcoder": SaeLayout("{path}/params.npz", _NPZ, hooks={"": MLP}),
    "gemma_3": SaeLayout(
        "{path}/params.safetensors",
        {"w_dec": ROWS},
        extra_config="{path}/config.json",
        hooks={
            "resid_post": RESIDUAL,
            "attn_out": HEADS,
            "mlp_out": MLP,
            "transcoder": MLP,
            "clt": MLP,
        },
    ),
    "goodfire": SaeLayout("{path}", {"decoder_linear.weight": COLUMNS}, hooks={"": RESIDUAL}),
    "llama_scope": SaeLayout(
        "{path}/checkpoints/final.safetensors", _LINEAR, "{path}/hyperparams.json", scaled=True
    ),
    "llama_scope_r1_distill": SaeLayout(
        "{path}/sae_weights.safetensors", _LINEAR, "{path}/config.json", scaled=True
    ),
    "dictionary_learning_1": SaeLayout(
        "{path}/ae.pt", {**_W_DEC, **_LINEAR}, "{path}/config.json", hooks={"": RESIDUAL}
    ),
    "deepseek_r1": SaeLayout("{path}", _LINEAR, hooks={"": RESIDUAL}),
    "qwen_scope": SaeLayout("{path}", {"W_dec": COLUMNS}, hooks={"": RESIDUAL}),
    # sparsify keeps rows; SAELens' loader turns them over once more
    "sparsify": SaeLayout(
        "{path}/sae.safetensors",
        {**_W_DEC, **_LINEAR},
        "{path}/cfg.json",
        hooks={"embed_tokens": "hook_embed", ".mlp": MLP, "attn": ATTENTION, "": RESIDUAL},
        either_way=True,
    ),
    "mwhanna_transcoder": SaeLayout("{path}", _W_DEC, hooks={"": MLP}),
    "mntss_clt_layer_transcoder": SaeLayout(
        "W_dec_{path}.safetensors", {"W_dec_{path}": ROWS}, hooks={"": MLP}
    ),
    "temporal": SaeLayout(
        "{path}/latest_ckpt.safetensors", {"D": ROWS}, "{path}/conf.yaml", hooks={"": RESIDUAL}
    ),
}

# What a decoder is called anywhere, for files of no known layout.
ANY_DECODER: dict[str, bool] = {
    "W_dec": ROWS,
    "w_dec": ROWS,
    "decoder_linear.weight": COLUMNS,
    "decoder.weight": COLUMNS,
    "D": ROWS,
}
# One number per latent, and one number per dimension: they state how a decoder is oriented.
OF_LATENTS = (
    "b_enc",
    "encoder_linear.bias",
    "encoder.bias",
    "threshold",
    "log_threshold",
    "latent_bias",
)
OF_DIMENSIONS = ("b_dec", "decoder_linear.bias", "decoder.bias", "decoder_bias", "pre_bias")
