from __future__ import annotations

import json
import os
import signal

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches a hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tiny import GOLDEN

# nohup and shells that run tests in the background let them ignore signals, and every child would
# inherit that; a handler, even an empty one, is not inherited.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


@pytest.fixture(scope="session")
def golden():
    """The published code's numbers on the golden model."""
    return json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden_dir():
    return GOLDEN


@pytest.fixture(scope="module")
def model(golden_dir):
    """The golden model, for each module its own, in float32."""
    from selfie_adapters.model import load_model

    return load_model(golden_dir / "model", "float32")


@pytest.fixture(scope="session")
def export_server():
    """An S3 server on loopback for exports of labels; `fill` says what it holds."""
    from export_bucket import ExportServer

    server = ExportServer()
    yield server
    server.stop()
