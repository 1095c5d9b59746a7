from __future__ import annotations

import pytest

from browser import chromium, violations
from demo_results import results
from selfie_adapters.commands.demo_report import write_results

pytestmark = pytest.mark.slow


@pytest.fixture
def address(tmp_path):
    return write_results(tmp_path, results(tmp_path)).as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(address, width, scheme):
    with chromium(viewport={"width": width, "height": 844}, color_scheme=scheme) as page:
        page.goto(address)
        assert page.asked == [address]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.title() != "x"
        assert violations(page) == []
        # the reading is in the first window
        assert page.locator("table.reading tbody tr").first.bounding_box()["y"] < 844


def test_conditions_are_stacked_on_a_phone(address):
    with chromium(viewport={"width": 390, "height": 844}) as page:
        page.goto(address)
        cells = page.locator("tr.own td")
        tops = [cell.bounding_box()["y"] for cell in cells.all()]
        assert tops == sorted(set(tops))
        assert page.locator("table.cards thead").is_hidden()
