from __future__ import annotations

import pytest

from export_bucket import ExportServer, proxied


@pytest.fixture(scope="session")
def server():
    server = ExportServer()
    yield server
    server.stop()


@pytest.fixture
def proxy(server, tmp_path, monkeypatch):
    """A proxy before the server, an empty cache, and waits that are short."""
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SELFIE_LABELS_URL", raising=False)
    monkeypatch.setattr("selfie_adapters.sources.retrying.FIRST_WAIT", 0.001)
    with proxied(server) as proxy:
        yield proxy
