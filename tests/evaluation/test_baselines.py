from __future__ import annotations

import string

import pytest
import torch

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.baselines import LogitLens, RidgeProbe, TokenCosine
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.training.closed_form import word_tokens
from tiny import golden_tokenizer, tiny_network

NAMES = ["owl", "tin can", "bee", "a"]
LETTERS = list(string.ascii_lowercase)
VOCABULARY = golden_tokenizer().get_vocab()


def tiny(family: str = "llama", **changed: object) -> FrozenModel:
    return FrozenModel(tiny_network(family, **changed), golden_tokenizer(), "tiny")


def some_vectors(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(3))


def bytes_of(name: str) -> list[int]:
    """The golden tokenizer has one token per byte; its vocabulary writes the space as Ġ."""
    return [VOCABULARY[character.replace(" ", "Ġ")] for character in f" {name}"]


def test_names_have_the_tokens_that_they_have_after_a_space():
    tokens = word_tokens(tiny(), [" owl ", "bee"])
    rows = [
        tokens.ids[s : s + n - 2].tolist()
        for s, n in zip(tokens.starts, tokens.lengths, strict=True)
    ]
    assert rows == [bytes_of("owl"), bytes_of("bee")]


@pytest.mark.parametrize("tied", [False, True])
def test_the_lens_is_norm_times_unembedding_and_ties_of_the_first_token_are_decided_by_all(tied):
    model = tiny(tie_word_embeddings=tied)
    norm = model.network.get_decoder().norm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, 32))
    vectors = some_vectors()
    unit = vectors / (vectors.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    logits = (unit * norm.weight) @ model.network.get_output_embeddings().weight.T
    means = torch.stack([logits[:, bytes_of(name)].mean(dim=1) for name in NAMES], dim=1)
    scores = LogitLens(model).scores(vectors, NAMES)
    # every name's first token is the space, so the means alone decide
    assert scores.argsort(dim=1).tolist() == means.argsort(dim=1).tolist()
    expected = logits[:, [VOCABULARY["Ġ"]]] + 1e-6 * means
    assert torch.allclose(scores, expected.double(), atol=1e-5)
    words = LogitLens(model).words(vectors)
    best = logits.argmax(dim=1).tolist()
    assert words == [golden_tokenizer().decode([token]).strip() for token in best]
    assert LogitLens(model).scores(vectors[:0], NAMES).shape == (0, 4)


def test_a_layer_norm_with_a_bias_has_a_lens_too():
    model = tiny("gpt_neox")
    norm = model.network.get_decoder().final_layer_norm
    with torch.no_grad():
        norm.bias.copy_(torch.linspace(-1, 1, 32))
    vectors = some_vectors()
    by_hand = torch.nn.functional.layer_norm(vectors, [32], norm.weight, norm.bias, norm.eps)
    logits = by_hand @ model.network.get_output_embeddings().weight.T
    means = torch.stack([logits[:, bytes_of(name)].mean(dim=1) for name in NAMES], dim=1)
    scores = LogitLens(model).scores(vectors, NAMES)
    assert scores.argsort(dim=1).tolist() == means.argsort(dim=1).tolist()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_cosines_are_with_embeddings_and_their_means(family, monkeypatch):
    from selfie_adapters.evaluation import baselines

    model = tiny(family)
    table = model.network.get_input_embeddings().weight
    vectors = some_vectors()
    of_names = torch.stack([table[bytes_of(name)].mean(dim=0) for name in NAMES])
    by_hand = torch.cosine_similarity(vectors.unsqueeze(1), of_names.unsqueeze(0), dim=2)
    assert torch.allclose(TokenCosine(model).scores(vectors, NAMES).float(), by_hand, atol=1e-5)
    near = torch.cosine_similarity(vectors.unsqueeze(1), table[:261].unsqueeze(0), dim=2)
    expected = [golden_tokenizer().decode([token]).strip() for token in near.argmax(dim=1)]
    assert TokenCosine(model).words(vectors) == expected
    monkeypatch.setattr(baselines, "_TOKENS_AT_ONCE", 50)
    assert TokenCosine(model).words(vectors) == expected


def test_the_ridge_probe_reads_what_is_linear_in_the_names_embeddings():
    model = tiny()
    table = model.network.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(5)
    turn, _ = torch.linalg.qr(torch.randn(32, 32, generator=generator))
    names = LETTERS * 20
    clean = torch.stack([table[bytes_of(name)].mean(dim=0) for name in names])
    clean = (clean - clean.mean(dim=0)) @ turn
    vectors = 7 * clean + 0.05 * torch.randn(len(names), 32, generator=generator)
    held_out = vectors[:26]
    probe = RidgeProbe(model, vectors[26:], names[26:])
    assert probe.scores(held_out, LETTERS).argmax(dim=1).tolist() == list(range(26))
    assert probe.words(held_out) == LETTERS
    # without the regression, the turned vectors say nothing
    assert TokenCosine(model).words(held_out) != LETTERS
    scores = probe.scores(held_out, ["q", "q", "z"])
    assert torch.equal(scores[:, 0], scores[:, 1])


def test_a_ridge_probe_of_scrambled_names_finds_nothing():
    model = tiny()
    generator = torch.Generator().manual_seed(6)
    names = LETTERS * 20
    probe = RidgeProbe(model, torch.randn(len(names), 32, generator=generator), names)
    scores = probe.scores(torch.randn(26, 32, generator=generator), LETTERS)
    assert (scores.argmax(dim=1) == torch.arange(26)).float().mean() < 0.3
    with pytest.raises(DataError, match="found 1, at least 2"):
        RidgeProbe(model, torch.randn(1, 32), ["a"])


@pytest.mark.slow
def test_on_the_real_model_the_lens_names_what_is_about_to_be_written():
    """Late blocks write the word, early ones do not: the reason for reading early blocks."""
    from selfie_adapters.model.prompt import as_chat
    from selfie_adapters.sources.topics.reading import packaged_topics, topic_vectors

    model = load_model("demo")
    topics = packaged_topics()[::40][:120]
    names = [topic.title for topic in topics]
    texts = [as_chat(model.tokenizer, f"Tell me about {name}.", "bare") for name in names]
    vectors = topic_vectors(model, texts, (12, 24), -1)
    vectors = vectors - vectors.mean(dim=0)
    lens = LogitLens(model)

    def share(column: int) -> float:
        words = lens.words(vectors[:, column])
        return (
            sum(word.casefold() == name.casefold() for word, name in zip(words, names, strict=True))
            / 120
        )

    assert share(0) < 0.05
    assert share(1) > 0.3
    first = lens.scores(vectors[:60, 1], names[:60]).argmax(dim=1) == torch.arange(60)
    assert first.float().mean() > 0.85
