from __future__ import annotations

import pytest
import torch

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.errors import BindingError, ConfigError, DataError
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.training import label_losses, measure, measure_run, train, validation
from selfie_adapters.training.validation import Validation
from tiny import golden_tokenizer, tiny_network
from toy_run import config_for, rows_of


def mean_losses(model, data, adapter, vectors_of):
    """Each held-out label's loss by the public function, vectors chosen by `vectors_of`."""
    dataset = load_dataset(data)
    val = dataset.examples("val")
    vectors = vectors_of(dataset.gather(val.section, val.row))
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    with torch.no_grad():
        return label_losses(model, prompt, adapter, vectors, val.labels)


def test_every_validation_reports_trained_zero_and_identity(data, model):
    run = train(config_for(data), model)
    row = rows_of(run, "validation")[-1]
    adapter = load_adapter(run / "adapter_final.safetensors")
    identity = create_adapter("identity", 32)
    expected = {
        "trained": mean_losses(model, data, adapter, lambda x: x),
        "zero": mean_losses(model, data, adapter, torch.zeros_like),
        "identity": mean_losses(model, data, identity, lambda x: x),
    }
    for name, losses in expected.items():
        assert row["controls"][name] == pytest.approx(float(losses.mean()), rel=1e-5), name
    assert row["val_loss"] == row["controls"]["trained"]
    assert row["examples"] == row["control_examples"] == 7  # 4 of 20, 2 of 10, 1 of 6
    better_by = row["controls"]["identity"] - row["controls"]["trained"]
    share = (row["controls"]["identity"] - row["controls"]["zero"]) / better_by
    assert row["bias_share"] == (None if better_by <= 0 else pytest.approx(share, abs=1e-4))


def test_shuffled_gives_every_label_the_vector_of_another(data, model):
    """Two vectors of several labels each: shuffled can only mean that they change places."""
    dataset = load_dataset(data)
    vectors = dataset.sections[0].vectors
    items = [
        Item(0, ["one", "eins", "un"], "val"),
        Item(1, ["two"], "val"),
        Item(2, ["x"], "train"),
    ]
    save_dataset(
        data, [Section(dataset.sections[0].metadata, vectors.clone(), items)], overwrite=True
    )
    config = config_for(data, projection={"type": "identity"})
    row = rows_of(train(config, model), "validation")[0]
    identity = create_adapter("identity", 32)
    swapped = mean_losses(model, data, identity, lambda x: torch.stack([x[3], x[3], x[3], x[0]]))
    assert row["controls"]["shuffled"] == pytest.approx(float(swapped.mean()), rel=1e-5)


def test_validation_clamps_each_token_at_max_loss(data, model):
    """Against plain passes of the network, in which some tokens are above the limit and some not.

    val_loss is a mean over examples of a mean over tokens, so clamping example by example, or not
    at all, gives other numbers. Label smoothing has no part in it.
    """
    dataset = load_dataset(data)
    val = dataset.examples("val")
    vectors = dataset.gather(val.section, val.row)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    embedding = model.network.get_input_embeddings()
    units = vectors / vectors.norm(dim=-1, keepdim=True)
    by_condition = {"identity": units, "zero": torch.zeros_like(vectors)}
    tokens = {name: [] for name in by_condition}
    with torch.no_grad():
        for name, soft_tokens in by_condition.items():
            for soft, label in zip(soft_tokens, val.labels, strict=True):
                text = model.tokenizer.encode(f'{label}"', add_special_tokens=False)
                target = [*text, prompt.end_id]
                embedded = embedding(torch.tensor([*prompt.ids, *target])).clone()
                embedded[list(prompt.sites)] = soft
                logits = model.network(inputs_embeds=embedded.unsqueeze(0)).logits[0]
                log_p = logits[len(prompt.ids) - 1 : -1].log_softmax(dim=-1)
                tokens[name].append(-log_p[torch.arange(len(target)), target])
    limit = float(torch.cat(tokens["identity"]).median())
    clamped = {
        name: float(torch.stack([one.clamp(max=limit).mean() for one in of]).mean())
        for name, of in tokens.items()
    }
    whole = float(torch.stack([one.mean() for one in tokens["identity"]]).mean())
    assert whole - clamped["identity"] > 0.01

    def found(**changes):
        config = config_for(data, projection={"type": "identity"}, **changes)
        return measure(config, model=model)[0]

    low = found(training__max_loss=limit, training__label_smoothing=0.1)
    assert low.loss == pytest.approx(clamped["identity"], rel=1e-5)
    assert low.controls["zero"] == pytest.approx(clamped["zero"], rel=1e-5)
    assert found().loss == pytest.approx(whole, rel=1e-5)  # 100 nats clamp nothing


def test_one_vector_alone_cannot_be_shuffled(data, model):
    dataset = load_dataset(data)
    items = [Item(0, ["one", "eins"], "val"), Item(2, ["x"], "train")]
    vectors = dataset.sections[0].vectors.clone()
    save_dataset(data, [Section(dataset.sections[0].metadata, vectors, items)], overwrite=True)
    row = rows_of(train(config_for(data), model), "validation")[-1]
    assert set(row["controls"]) == {"trained", "zero", "identity"}


def test_controls_of_a_large_split_are_measured_on_part_of_it(data, model, monkeypatch):
    monkeypatch.setattr(validation, "CONTROL_EXAMPLES", 3)
    run = train(config_for(data), model)
    row = rows_of(run, "validation")[-1]
    adapter = load_adapter(run / "adapter_final.safetensors")
    losses = mean_losses(model, data, adapter, lambda x: x)
    assert (row["examples"], row["control_examples"]) == (7, 3)
    assert row["val_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    triples = torch.combinations(losses, 3).mean(dim=1)  # the part is three of the seven
    assert (triples - row["controls"]["trained"]).abs().min() < 1e-4


@pytest.mark.parametrize(
    ("zero", "trained", "share"),
    [(2.0, 1.0, 2 / 3), (4.0, 1.0, 0.0), (1.0, 1.0, 1.0), (0.5, 1.0, 3.5 / 3), (2.0, 4.0, None)],
)
def test_the_share_of_the_bias(zero, trained, share):
    controls = {"trained": trained, "zero": zero, "shuffled": 3.0, "identity": 4.0}
    found = Validation(trained, 10, controls, 10)
    assert found.bias_share == (share if share is None else pytest.approx(share))


def test_a_fraction_of_validation_is_the_same_examples_each_time(data, model):
    config = config_for(data, training__val_fraction=0.5, training__learning_rate=1e-12)
    rows = rows_of(train(config, model), "validation")
    assert [row["examples"] for row in rows] == [4, 4, 4]  # half of 7, rounded to even
    assert rows[0]["val_loss"] == pytest.approx(rows[2]["val_loss"], abs=1e-6)


def test_validation_dearer_than_half_of_training_is_refused_with_what_to_set(data, model):
    # 12 steps on 58 examples, 7 held out: 12 validations are 84 passes forward beside 58 pairs
    config = config_for(data, training__validation_every_n_steps=1)
    with pytest.raises(ConfigError) as raised:
        train(config, model)
    said = str(raised.value)
    assert "12 validations of 7 examples in 12 steps, 72% of the cost of training" in said
    assert "training.validation_every_n_steps: 2 or training.val_fraction: 0.57" in said
    assert not (data.parent / "runs").exists()
    for change in (
        {"training__validation_every_n_steps": 2},
        {"training__validation_every_n_steps": 1, "training__val_fraction": 0.57},
    ):
        train(config_for(data, **change), model, overwrite=True)


def test_the_one_validation_at_the_end_is_never_refused(data, model):
    config = config_for(data, training__max_steps=1, data__batch_size=1)
    assert len(rows_of(train(config, model), "validation")) == 1


def test_a_set_without_held_out_rows_is_trained_on_without_validation(data, model):
    dataset = load_dataset(data)
    items = [Item(0, ["one"], "train")]
    vectors = dataset.sections[0].vectors.clone()
    save_dataset(data, [Section(dataset.sections[0].metadata, vectors, items)], overwrite=True)
    run = train(config_for(data), model)
    assert rows_of(run, "validation") == []
    with pytest.raises(DataError, match='no vector has the split "val"'):
        measure_run(run, model)


def test_measuring_a_run_repeats_its_best_validation_and_writes_nothing(data, model):
    run = train(config_for(data), model)
    best = min(rows_of(run, "validation"), key=lambda row: row["val_loss"])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found, what = measure_run(run, model)
    assert what == str(run / "adapter_best.safetensors")
    assert found.loss == pytest.approx(best["val_loss"], rel=1e-6)
    assert found.controls == pytest.approx(best["controls"], rel=1e-6)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_measuring_without_an_adapter_file_takes_the_initial_values(data, model):
    found, what = measure(config_for(data), model=model)
    assert what == "the adapter at its initial values"
    start = create_adapter("scalar_affine", 32, init_scale=3.0, seed=42)
    assert found.loss == pytest.approx(
        float(mean_losses(model, data, start, lambda x: x).mean()), rel=1e-5
    )
    assert not (data.parent / "runs").exists()


def test_an_adapter_of_another_model_is_not_measured(data, model):
    run = train(config_for(data), model)
    other = FrozenModel(tiny_network("llama", seed=1), golden_tokenizer(), "tiny")
    with pytest.raises(BindingError):
        measure_run(run, other)
