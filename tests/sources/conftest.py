from __future__ import annotations

import pytest

from export_bucket import proxied


@pytest.fixture
def proxy(export_server, tmp_path, monkeypatch):
    """A proxy before the server, an empty cache, and waits that are short."""
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SELFIE_LABELS_URL", raising=False)
    monkeypatch.setattr("selfie_adapters.http.FIRST_WAIT", 0.001)
    with proxied(export_server) as proxy:
        yield proxy
