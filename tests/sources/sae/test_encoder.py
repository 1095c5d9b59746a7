from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.sources.sae.encoder import DEMO_SAE, encoder_of, load_sae, open_encoder
from tiny_sae import D_IN, D_SAE, KINDS, tiny_sae


def states(rows=4, tokens=7):
    return torch.randn(rows, tokens, D_IN, generator=torch.Generator().manual_seed(9)) * 2


OPTIONS = (
    {},
    {"apply_b_dec_to_input": False},
    {"normalize_activations": "layer_norm"},
    {"normalize_activations": "constant_norm_rescale"},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_of_the_whole_sae(kind, options):
    sae = tiny_sae(kind, **options)
    encoder = encoder_of(sae, range(D_SAE))
    x = states()
    everyone = torch.arange(D_SAE).expand(len(x), -1)
    with torch.no_grad():
        wanted = sae.encode(x)
    found = encoder.encode(x, everyone)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert bool(((found > 0) == (wanted > 0)).all())
    assert 0 < int((wanted > 0).sum()) < wanted.numel()


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_has_its_own_latents(kind):
    sae = tiny_sae(kind)
    encoder = encoder_of(sae, [31, 5, 17])
    x, latents = states(3), torch.tensor([[5, 31], [17, 17], [31, 5]])
    with torch.no_grad():
        wanted = sae.encode(x)
    for row, columns in enumerate(latents.tolist()):
        found = encoder.encode(x, latents)[row]
        torch.testing.assert_close(found, wanted[row][:, columns], rtol=1e-5, atol=1e-6)
    assert torch.equal(encoder.decoder, sae.W_dec.detach()[[31, 5, 17]])


def test_top_k_scaled_by_decoder_norms():
    sae = tiny_sae("topk", rescale_acts_by_decoder_norm=True)
    x = states()
    with torch.no_grad():
        wanted = sae.encode(x)
    found = encoder_of(sae, range(D_SAE)).encode(x, torch.arange(D_SAE).expand(len(x), -1))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_top_k_in_blocks_is_the_same(monkeypatch):
    encoder = encoder_of(tiny_sae("topk"), range(D_SAE))
    x, everyone = states(), torch.arange(D_SAE).expand(4, -1)
    whole = encoder.encode(x, everyone)
    monkeypatch.setattr("selfie_adapters.sources.sae.encoder._NUMBERS_AT_ONCE", 3 * D_SAE)
    torch.testing.assert_close(encoder.encode(x, everyone), whole)


def test_an_sae_on_disk(tmp_path):
    sae = tiny_sae("jumprelu")
    sae.save_model(tmp_path / "sae")
    encoder = open_encoder(tmp_path / "sae", [3])
    assert (encoder.layer, encoder.model, encoder.d_sae) == (2, "tiny", D_SAE)
    with torch.no_grad():
        wanted = sae.encode(states())[..., 3:4]
    found = encoder.encode(states(), torch.full((4, 1), 3))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_sae_on_disk_with_a_byte_order_mark(tmp_path):
    for name in ("cfg.json", "sae_weights.safetensors"):
        content = (DEMO_SAE / name).read_bytes()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" * (name == "cfg.json") + content)
    marked, plain = open_encoder(tmp_path, [3]), open_encoder("demo", [3])
    assert torch.equal(marked.decoder, plain.decoder)
    config = (tmp_path / "cfg.json").read_text(encoding="utf-8-sig")
    (tmp_path / "cfg.json").write_text(config.replace('"d_in": 576', '"d_in": "576"'))
    with pytest.raises(DataError, match=r"cfg\.json: d_in must be an integer"):
        open_encoder(tmp_path, [3])


def test_layer_is_the_block_whose_output_is_read():
    assert encoder_of(tiny_sae("standard", "blocks.8.hook_resid_pre"), [0]).layer == 7
    for hook in ("blocks.3.hook_mlp_out", "blocks.0.hook_resid_pre", None):
        with pytest.raises(DataError, match="the output of a block"):
            encoder_of(tiny_sae("standard", hook), [0])


@pytest.mark.parametrize("latent", [-1, D_SAE])
def test_a_latent_out_of_range(latent):
    with pytest.raises(DataError, match=f"latent {latent} is out of range: the SAE has {D_SAE}"):
        encoder_of(tiny_sae("standard"), [0, latent])


def test_processed_weights_and_lost_factors_are_refused_unless_forced():
    centered = tiny_sae("standard", processed={"center_writing_weights": True})
    with pytest.raises(DataError, match="center_writing_weights"):
        encoder_of(centered, [0])
    assert encoder_of(centered, [0], force=True).layer == 2
    scaled = tiny_sae("standard", normalize_activations="expected_average_only_in")
    with pytest.raises(DataError, match="expected_average_only_in"):
        encoder_of(scaled, [0])
    with torch.no_grad():
        wanted = scaled.encode(states())[..., :1]
    forced = encoder_of(scaled, [0], force=True)
    found = forced.encode(states(), torch.zeros(4, 1, dtype=torch.int64))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_is_no_sae(tmp_path):
    with pytest.raises(MissingFileError, match=r"cfg\.json next to"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(DataError, match="SAELens cannot load it"):
        load_sae(tmp_path)
    with pytest.raises(DataError, match="architecture transcoder"):
        encoder_of(tiny_sae("transcoder", d_out=4, apply_b_dec_to_input=False), [0])


def test_the_demo_sae_and_its_labels():
    from selfie_adapters.sources.labels.files import read_label_file
    from selfie_adapters.sources.sae.encoder import DEMO_SAE

    labels = read_label_file(DEMO_SAE / "labels.json")
    encoder = open_encoder("demo", sorted(labels.labels))
    assert (encoder.kind, encoder.layer, encoder.d_in) == ("jumprelu", 8, 576)
    assert (encoder.d_sae, len(labels.labels)) == (2048, 708)
    assert {*labels.splits.values()} == {"train", "val", "test"}
    assert sum(file.stat().st_size for file in DEMO_SAE.iterdir()) < 6_000_000
    norms = encoder.decoder.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=0.01, rtol=0)


def test_no_word_of_the_demo_saes_labels_is_in_two_splits():
    from selfie_adapters.sources.labels.files import read_label_file
    from selfie_adapters.sources.sae.encoder import DEMO_SAE

    labels = read_label_file(DEMO_SAE / "labels.json")
    of_word: dict[str, set[str]] = {}
    for latent, texts in labels.labels.items():
        for word in texts[0].split(", "):
            of_word.setdefault(word, set()).add(labels.splits[latent])
    assert all(len(splits) == 1 for splits in of_word.values())
