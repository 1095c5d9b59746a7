from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from selfie_adapters.config import TrainConfig, dump_config, load_config
from selfie_adapters.errors import ConfigError, MissingFileError, SelfieError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "training/configs").glob("*.yaml"))

# The published keys and this project's own, section by section; "" holds those at the top.
DOCUMENTED = {
    "": "experiment_name seed",
    "model": "name device_map dtype enable_gradient_checkpointing load_in_8bit load_in_4bit",
    "data": "labels_file batch_size shuffle num_workers strip_labels eos_token "
    "train_dataset_ratios val_dataset_ratios resample_each_epoch debug_dataset_mixing",
    "projection": "type normalize_input init_scale low_rank_rank low_rank_init_factor",
    "soft_prompt": "template reserved_token",
    "training": "learning_rate scale_learning_rate direction_learning_rate bias_learning_rate "
    "optimizer_type weight_decay momentum num_epochs max_steps gradient_accumulation_steps "
    "gradient_clip_norm label_smoothing max_loss scheduler_type warmup_steps "
    "validation_every_n_steps val_fraction checkpoint_every_n_steps keep_last checkpoint_dir "
    "save_final_checkpoint resume_from_checkpoint",
    "logging": "use_mlflow mlflow_tracking_uri mlflow_experiment_name use_wandb wandb_project "
    "wandb_entity wandb_run_name use_trackio trackio_project log_every_n_steps "
    "log_sample_generations log_generations_every_n_steps log_singular_values_every_n_steps",
}
ADDED = {
    "data": "keep_labels_together",
    "projection": "init",
}  # keys that the published trainer does not have
DEFAULTS = {
    "data.batch_size": 80,
    "projection.init_scale": 30,
    "projection.low_rank_init_factor": 0.01,
    "training.learning_rate": 0.01,
    "training.weight_decay": 0.01,
    "training.momentum": 0.9,
    "training.num_epochs": 2,
    "training.gradient_accumulation_steps": 1,
    "training.gradient_clip_norm": 0.5,
    "training.label_smoothing": 0,
    "training.max_loss": 100,
    "training.warmup_steps": 10,
    "training.validation_every_n_steps": 50,
    "training.val_fraction": 1.0,
    "training.checkpoint_every_n_steps": 100,
}


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


MINIMAL = "model: {name: demo}\ndata: {labels_file: x.json}\n"


def keys_of(section: type[BaseModel]) -> set[str]:
    kinds = {name: field.annotation for name, field in section.model_fields.items()}
    return {n for n, k in kinds.items() if not (isinstance(k, type) and issubclass(k, BaseModel))}


def test_the_keys_are_the_published_ones_and_few_of_our_own():
    assert keys_of(TrainConfig) == set(DOCUMENTED[""].split())
    for name, keys in DOCUMENTED.items():
        if name:
            section = TrainConfig.model_fields[name].annotation
            own = set(ADDED.get(name, "").split())
            assert keys_of(section) == set(keys.split()) | own, name


def test_the_defaults_are_the_published_ones(write):
    values = load_config(write(MINIMAL)).model_dump()
    for key, expected in DEFAULTS.items():
        section, name = key.split(".")
        assert values[section][name] == expected, key


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_named_after_their_file(file):
    assert load_config(file).experiment_name == file.stem


def test_one_shipped_configuration_writes_out_every_key_with_a_comment():
    file = ROOT / "training/configs/scalar_affine_8b_goodfire.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert set(values) == set(DOCUMENTED[""].split()) | set(DOCUMENTED) - {""}
    for name, keys in DOCUMENTED.items():
        if name:
            assert set(values[name]) == set(keys.split()) | set(ADDED.get(name, "").split()), name
    keys = re.findall(r"^  \w+: .*$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert [line for line in keys if " # " not in line] == []


def test_the_shipped_configurations_are_those_promised():
    assert {file.stem for file in CONFIGS} == {
        "smollm2_reading",
        "wikipedia_topics_8b",
        "llamascope_layers_8b",
        "gemma_2_9b_gemma_scope",
        "qwen_2_5_7b",
        "scalar_affine_8b_goodfire",
        "scalar_plus_low_rank_8b",
        "identity_baseline",
        "smollm2_topics",
        "smollm2_sae",
    }


def test_every_key_has_a_description():
    def undescribed(section: type[BaseModel]):
        for name, field in section.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from undescribed(kind)
            elif not field.description:
                yield name

    assert list(undescribed(TrainConfig)) == []


def test_the_written_configuration_reads_back_equal(write):
    config = load_config(
        write(MINIMAL),
        [
            "training.learning_rate=1e-3",
            "data.train_dataset_ratios=[{datasets: [a, b@l1], ratio: 2}]",
            'soft_prompt.template=what is "X"?\n',
        ],
    )
    assert load_config(write(dump_config(config), "again.yaml")) == config


def test_overrides_replace_what_the_file_says(write):
    path = write(MINIMAL + "training: {max_steps: 5, learning_rate: 0.5}\nseed: 1\n")
    config = load_config(path, ["training.max_steps=null", "seed=7", "projection.init_scale=2"])
    assert (config.training.max_steps, config.training.learning_rate) == (None, 0.5)
    assert (config.seed, config.projection.init_scale) == (7, 2.0)


def test_numbers_without_a_point_before_the_exponent_are_numbers(write):
    # YAML 1.1 reads 1e-2 as text; people mean the number
    assert load_config(write(MINIMAL), ["training.learning_rate=1e-2"]).training.learning_rate == (
        0.01
    )


def test_a_nameless_run_is_called_after_its_file(write):
    assert load_config(write(MINIMAL, "first_try.yaml")).experiment_name == "first_try"


@pytest.mark.parametrize(("written", "count"), [("false", 0), ("true", 5), ("0", 0), ("3", 3)])
def test_sample_generations_are_a_flag_or_a_count(write, written, count):
    text = MINIMAL + f"logging: {{log_sample_generations: {written}}}\n"
    assert load_config(write(text)).logging.log_sample_generations == count


def test_a_null_name_is_no_name(write):
    path = write(MINIMAL + "experiment_name: null\n", "named_by_file.yaml")
    assert load_config(path).experiment_name == "named_by_file"


def test_the_configuration_inside_a_published_file_is_valid(golden_dir, tmp_path):
    """What the published trainer wrote into its files, each key as it wrote it."""
    import torch

    for file in (golden_dir / "adapters").glob("*.pt"):
        config = torch.load(file, weights_only=True)["config"]
        path = tmp_path / f"{file.stem}.yaml"
        path.write_text(yaml.safe_dump(config))
        loaded = load_config(path)
        assert loaded.training.model_dump()["warmup_steps"] == config["training"]["warmup_steps"]
        assert loaded.logging.wandb_project == config["logging"]["wandb_project"]


def test_two_quantisations_are_refused(write):
    text = "model: {name: x, load_in_8bit: true, load_in_4bit: true}\ndata: {labels_file: x}\n"
    with pytest.raises(ConfigError, match="exclude each other"):
        load_config(write(text))


def test_an_empty_section_means_its_defaults(write):
    assert load_config(write(MINIMAL + "training:\nlogging:\n")).training.num_epochs == 2


def test_data_beside_the_configuration_is_found_from_anywhere(write, tmp_path, monkeypatch):
    path = write("model: {name: demo}\ndata: {labels_file: sub/x.json}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x.json").touch()
    monkeypatch.chdir("/")
    assert load_config(path).data.labels_file == str(tmp_path / "sub/x.json")


def test_data_in_the_current_folder_comes_first(write, tmp_path, monkeypatch):
    path = write(MINIMAL)
    (tmp_path / "x.json").touch()
    here = tmp_path / "here"
    here.mkdir()
    (here / "x.json").touch()
    monkeypatch.chdir(here)
    assert load_config(path).data.labels_file == "x.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "trainin: {max_steps: 3}", 'trainin: unknown key. Did you mean "training"?'),
        (MINIMAL + "training: {warmup: 3}", "training.warmup: unknown key"),
        (MINIMAL + "training: {max_step: 3}", 'Did you mean "max_steps"?'),
        ("model: {name: demo}", "data: missing"),
        ("model: {}\ndata: {labels_file: x}", "model.name: missing"),
        (MINIMAL + "projection: {type: scalar}", "projection.type: .*scalar_affine.*'scalar'"),
        (MINIMAL + "projection: {type: low_rank_only}", "needs low_rank_rank"),
        (MINIMAL + "projection: {init_scale: .nan}", "projection.init_scale: .*found nan"),
        (MINIMAL + "projection: {init_scale: -1}", "projection.init_scale: .*greater than 0"),
        (MINIMAL + "training: {num_epochs: 0}", "training.num_epochs: .*greater than or equal"),
        (MINIMAL + "training: {val_fraction: 2}", "training.val_fraction"),
        (MINIMAL + "training: {label_smoothing: 1}", "training.label_smoothing"),
        (MINIMAL + "data: {labels_file: y}", "line 3: the key data is written twice"),
        (MINIMAL + "experiment_name: a/b", "without slashes"),
        (MINIMAL + "experiment_name: ..", "without slashes"),
        (
            "model: {name: demo}\ndata: {labels_file: x, train_dataset_ratios: "
            "[{dataset: a, ratio: 1}]}",
            'dataset: unknown key. Did you mean "datasets"?',
        ),
        ("", "found nothing"),
        ("- a\n- b\n", "found list"),
        ("model: [unclosed", "line 2: not valid YAML|line 1: not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text, message, write):
    path = write(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_every_problem_is_listed_at_once(write):
    path = write("model: {nam: demo}\ndata: {labels_file: x}\ntraining: {momentum: 3}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    problems = str(raised.value).splitlines()[1:]
    assert [line.split(":")[0].strip("- ") for line in problems] == [
        "model.name",
        "model.nam",
        "training.momentum",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_steps", "key=value is expected"),
        ("=3", "key=value is expected"),
        ("training.max_stesp=3", 'Did you mean "training.max_steps"?'),
        ("training=3", "unknown key training"),
        ("seed=[", "not valid YAML"),
        ("seed=abc", "seed: .*integer.*'abc'"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("seed=" + "9" * 90, "seed: .*less than 4294967296"),
        ("seed=" + "9" * 5000, "--set seed=9.* a number of 5,000 digits"),
        ("data.strip_labels=!!timestamp x", "the tag !!timestamp is not read"),
        ("soft_prompt.reserved_token=!!bool x", "'x' is neither true nor false"),
        ("training.resume_from_checkpoint=!!map [a]", "the tag !!map"),
        ("training.validation_every_n_steps=2001-99-99", "integer.*'2001-99-99'"),
        ("training.learning_rate=.inf", "learning_rate: .*finite number, found inf"),
        ("training.num_epochs=1e30", "num_epochs"),
        ("data=\ud800", "unknown key data"),
        ("data.labels_file=\0", "--set data.labels_file=.*not valid YAML"),
        ("[seed]=1", r"unknown key \[seed\]"),
        ("<<=1", "unknown key <<"),
        ("x" * 100_000 + "=1", "unknown key xxx"),
        ("x" * 100_000, "key=value is expected"),
        ("experiment_name=" + "x" * 300, "at most 200 bytes"),
        ('experiment_name="\\e[2J"', "no control characters"),
        ("data.train_dataset_ratios=" + "[1, " * 2000, "nested deeper than 40"),
    ],
)
def test_bad_overrides(override, message, write):
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(write(MINIMAL), [override])
    assert len(str(raised.value)) < 1000


def test_a_path_longer_than_a_path_can_be_is_left_to_whoever_opens_it(write):
    long = "x" * 5000
    assert load_config(write(MINIMAL), [f"data.labels_file={long}"]).data.labels_file == long


def test_an_override_does_not_hide_a_section_that_is_none(write):
    with pytest.raises(ConfigError, match="training: a mapping.*found 3"):
        load_config(write(MINIMAL + "training: 3"), ["training.max_steps=1"])


def test_a_wrong_value_of_any_size_is_named_in_one_short_line(write):
    for text in (
        "[" + "x, " * 50_000 + "]",
        '"' + "x" * 500_000 + '"',
        "{a: " * 30 + "1" + "}" * 30,
    ):
        with pytest.raises(ConfigError, match="^.*:\n  - seed: .*integer.*, found [^x]*") as raised:
            load_config(write(MINIMAL + f"seed: {text}\n"))
        assert len(str(raised.value)) < 600
    many = "".join(f"unknown_{i}: 1\n" for i in range(1000))
    with pytest.raises(ConfigError, match=r"and 980 more\.$") as raised:
        load_config(write(MINIMAL + many))
    assert len(str(raised.value).splitlines()) == 22


def test_aliases_that_multiply_are_refused(write):
    text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
    with pytest.raises(ConfigError, match="more than 100,000 values, counting those of aliases"):
        load_config(write(text))


def test_an_enormous_file_is_not_read(tmp_path):
    with (tmp_path / "x.yaml").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes"):
        load_config(tmp_path / "x.yaml")


def test_no_float_of_any_section_may_be_infinite_or_no_number():
    def sections(kind):
        for one in kind.__subclasses__():
            yield one
            yield from sections(one)

    from selfie_adapters.config.evaluation import settings_of_protocols
    from selfie_adapters.config.settings import Settings

    assert settings_of_protocols()
    floats = 0
    for section in sections(Settings):
        for name, field in section.model_fields.items():
            if "float" in str(field.annotation) + str(field.metadata):
                for value in (float("nan"), float("inf"), [float("nan")]):
                    with pytest.raises(ValidationError) as raised:
                        section.model_validate({name: value})
                    assert name in {str(part) for e in raised.value.errors() for part in e["loc"]}
                floats += 1
    assert floats > 20


def test_a_missing_file_offers_one_like_it(write, tmp_path):
    write(MINIMAL, "smollm2.yaml")
    with pytest.raises(MissingFileError, match="Nearby: smollm2.yaml"):
        load_config(tmp_path / "smollm.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"mod\xe9l: x")
    with pytest.raises(SelfieError, match="not valid YAML"):
        load_config(tmp_path / "x.yaml")


def test_a_configuration_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        load_config(write(MINIMAL)).seed = 3
