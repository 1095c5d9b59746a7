from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.errors import ConfigError, DataError, ModelError, PromptError
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.centering import mean_layers
from selfie_adapters.labelling.confidence import Confidence, confidence_file
from selfie_adapters.model import FrozenModel
from selfie_adapters.reading import read as reading
from selfie_adapters.reading.calibration import calibration
from selfie_adapters.reading.means import ReadingMeans, read_means
from selfie_adapters.reading.plan import plan_reading, prompt_ids
from selfie_adapters.reading.read import read_cells, read_prompt
from tiny import D_MODEL, FAMILIES, golden_tokenizer, tiny_network

BEGIN = 256
LIMIT = 5


@pytest.fixture(scope="module")
def labeller(model, golden_dir):
    return Labeller(model, load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors"))


@torch.no_grad()
def hidden(model, ids, layer):
    """Output of block `layer`, which is not the last, by the model's own account: [tokens, d]."""
    states = model.network(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return states.hidden_states[layer + 1][0]


def cells_of(labeller, plan, **options):
    batches = read_cells(labeller, plan, max_new_tokens=LIMIT, **options)
    return {(cell.layer, cell.position): cell for batch in batches for cell in batch}


# cells


def test_a_cell_is_what_the_labeller_says_of_the_models_own_hidden_state(model, labeller):
    plan = plan_reading(model, "an owl", layers=[1], chat="none")
    cells = cells_of(labeller, plan)
    ids = [token.id for token in plan.tokens]
    labels = labeller.label(hidden(model, ids, 1), max_new_tokens=LIMIT)
    for position in plan.positions:
        (label,), cell = labels[position], cells[1, position]
        assert (cell.label, cell.raw, cell.ended) == (label.text, label.raw, label.ended)
        assert cell.log_prob == pytest.approx(label.log_prob, abs=1e-4)


@torch.no_grad()
def next_log_probs(labeller, soft, written):
    """Log-probabilities of each written token and of the next: one plain forward pass, no cache."""
    ids = torch.tensor([[*labeller.prompt.ids, *written]])
    embedded = labeller.model.embedding(ids).clone()
    embedded[0, list(labeller.prompt.sites)] = soft
    logits = labeller.model.network(inputs_embeds=embedded, use_cache=False).logits[0]
    return logits.log_softmax(-1)[len(labeller.prompt.ids) - 1 :]


def test_the_gain_is_the_difference_from_the_zero_vector_a_token(model, labeller):
    plan = plan_reading(model, "an owl", layers=[1], positions=[-1], chat="none")
    (cell,) = cells_of(labeller, plan).values()
    state = hidden(model, [token.id for token in plan.tokens], 1)[-1:]
    soft, zero = labeller.soft_tokens(state), labeller.soft_tokens(torch.zeros(1, 48))
    written: list[int] = []
    for _ in range(cell.tokens):
        written.append(int(next_log_probs(labeller, soft, written)[-1].argmax()))
    totals = [
        sum(float(table[i, token]) for i, token in enumerate(written))
        for table in (next_log_probs(labeller, s, written) for s in (soft, zero))
    ]
    assert cell.log_prob == pytest.approx(totals[0], abs=1e-4)
    assert cell.gain == pytest.approx((totals[0] - totals[1]) / cell.tokens, abs=1e-4)
    assert abs(cell.gain) > 1e-3


def test_the_mean_is_subtracted_before_anything_else(model, labeller):
    plan = plan_reading(model, "an owl", layers=[0, 1], positions=[2], chat="none")
    mean = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
    means = ReadingMeans("m", (0, 1), ({None: mean[0]}, {None: mean[1]}))
    cells = cells_of(labeller, plan, mean=means)
    ids = [token.id for token in plan.tokens]
    for row, layer in enumerate((0, 1)):
        centered = hidden(model, ids, layer)[2:3] - mean[row]
        ((label,),) = labeller.label(centered, max_new_tokens=LIMIT)
        assert cells[layer, 2].raw == label.raw


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_size_changes_no_label(model, labeller, batch_size):
    plan = plan_reading(model, "three owls", chat="none")
    expected = cells_of(labeller, plan, batch_size=7)
    found = cells_of(labeller, plan, batch_size=batch_size)
    assert {k: c.raw for k, c in found.items()} == {k: c.raw for k, c in expected.items()}
    assert list(found) == plan.cells()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_prompt_read_in_pieces_is_the_prompt_read_at_once(family, monkeypatch):
    model = FrozenModel(tiny_network(family), golden_tokenizer(), family)
    plan = plan_reading(model, "a long prompt about several owls and mice", chat="none")
    whole = torch.cat([states for _, states in reading.read_states(model, plan)], dim=1)
    monkeypatch.setattr(reading, "_TOKENS_AT_ONCE", 7)  # less than the sliding window, 16
    pieces = list(reading.read_states(model, plan))
    assert len(pieces) == -(-len(plan.tokens) // 7) > 5
    assert [p for positions, _ in pieces for p in positions] == list(plan.positions)
    found = torch.cat([states for _, states in pieces], dim=1)
    torch.testing.assert_close(found, whole, rtol=2e-4, atol=2e-5)


def test_only_what_was_asked_for_is_run(model, labeller):
    ran: list[tuple[int, int]] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, out, n=n: ran.append((n, out.shape[1])))
        for n, block in enumerate(model.blocks)
    ]
    plan = plan_reading(model, "abcdefgh", layers=[1], positions=[3], chat="none")
    try:
        ((positions, states),) = reading.read_states(model, plan)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [
        (0, 4),
        (1, 4),
    ]  # no block after the last layer, no token after the last position
    assert (positions, states.shape) == ([3], (1, 1, 48))


def test_cells_that_are_done_are_left_out(model, labeller):
    plan = plan_reading(model, "owl", layers=[0, 1], chat="none")
    done = {(0, 1), (1, 2)}
    left = cells_of(labeller, plan, done=lambda layer, position: (layer, position) in done)
    assert list(left) == [place for place in plan.cells() if place not in done]


def test_a_reader_that_stops_stops_the_work(model, labeller, monkeypatch):
    calls = []
    label = labeller.label
    monkeypatch.setattr(labeller, "label", lambda *a, **k: calls.append(1) or label(*a, **k))
    batches = read_cells(labeller, plan_reading(model, "owl", chat="none"), batch_size=2)
    next(batches)
    batches.close()
    assert len(calls) == 1


def test_a_state_that_is_not_finite_is_named(labeller, model):
    plan = plan_reading(model, "owl", layers=[0, 1], chat="none")
    mean = torch.zeros(2, 48)
    mean[1, 5] = math.inf
    means = ReadingMeans("m", (0, 1), ({None: mean[0]}, {None: mean[1]}))
    with pytest.raises(DataError, match=r"layer 1, token 0 holds NaN or infinity.*--dtype"):
        cells_of(labeller, plan, mean=means)


def test_read_prompt_is_all_of_it_in_one_call(model, labeller):
    seen = []
    trust = Confidence({"gain": 2.0}, -1.0, 0.5)
    found = read_prompt(
        model, labeller.adapter, "owl", "1:", "-1", confidence=trust, progress=seen.extend
    )
    assert [(cell.layer, cell.position) for cell in found.cells] == found.plan.cells()
    assert list(found.cells) == seen
    for cell in found.cells:
        assert cell.confidence == pytest.approx(1 / (1 + math.exp(1 - 2 * cell.gain)))
        assert found.at(cell.layer, cell.position) is cell
    with pytest.raises(KeyError):
        found.at(0, 0)


# plan


def test_special_tokens_are_shown_and_skipped(model):
    plan = plan_reading(model, "owl", chat="bare")
    special = [token.position for token in plan.tokens if token.special]
    assert [plan.tokens[i].text for i in special][:3] == [
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
    ]
    assert set(plan.positions) == set(range(len(plan.tokens))) - set(special)
    assert plan_reading(model, "owl", chat="bare", special=True).positions == tuple(
        range(len(plan.tokens))
    )
    # named one by one, they are asked for; caught in a slice, they are not
    assert plan_reading(model, "owl", positions="0", chat="bare").positions == (0,)
    assert plan_reading(model, "owl", positions=[0, 1], chat="bare").positions == (0, 1)
    assert 0 not in plan_reading(model, "owl", positions="0:9", chat="bare").positions


def test_plain_text_begins_as_the_tokenizer_begins_it():
    tokenizer = golden_tokenizer()
    letters = tokenizer.encode("owl", add_special_tokens=False)
    assert prompt_ids(tokenizer, "owl", "none") == letters
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", BEGIN)]
    )
    assert prompt_ids(tokenizer, "owl", "none") == [BEGIN, *letters]
    marked = prompt_ids(tokenizer, "<|begin_of_text|>owl", "none")
    assert marked.count(BEGIN) == 1


def test_layers_and_positions_are_sorted_and_taken_once(model):
    plan = plan_reading(model, "abcdef", layers=[2, 0, 2], positions="-1,1,1", chat="none")
    assert plan.layers == (0, 2)
    assert plan.positions == (1, len(plan.tokens) - 1)
    assert plan.n_cells == 4 == len(plan.cells())


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(model, prompt):
    with pytest.raises(PromptError, match="the prompt is empty"):
        plan_reading(model, prompt)


def test_a_prompt_of_special_tokens_alone_needs_to_be_asked_for(model):
    prompt = "<|eot_id|><|eot_id|>"
    with pytest.raises(PromptError, match=r"only special tokens \(\d of them\).*--special"):
        plan_reading(model, prompt, chat="none")
    with pytest.raises(PromptError, match="positions 0:1 of the prompt hold only special tokens"):
        plan_reading(model, "owl", positions="0:1")
    plan = plan_reading(model, prompt, chat="none", special=True)
    assert all(token.special for token in plan.tokens)
    assert plan.positions


def test_a_prompt_of_a_hundred_thousand_tokens_is_refused_by_its_count(model):
    window = model.network.config.max_position_embeddings
    with pytest.raises(PromptError, match=rf"the prompt has 100,00\d tokens; .* {window:,}\."):
        plan_reading(model, "x" * 100_000, chat="none")


def test_half_a_character_is_refused(model):
    with pytest.raises(PromptError, match="not valid Unicode: half a character at index 3"):
        plan_reading(model, "owl\ud83e", chat="none")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": "3"}, ConfigError, "layers: 3 is out of range; choose from 0 to 2"),
        ({"layers": [3]}, ModelError, "layer 3: the model has 3 blocks"),
        ({"positions": "4"}, ConfigError, "positions: 4 is out of range; choose from 0 to 2"),
        ({"positions": [-5]}, ConfigError, "positions: -5 is out of range"),
    ],
)
def test_numbers_out_of_range_are_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        plan_reading(model, "owl", chat="none", **options)


def test_a_character_of_several_tokens_stands_whole_in_each(model):
    plan = plan_reading(model, "a🦉é", chat="none")  # the tokenizer knows bytes only
    shown = [(token.text, token.part) for token in plan.tokens]
    assert shown == [
        ("a", None),
        *[("🦉", f"{i}/4") for i in (1, 2, 3, 4)],
        ("é", "1/2"),
        ("é", "2/2"),
    ]


@pytest.mark.parametrize(
    "prompt", ["שלום עולם", "🏳️‍🌈👩‍👩‍👧", "a\u202eb\x00\x1b[31m", "\ufffd\ufffd"]
)
def test_every_character_of_a_prompt_is_read(model, labeller, prompt):
    plan = plan_reading(model, prompt, layers=[0], chat="none")
    assert len(plan.tokens) == len(prompt.encode())  # the tokenizer knows bytes only
    whole = [t.text for t in plan.tokens if t.part is None or t.part.startswith("1/")]
    assert "".join(whole).replace("\ufffd" * 3, "\ufffd") == prompt
    assert len(cells_of(labeller, plan)) == len(prompt.encode())


# means and calibration


@pytest.fixture
def means(tmp_path):
    path = tmp_path / "mean.safetensors"
    tensors = {f"layer_{i}": torch.full((D_MODEL,), float(i)) for i in (0, 2, 10)}
    save_file(tensors, path)
    return path


def test_means_come_in_the_order_of_the_layers(means):
    assert mean_layers(means) == [0, 2, 10]
    found = read_means(means, [2, 0], D_MODEL).at([0, 3], 4)
    assert found.shape == (2, 2, D_MODEL)
    assert found[:, :, 0].tolist() == [[2.0, 2.0], [0.0, 0.0]]


def test_a_layer_without_a_mean_is_refused(means):
    with pytest.raises(DataError, match=r"no mean vector layer_1; it holds layers 0, 2, 10"):
        read_means(means, [0, 1], D_MODEL)


def test_a_mean_of_another_width_is_refused(means):
    with pytest.raises(DataError, match=r"layer_0.*32"):
        read_means(means, [0], D_MODEL + 1)


def test_a_file_of_other_tensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"vectors": torch.ones(2, 2)}, path)
    with pytest.raises(DataError, match="layer_0, layer_1, …, are expected; found vectors"):
        mean_layers(path)
    path.write_bytes(b"no")
    with pytest.raises(DataError, match="not a safetensors file"):
        mean_layers(path)


DRAWN = {"scales": [1.0], "samples": 1, "best_of": False, "temperature": 0.0, "top_p": 1.0}
DRAWN |= {"repetition_penalty": 1.0, "max_new_tokens": 30}


def test_the_calibration_beside_the_adapter_is_taken(tmp_path):
    adapter = create_adapter("identity", 4).save(tmp_path / "a.safetensors")
    assert calibration(adapter) is None
    trust = Confidence({"gain": 1.5}, -0.5, 0.4, DRAWN)
    trust.save(confidence_file(adapter))
    assert calibration(adapter) == trust
    trust.save(tmp_path / "other.json")
    assert calibration(adapter, tmp_path / "other.json") == trust


def test_a_calibration_of_other_labels_is_not_taken(tmp_path, caplog):
    adapter = create_adapter("identity", 4).save(tmp_path / "a.safetensors")
    Confidence({"gain": 1.5}, -0.5, 0.4, {**DRAWN, "samples": 8}).save(confidence_file(adapter))
    assert calibration(adapter) is None
    assert "sampled in another way (samples 8, not 1)" in caplog.text
    with pytest.raises(ConfigError, match="sampled in another way"):
        calibration(adapter, confidence_file(adapter))
    Confidence({"gain": 1.5}, -0.5, 0.4, DRAWN).save(confidence_file(adapter))
    assert calibration(adapter, max_new_tokens=5) is None
