from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.config import load_config
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.errors import ConfigError, DataError, MissingFileError, TrainingError
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.training import label_losses, loop, train
from tiny import golden_tokenizer, tiny_network
from toy_run import config_for, rows_of


def test_a_run_folder_holds_config_metrics_and_adapters(data, model):
    config = config_for(data)
    run = train(config, model)
    assert load_config(run / "config.yaml") == config
    steps = rows_of(run, "step")
    # 29 training examples, batches of 5: 6 a pass, the last of 4
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert [row["examples"] for row in steps] == [5, 5, 5, 5, 5, 4] * 2
    assert [row["step"] for row in rows_of(run, "validation")] == [4, 8, 12]
    final = load_adapter(run / "adapter_final.safetensors")
    assert final.record.global_step == 12
    assert final.binding is not None
    assert final.binding.layer is None  # layers 1 and 2 are mixed
    assert final.binding.chat == "bare"
    assert final.binding.question is None  # the sections have two
    best = min(rows_of(run, "validation"), key=lambda row: row["val_loss"])
    stored = load_adapter(run / "adapter_best.safetensors")
    assert stored.record.global_step == best["step"]
    assert stored.record.best_val_loss == pytest.approx(best["val_loss"])


def test_the_validation_loss_is_the_mean_over_held_out_labels(data, model):
    run = train(config_for(data, training__label_smoothing=0.2), model)
    dataset = load_dataset(data)
    val = dataset.examples("val")
    with torch.no_grad():
        losses = label_losses(
            model,
            SoftPrompt.for_tokenizer(model.tokenizer),
            load_adapter(run / "adapter_final.safetensors"),
            dataset.gather(val.section, val.row),
            val.labels,
        )
    assert rows_of(run, "validation")[-1]["val_loss"] == pytest.approx(
        float(losses.mean()), rel=1e-5
    )


def test_test_rows_change_nothing_about_a_run(data, model, tmp_path):
    plain = train(config_for(data), model)
    dataset = load_dataset(data)
    generator = torch.Generator().manual_seed(9)
    sections = []
    for section in dataset.sections:
        more = torch.randn(4, 32, generator=generator) * 100
        vectors = torch.cat([section.vectors, more])
        first = section.vectors.shape[0]
        items = [*section.items, *(Item(first + i, ["never seen"], "test") for i in range(4))]
        sections.append(Section(section.metadata, vectors, items))
    (tmp_path / "tested").mkdir()
    save_dataset(tmp_path / "tested/toy.json", sections)
    tested = train(config_for(tmp_path / "tested/toy.json"), model)
    for kind, number in (("step", "loss"), ("validation", "val_loss")):
        one, other = ([row[number] for row in rows_of(run, kind)] for run in (plain, tested))
        assert one == other
    a, b = (load_adapter(run / "adapter_final.safetensors") for run in (plain, tested))
    probe = torch.randn(3, 32, generator=generator)
    assert torch.equal(a.transform(probe), b.transform(probe))


def test_training_learns_what_can_be_learnt(data, model):
    run = train(config_for(data, training__num_epochs=12, training__learning_rate=0.05), model)
    losses = [row["loss"] for row in rows_of(run, "step")]
    assert sum(losses[-6:]) / 6 < sum(losses[:6]) / 6 - 0.2


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(data, model):
    finals = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        run = train(config_for(data, experiment_name=name, seed=seed), model)
        finals.append(load_adapter(run / "adapter_final.safetensors").bias.detach())
    assert torch.equal(finals[0], finals[1])
    assert not torch.equal(finals[0], finals[2])


def test_a_run_is_not_overwritten_unless_asked(data, model):
    config = config_for(data, training__max_steps=2)
    run = train(config, model)
    before = (run / "adapter_final.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already.*--overwrite"):
        train(config, model)
    assert (run / "adapter_final.safetensors").read_bytes() == before
    train(config, model, overwrite=True)
    assert [row["step"] for row in rows_of(run, "step")] == [1, 2]


def test_max_steps_ends_training_and_its_schedule(data, model):
    run = train(config_for(data, training__max_steps=5), model)
    rates = [row["learning_rates"]["bias"] for row in rows_of(run, "step")]
    # warm-up 1e-8, 0.005; then a cosine over the 3 steps left: cos 0, cos π/3, cos 2π/3
    assert rates == pytest.approx([1e-8, 0.00500000, 0.01, 0.0075, 0.0025], rel=1e-4)


def test_a_short_last_group_of_accumulated_batches_is_used(data, model):
    run = train(config_for(data, training__gradient_accumulation_steps=4), model)
    steps = rows_of(run, "step")
    assert [len(row["batch_losses"]) for row in steps] == [4, 2, 4, 2]
    assert [row["examples"] for row in steps] == [20, 9, 20, 9]


def test_separate_learning_rates_reach_their_parameters(data, model):
    config = config_for(
        data,
        projection={"type": "scalar_affine_plus_low_rank", "low_rank_rank": 2},
        training__scale_learning_rate=0.1,
        training__direction_learning_rate=0.2,
        training__bias_learning_rate=0.3,
        training__warmup_steps=0,
        training__max_steps=1,
    )
    (row,) = rows_of(train(config, model), "step")
    assert row["learning_rates"] == pytest.approx({"scale": 0.1, "direction": 0.2, "bias": 0.3})


def test_an_identity_baseline_is_validated_and_written(data, model):
    run = train(config_for(data, projection={"type": "identity"}), model)
    assert rows_of(run, "step") == []
    assert len(rows_of(run, "validation")) == 1
    assert load_adapter(run / "adapter_final.safetensors").kind == "identity"


def test_a_rank_beside_a_kind_without_one_is_let_be(data, model):
    projection = {"type": "scalar_affine", "low_rank_rank": 16}
    train(config_for(data, projection=projection, training__max_steps=1), model)


def test_mixtures_take_their_shares_each_epoch(data, model):
    ratios = [{"datasets": "a", "ratio": 2.0}, {"datasets": "b@l2", "ratio": 1.0}]
    config = config_for(data, data__train_dataset_ratios=ratios)
    run = train(config, model)
    # b@l2 has 5 training examples (0 to 3 and 5), so a gives 10 of its 16
    assert [row["examples"] for row in rows_of(run, "step")] == [5, 5, 5] * 2


def test_the_binding_states_what_the_mixture_takes(data, model):
    config = config_for(data, data__train_dataset_ratios=[{"datasets": "b@l2", "ratio": 1.0}])
    binding = load_adapter(train(config, model) / "adapter_final.safetensors").binding
    assert binding is not None
    assert (binding.layer, binding.question) == (2, "b {}")


def test_a_mixture_of_nothing_is_refused_with_the_nearest(data, model):
    config = config_for(data, data__train_dataset_ratios=[{"datasets": "bb@l2", "ratio": 1.0}])
    with pytest.raises(DataError, match='Did you mean "b@l2"'):
        train(config, model)


def test_a_loss_that_is_not_finite_stops_with_the_batch_named_and_nothing_lost(
    data, model, monkeypatch
):
    original = loop.backward

    def poisoned(setup, ranks, examples, stop):
        calls.append(1)
        if len(calls) < 4:
            return original(setup, ranks, examples, stop)
        kept = setup.adapter.bias.detach().clone()  # as if an earlier update had run away
        setup.adapter.bias.data.fill_(float("nan"))
        try:
            return original(setup, ranks, examples, stop)
        finally:
            setup.adapter.bias.data.copy_(kept)

    calls = []
    run = data.parent / "runs/run"
    monkeypatch.setattr(loop, "backward", poisoned)
    with pytest.raises(TrainingError, match=r"step 4: the loss is not finite .*failed_batch.json"):
        train(config_for(data, training__scheduler_type="constant"), model)
    failed = json.loads((run / "failed_batch.json").read_text())
    assert failed["step"] == 4
    assert {"dataset", "index", "label"} == set(failed["examples"][0])
    labels = load_dataset(data).examples("train").labels
    assert {example["label"] for example in failed["examples"]} <= set(labels)
    assert [row["step"] for row in rows_of(run, "step")] == [1, 2, 3]
    last = load_adapter(run / "adapter_last.safetensors")
    assert last.record.global_step == 3
    assert last.bias.isfinite().all()


def test_a_first_gradient_that_is_not_finite_is_blamed_on_the_quantised_model(data, model):
    def spoil(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient * float("nan"))

    handle = model.blocks[0].register_forward_hook(spoil)
    try:
        config = config_for(data, model={"name": "tiny", "load_in_4bit": True})
        with pytest.raises(TrainingError, match=r"step 1: the gradient .* model in 4 bits may not"):
            train(config, model)
    finally:
        handle.remove()


def test_a_model_that_passes_no_gradient_on_is_found_at_the_first_step(data, model):
    config = config_for(data, training__max_loss=1e-6)  # every token is clamped
    with pytest.raises(TrainingError, match="step 1: no gradient reaches the adapter"):
        train(config, model)


def test_a_resume_from_checkpoint_that_is_missing_leaves_no_folder(data, model):
    config = config_for(data, training__resume_from_checkpoint="x.pt")
    with pytest.raises(MissingFileError, match="x.pt"):
        train(config, model)
    assert not (data.parent / "runs").exists()


def test_singular_values_and_the_low_rank_share_are_written_down(data, model):
    config = config_for(
        data,
        projection={"type": "scalar_affine_plus_low_rank", "low_rank_rank": 2, "init_scale": 3.0},
        logging={"log_singular_values_every_n_steps": 4},
    )
    run = train(config, model)
    rows = rows_of(run, "singular_values")
    assert [row["step"] for row in rows] == [4, 8, 12]
    adapter = load_adapter(run / "adapter_final.safetensors")
    matrix = (adapter.U @ adapter.V.T).detach()
    values = torch.linalg.svdvals(matrix)[:2]
    assert rows[-1]["singular_values"] == pytest.approx(values.tolist(), rel=1e-3)
    share = float(matrix.norm()) / (adapter.scale() * 32**0.5)
    assert rows[-1]["low_rank_share"] == pytest.approx(share, rel=1e-3)
    assert rows[-1]["bias_norm"] == pytest.approx(adapter.bias_norm(), rel=1e-5)


def test_kinds_without_a_matrix_have_no_singular_values(data, model):
    run = train(config_for(data, logging={"log_singular_values_every_n_steps": 1}), model)
    assert rows_of(run, "singular_values") == []


def test_sample_labels_stand_beside_the_given_ones(data, model):
    logging = {"log_sample_generations": 3, "log_generations_every_n_steps": 6}
    run = train(config_for(data, logging=logging), model)
    rows = rows_of(run, "samples")
    assert [row["step"] for row in rows] == [6, 12]
    held_out = load_dataset(data).examples("val")
    assert len(rows[0]["samples"]) == 3
    for sample in rows[1]["samples"]:
        assert sample["label"] in held_out.labels
        assert '"' not in sample["written"]


def test_the_mixture_is_shown_each_epoch_when_asked(data, model):
    ratios = [{"datasets": "a", "ratio": 2.0}, {"datasets": "b@l2", "ratio": 1.0}]
    config = config_for(data, data__train_dataset_ratios=ratios, data__debug_dataset_mixing=True)
    rows = rows_of(train(config, model), "mixture")
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[0]["examples"] == {"a@l1": 10, "b@l1": 0, "b@l2": 5}


def test_gradient_checkpointing_changes_memory_and_not_the_numbers(data):
    finals = []
    for name, flag in (("plain", False), ("again", True)):
        model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
        config = config_for(
            data,
            experiment_name=name,
            model={"name": "tiny", "enable_gradient_checkpointing": flag},
        )
        run = train(config, model)
        finals.append([row["loss"] for row in rows_of(run, "step")])
    assert finals[0] == pytest.approx(finals[1], rel=1e-5)


def test_vectors_of_another_model_are_refused(data):
    other = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    dataset = load_dataset(data)
    narrow = torch.randn(20, 31)
    section = Section(dataset.sections[0].metadata, narrow, dataset.sections[0].items)
    save_dataset(data, [section], overwrite=True)
    with pytest.raises(DataError, match="width 31; the model tiny has d_model 32"):
        train(config_for(data), other)


def test_a_file_without_training_rows_is_refused(data, model):
    dataset = load_dataset(data)
    items = [Item(0, ["x"], "val")]
    save_dataset(
        data,
        [Section(dataset.sections[0].metadata, dataset.sections[0].vectors, items)],
        overwrite=True,
    )
    with pytest.raises(DataError, match='no vector has the split "train"'):
        train(config_for(data), model)


def test_labels_are_stripped_only_when_asked(data, model):
    dataset = load_dataset(data)
    vectors = dataset.sections[0].vectors
    losses = []
    for strip in (False, True):
        items = [Item(0, [" cat "], "train"), Item(1, [" cat "], "val")]
        save_dataset(
            data, [Section(dataset.sections[0].metadata, vectors.clone(), items)], overwrite=True
        )
        config = config_for(
            data,
            experiment_name=f"strip-{strip}",
            data__strip_labels=strip,
            projection={"type": "identity"},
        )
        losses.append(rows_of(train(config, model), "validation")[0]["val_loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_a_closed_form_start_is_written_down_and_the_same_for_the_same_seed(data, model):
    runs = []
    for name in ("one", "two"):
        config = config_for(data, experiment_name=name, projection__init="closed_form")
        runs.append(train(config, model))
    (event,) = rows_of(runs[0], "closed_form")
    assert event["step"] == 0
    assert event["vectors"] == 29
    assert set(event["sizes"]) == {"common", "identity"}
    one, two = (load_adapter(run / "adapter_final.safetensors") for run in runs)
    assert torch.equal(one.bias, two.bias)
    # steps start from it: the published start has a bias of zero and scale 3
    published = train(config_for(data, experiment_name="three"), model)
    assert rows_of(runs[0], "step")[0]["loss"] != rows_of(published, "step")[0]["loss"]


def test_labels_kept_together_go_through_the_model_with_one_prompt_a_vector(tmp_path, model):
    metadata = {
        "dataset_name": "many",
        "filename": "many.safetensors",
        "layer": 1,
        "source": "test",
        "vector_type": "random",
    }
    items = [Item(i, [f"{i} {'abcd'[j]}" for j in range(4)], "train") for i in range(6)]
    vectors = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "many.json"
    save_dataset(path, [Section(metadata, vectors, items)], overwrite=True)
    config = config_for(path, data__batch_size=8, data__keep_labels_together=True)
    seen = []
    handle = model.embedding.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    run = train(config, model)
    handle.remove()
    placeholder = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer).placeholder_id
    # two epochs of 24 labels go through the model as 6 vectors each; the other prompts with two
    # sites are the binding's fingerprint and the trial whether sharing is exact (2 + 1 rows)
    prompts = sum(int(((ids == placeholder).sum(1) == 2).sum()) for ids in seen)
    assert prompts == 2 * 6 + 1 + 3
    assert [row["examples"] for row in rows_of(run, "step")] == [8, 8, 8] * 2
