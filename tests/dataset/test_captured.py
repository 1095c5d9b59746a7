from __future__ import annotations

import torch
from safetensors.torch import save_file

from selfie_adapters.dataset import Section
from selfie_adapters.dataset.captured import Captured


def section(**metadata):
    return Section(metadata, torch.zeros(1, 2), [])


def test_sections_that_agree_state_it_and_others_do_not():
    alike = {"chat": "bare", "question": "{}?", "position": -1}
    assert Captured.by_sections([section(**alike)] * 2) == Captured("bare", "{}?", -1)
    other = section(chat="none", question="{}?")
    assert Captured.by_sections([section(**alike), other]) == Captured(None, "{}?", None)
    assert Captured.by_sections([section()]) == Captured()


def test_values_that_mean_nothing_are_not_taken():
    odd = section(chat="loud", question=3, position=True)
    assert Captured.by_sections([odd]) == Captured()


def test_a_mean_file_states_it_in_its_metadata(tmp_path):
    tensors = {"layer_0": torch.zeros(2)}
    file = tmp_path / "mean.safetensors"
    save_file(tensors, file, {"chat": "none", "question": "{}", "position": "-2"})
    assert Captured.by_mean_file(file) == Captured("none", "{}", -2)
    save_file(tensors, file)
    assert Captured.by_mean_file(file) == Captured()
    save_file(tensors, file, {"chat": "none", "position": "9" * 5000})
    assert Captured.by_mean_file(file) == Captured("none")


def test_only_what_both_state_can_differ():
    assert Captured("bare", "a{}").differences(Captured("none", None, 3)) == [
        "chat format 'bare', not 'none'"
    ]
    assert Captured().differences(Captured("none", "{}", 3)) == []
