"""Small SAEs in each published release's own file format, as SAELens' own loaders read them."""

from __future__ import annotations

import json
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

D_SAE, D_IN = 96, 48  # 48: d_model of the golden Llama


def parts(seed: int, d_sae: int = D_SAE, d_in: int = D_IN) -> dict[str, torch.Tensor]:
    """Random W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc [d_sae], b_dec [d_in]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_safetensors(path: Path, tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def write_torch(path: Path, tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)


def as_linear(w, prefix_encoder="encoder", prefix_decoder="decoder"):
    return {
        f"{prefix_encoder}.weight": w["W_enc"].T.contiguous(),
        f"{prefix_encoder}.bias": w["b_enc"],
        f"{prefix_decoder}.weight": w["W_dec"].T.contiguous(),
        f"{prefix_decoder}.bias": w["b_dec"],
    }


def sae_lens(repo: Path, path: str, w, **config) -> None:
    write_safetensors(repo / path / "sae_weights.safetensors", w)
    base = {
        "architecture": "standard",
        "d_in": w["W_dec"].shape[1],
        "d_sae": w["W_dec"].shape[0],
        "dtype": "float32",
        "device": "cpu",
        "model_name": "gpt2-small",
        "hook_name": "blocks.8.hook_resid_pre",
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
    }
    if "metadata" in config:  # version 6 keeps these there
        base = {key: base[key] for key in base if key not in ("model_name", "hook_name")}
        del base["activation_fn_str"]
    write_json(repo / path / "cfg.json", {**base, **config})


def llama_scope(repo: Path, path: str, w, hook: str = "blocks.19.hook_resid_post") -> None:
    weights = {name: tensor.bfloat16() for name, tensor in as_linear(w).items()}
    write_safetensors(repo / path / "checkpoints/final.safetensors", weights)
    hyperparameters = {
        "d_model": w["W_dec"].shape[1],
        "d_sae": w["W_dec"].shape[0],
        "hook_point_in": hook,
        "hook_point_out": hook,
        "jump_relu_threshold": 0.5,
        "dataset_average_activation_norm": {"in": 12.5, "out": 12.5},
    }
    write_json(repo / path / "hyperparams.json", hyperparameters)


def goodfire(repo: Path, path: str, w) -> None:
    write_torch(repo / path, as_linear(w, "encoder_linear", "decoder_linear"))


def llama_scope_r1_distill(repo: Path, path: str, w) -> None:
    tensors = {**as_linear(w), "log_jumprelu_threshold": torch.zeros(w["W_dec"].shape[0])}
    write_safetensors(repo / path / "sae_weights.safetensors", tensors)
    config = {"d_model": w["W_dec"].shape[1], "expansion_factor": 2}
    write_json(repo / path / "config.json", {**config, "hook_point_in": "blocks.3.hook_resid_post"})


def gemma_2(repo: Path, path: str, w) -> None:
    (repo / path).mkdir(parents=True)
    arrays = {name: tensor.numpy() for name, tensor in w.items()}
    threshold = np.ones(len(arrays["b_enc"]), dtype=np.float32)
    np.savez(repo / path / "params.npz", **arrays, threshold=threshold)


def gemma_3(repo: Path, path: str, w) -> None:
    tensors = {name.replace("W", "w"): tensor for name, tensor in w.items()}
    if "affine" in path:
        tensors["affine_skip_connection"] = torch.zeros(len(w["b_dec"]), len(w["b_dec"]))
    write_safetensors(repo / path / "params.safetensors", {**tensors, "threshold": torch.ones(len(w["b_enc"]))})


def dictionary_learning_1(repo: Path, path: str, w, own_names: bool = False) -> None:
    tensors = {"bias": w["b_dec"], "encoder.bias": w["b_enc"]}
    if own_names:
        tensors |= {"W_enc": w["W_enc"], "W_dec": w["W_dec"]}
    else:
        linear = as_linear(w)
        tensors |= {name: linear[name] for name in ("encoder.weight", "decoder.weight")}
    write_torch(repo / path / "ae.pt", tensors)
    trainer = {
        "activation_dim": w["W_dec"].shape[1],
        "dict_size": w["W_dec"].shape[0],
        "layer": 3,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "dict_class": "AutoEncoder",
    }
    write_json(repo / path / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})


def deepseek_r1(repo: Path, path: str, w) -> None:
    write_torch(repo / path, as_linear(w))


def qwen_scope(repo: Path, path: str, w) -> None:
    turned = {name: w[name].T.contiguous() for name in ("W_enc", "W_dec")}
    write_torch(repo / path, {**w, **turned})


def connor_rob_hook_z(repo: Path, path: str, w) -> None:
    write_torch(repo / path, w)
    config = {"act_size": w["W_dec"].shape[1], "dict_size": w["W_dec"].shape[0]}
    config["act_name"] = "blocks.5.attn.hook_z"
    write_json(repo / f"{path.split('.pt')[0]}_cfg.json", config)


def mwhanna_transcoder(repo: Path, path: str, w) -> None:
    write_safetensors(repo / path, {**w, "W_enc": w["W_enc"].T})
    (repo / "wandb-config.yaml").write_text(
        yaml.safe_dump(
            {
                "d_model": {"value": w["W_dec"].shape[1]},
                "d_feature": {"value": w["W_dec"].shape[0]},
                "batch_size": {"value": 8},
            }
        )
    )
    (repo / "config.yaml").write_text("model_name: Qwen/Qwen3-4B\n")


def mntss_clt_layer_transcoder(repo: Path, path: str, w) -> None:
    encoder = {"W_enc": w["W_enc"].T, "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    named = {f"{name}_{path}": tensor for name, tensor in encoder.items()}
    write_safetensors(repo / f"W_enc_{path}.safetensors", named)
    decoder = torch.stack([w["W_dec"], w["W_dec"].flip(1), w["W_dec"] * 0.3], dim=1)
    write_safetensors(repo / f"W_dec_{path}.safetensors", {f"W_dec_{path}": decoder})
    config = {"model_name": "google/gemma-2-2b"}
    config |= {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    (repo / "config.yaml").write_text(yaml.safe_dump(config))


def temporal(repo: Path, path: str, w) -> None:
    (repo / path).mkdir(parents=True)
    tensors = {"D": w["W_dec"], "E": w["W_enc"], "b": w["b_dec"]}
    write_safetensors(repo / path / "latest_ckpt.safetensors", tensors)
    sae = {"exp_factor": 2, "n_heads": 2, "n_attn_layers": 0, "bottleneck_factor": 4}
    sae |= {"sae_diff_type": "topk", "kval_topk": 4, "tied_weights": False, "scaling_factor": 0.5}
    config = {"llm": {"dimin": w["W_dec"].shape[1]}, "sae": sae, "data": {"dtype": "float32"}}
    (repo / path / "conf.yaml").write_text(yaml.safe_dump(config))


def sparsify(folder: Path, w) -> None:
    """A folder as sparsify writes it: rows are latents in W_dec."""
    folder.mkdir(parents=True)
    tensors = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
    write_safetensors(folder / "sae.safetensors", {**tensors, "W_dec": w["W_dec"], "b_dec": w["b_dec"]})
    config = {"d_in": w["W_dec"].shape[1], "num_latents": 0, "expansion_factor": 2, "k": 8}
    write_json(folder / "cfg.json", {**config, "normalize_decoder": True, "signed": False})


# One SAE of each layout under its registered name: (release, id, writer, rows that must come out).
# The factors are those of the registry; a decoder that was bfloat16 stays rounded to it.
def _bfloat16(w):
    return w["W_dec"].bfloat16().float()


def _summed(w):
    decoder = w["W_dec"]
    return torch.stack([decoder, decoder.flip(1), decoder * 0.3], dim=1).sum(dim=1)


def _plain(w):
    return w["W_dec"]


CASES = {
    "sae_lens, before version 6": (
        "gpt2-small-res-jb",
        "blocks.8.hook_resid_pre",
        sae_lens,
        _plain,
    ),
    "sae_lens, scaled": (
        "gemma-2b-res-jb",
        "blocks.12.hook_resid_post",
        partial(
            sae_lens,
            normalize_activations="expected_average_only_in",
            hook_name="blocks.12.hook_resid_post",
        ),
        None,
    ),
    "sae_lens, version 6, nothing to fold": (
        "gemma-2-2b-res-matryoshka-dc",
        "blocks.12.hook_resid_post",
        partial(
            sae_lens,
            sae_lens_version="6.5.0",
            metadata={
                "hook_name": "blocks.12.hook_resid_post",
                "model_name": "gemma-2-2b",
                "sae_lens_version": "6.5.0",
            },
        ),
        _plain,
    ),
    "gemma_2": ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical", gemma_2, _plain),
    "gemma_2, embeddings": (
        "gemma-scope-2b-pt-res",
        "embedding/width_4k/average_l0_6",
        gemma_2,
        lambda w: w["W_dec"] * D_IN**0.5,
    ),
    "gemma_2, heads": (
        "gemma-scope-2b-pt-att-canonical",
        "layer_0/width_16k/canonical",
        gemma_2,
        _plain,
    ),
    "gemma_2_transcoder": (
        "gemma-scope-2b-pt-transcoders",
        "layer_0/width_16k/average_l0_76",
        gemma_2,
        _plain,
    ),
    "gemma_3": ("gemma-scope-2-270m-pt-res", "layer_12_width_16k_l0_medium", gemma_3, _plain),
    "gemma_3, transcoder": (
        "gemma-scope-2-4b-it-transcoders-all",
        "layer_0_width_16k_l0_small_affine",
        gemma_3,
        _plain,
    ),
    "goodfire 8B": ("goodfire-llama-3.1-8b-instruct", "layer_19", goodfire, _plain),
    "goodfire 70B": ("goodfire-llama-3.3-70b-instruct", "layer_50", goodfire, _plain),
    "llama_scope_r1_distill": (
        "llama_scope_r1_distill",
        "l3r_800m_slimpajama",
        llama_scope_r1_distill,
        None,
    ),
    "dictionary_learning_1": (
        "llama-3.1-8b-instruct-andyrdt",
        "resid_post_layer_3_trainer_1",
        dictionary_learning_1,
        _plain,
    ),
    "dictionary_learning_1, other names": (
        "sae_bench_pythia70m_sweep_standard_ctx128_0712",
        "blocks.3.hook_resid_post__trainer_10",
        partial(dictionary_learning_1, own_names=True),
        _plain,
    ),
    "deepseek_r1": (
        "deepseek-r1-distill-llama-8b-qresearch",
        "blocks.19.hook_resid_post",
        deepseek_r1,
        _plain,
    ),
    "qwen_scope": ("qwen-scope-3-1.7b-base-w32k-l50", "layer1", qwen_scope, _plain),
    "connor_rob_hook_z": ("gpt2-small-hook-z-kk", "blocks.0.hook_z", connor_rob_hook_z, _plain),
    "mwhanna_transcoder": ("mwhanna-qwen3-4b-transcoders", "layer_0", mwhanna_transcoder, _plain),
    "mntss": (
        "mntss-gemma-2-2b-2.5m-clt-as-per-layer",
        "layer_0",
        mntss_clt_layer_transcoder,
        _summed,
    ),
    "temporal": ("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post", temporal, _plain),
} | {
    # every row of the data guide's table
    f"llama_scope {kind} {width}x": (
        f"llama_scope_lx{kind}_{width}x",
        f"l19{kind}_{width}x",
        partial(llama_scope, hook=f"blocks.19.hook_{site}"),
        None,
    )
    for kind, site in (("r", "resid_post"), ("m", "mlp_out"), ("a", "attn_out"))
    for width in (8, 32)
}


def registered(case: str):
    """The registry's own entry of a case: (repository, path, norm scaling factor)."""
    package = find_spec("sae_lens")
    text = (Path(package.submodule_search_locations[0]) / "pretrained_saes.yaml").read_text()
    return _raw(text)[CASES[case][:2]]


@cache
def _raw(text: str):
    raw = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        (release, sae["id"]): (found["repo_id"], str(sae["path"]), sae.get("norm_scaling_factor"))
        for release, found in raw.items()
        for sae in found["saes"]
    }


def write_case(root: Path, case: str) -> torch.Tensor:
    """Write a case's files under its repository in `root`; returns the rows that must come out."""
    *_, write, rows = CASES[case]
    repo, path, factor = registered(case)
    weights = parts(seed=len(case))
    write(root / repo, path, weights)
    if rows is not None:
        return rows(weights)
    rounded = _bfloat16(weights) if write_is(write, llama_scope) else weights["W_dec"]
    return rounded / factor


def write_is(write, function) -> bool:
    return getattr(write, "func", write) is function
