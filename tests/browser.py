"""A headless Chromium for the tests of pages; without one they are skipped, with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(**options: Any) -> Iterator[Any]:
    """A page in a new window (`options`: those of Playwright's new_page).

    `page.asked` lists every address it asks for; an error of the page's own script fails the test.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="pip install 'selfie-adapters[browser]'"
    )
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium: apt-get install -y chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
        page.asked, errors = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        yield page
        browser.close()
        assert errors == getattr(page, "expected_errors", [])
