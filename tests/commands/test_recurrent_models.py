"""The whole way through the command line on models without a repeatable cache."""

from __future__ import annotations

import json

import pytest

from selfie_adapters.cli import main
from selfie_adapters.files.json_lines import read_jsonl, write_jsonl
from tiny import golden_tokenizer, tiny_network


@pytest.mark.parametrize("family", ["lfm2", "mamba"])
def test_topics_train_label_and_read(family, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_network(family).save_pretrained("model")
    golden_tokenizer().save_pretrained("model")
    names = ("owl", "sea", "night bird", "tower", "salt", "rain", "iron", "moss")
    write_jsonl(tmp_path / "topics.jsonl", [{"name": name} for name in names])
    (tmp_path / "train.yaml").write_text(
        """
        experiment_name: r
        model: {name: ./model, dtype: float32}
        data: {labels_file: data.json, batch_size: 4}
        projection: {type: scalar_affine, init_scale: 2}
        training: {max_steps: 3, warmup_steps: 1, validation_every_n_steps: 2, checkpoint_dir: runs}
        """,
        encoding="utf-8",
    )
    shared = "--model ./model --dtype float32"
    adapter = "--adapter runs/r/adapter_last.safetensors"
    for command in (
        f"prepare topics topics.jsonl {shared} --layers 1 --out data.json",
        "train --config train.yaml",
        f"label data.json {shared} {adapter} --out labels --max-new-tokens 6",
        f"read owl {shared} {adapter} --mean data_mean.safetensors --layers 1 --out reading",
    ):
        with pytest.raises(SystemExit) as ended:
            main(command.split())
        assert not ended.value.code, (command, capsys.readouterr())
    rows = read_jsonl(tmp_path / "labels" / "labels-00000.jsonl")
    assert len(rows) == 8
    assert all(row["log_prob"] < 0 for row in rows)
    reading = json.loads((tmp_path / "reading" / "reading.json").read_text("utf-8"))
    assert reading["cells"]
    assert {cell["layer"] for cell in reading["cells"]} == {1}
