"""A headless Chromium for the tests of pages; without one they are skipped, with the reason.

Accessibility is checked by axe-core, which no test fetches: `npm install axe-core`, and its
axe.min.js in the variable SELFIE_AXE. Without it those tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with the page as it is now: rule, and the first node."""
    file = os.environ.get("SELFIE_AXE")
    if not file:
        pytest.skip("no axe-core: npm install axe-core, SELFIE_AXE=…/axe-core/axe.min.js")
    page.evaluate(Path(file).read_text(encoding="utf-8"))  # a script element would break the policy
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found["violations"]]
