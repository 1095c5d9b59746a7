from __future__ import annotations

import huggingface_hub.utils as hub
import pytest
from transformers.utils import logging

from selfie_adapters.model import load_model
from selfie_adapters.model.quiet import quiet_loading
from tiny_folders import save_family


@pytest.mark.parametrize("bars", [True, False])
def test_the_callers_choices_are_restored(bars):
    before = logging.get_verbosity(), hub.are_progress_bars_disabled()
    try:
        logging.set_verbosity_info()
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
        with quiet_loading():
            assert not logging.is_progress_bar_enabled()
            assert hub.are_progress_bars_disabled()
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled() is bars
        assert hub.are_progress_bars_disabled() is not bars
        (hub.disable_progress_bars if bars else hub.enable_progress_bars)()
        with quiet_loading():
            pass
        assert hub.are_progress_bars_disabled() is bars
    finally:
        logging.set_verbosity(before[0])
        logging.enable_progress_bar()
        (hub.disable_progress_bars if before[1] else hub.enable_progress_bars)()


def test_loading_prints_nothing(tmp_path, capfd):
    folder = save_family(tmp_path / "m")
    logging.enable_progress_bar()
    load_model(folder, dtype="float32", device_map="cpu")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
