from __future__ import annotations

import pytest

from browser import chromium, violations
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.reading.answers import FurtherConcept
from selfie_adapters.reading.controls import RandomControl
from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell, Reading
from selfie_adapters.report.reading_page import write_reading_page

pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror="document.title=1">\u202e"&'
LAYERS, POSITIONS = (0, 4, 8), (1, 2, 3, 5)
LABELS = {(4, 2): "a barn owl", (8, 3): HOSTILE, (0, 1): "", (0, 5): "owls", (8, 5): "growl"}


@pytest.fixture
def address(tmp_path):
    texts = ["<|im_start|>", "The", " owl", "שלום", "<|im_end|>", "\n"]
    tokens = tuple(PromptToken(i, i, t, t.startswith("<|")) for i, t in enumerate(texts))
    plan = ReadingPlan("The owl <b>", "none", tokens, LAYERS, POSITIONS)
    cells = []
    for layer, position in plan.cells():
        label = LABELS.get((layer, position), f"at {layer} {position}")
        confidence = (layer + position) / 13
        withheld = "below threshold" if confidence < 0.25 else None
        repeats, lens = (layer, position) == (8, 2), "lens <b>" if layer == 8 else None
        numbers = (-2.0, 4, True, 1.25, confidence, withheld, repeats, lens)
        cells.append(Cell(layer, position, label, label + '"', *numbers))
    trust = Confidence({"gain": 1.0}, 0.0, 0.25)
    path = tmp_path / "reading.html"
    write_reading_page(path, Reading(plan, tuple(cells)), {"model": HOSTILE}, trust, (4, 8), "owl")
    return path.as_uri()


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def cell(page, layer, position):
    return page.locator(f'td[data-layer="{layer}"][data-position="{position}"]')


def test_the_grid_from_a_file(address):
    with chromium() as page:
        page.goto(address)
        assert page.asked == [address]
        rows = page.locator("table.cells tbody th").all_inner_texts()
        assert rows == ["8", "4", "0"]  # layers go up
        heads = page.locator("table.cells tfoot th").all_inner_texts()
        assert heads == ["layer", "<|im_start|>", "The", "·owl", "שלום", "<|im_end|>", "\\n"]
        assert page.locator("td.cell").count() == len(LAYERS) * len(POSITIONS)
        assert page.locator("td.gap").count() == len(LAYERS) * 2  # special tokens: shown, not read
        assert page.locator("[role=grid] [role=gridcell]").count() == 12
        assert cell(page, 8, 3).inner_text().startswith("<img src=x")
        assert page.locator("img").count() == 0
        assert page.title() != "1"
        assert cell(page, 0, 1).inner_text() == "·"


def test_colour_follows_the_confidence(address):
    with chromium() as page:
        page.goto(address)

        def luminance(layer, position):
            colour = f'getComputedStyle(document.querySelector(\'td[data-layer="{layer}"]'
            colour += f'[data-position="{position}"]\')).backgroundColor'
            # oklab(L a b): the first number is the lightness
            return float(page.evaluate(colour).split("(")[1].split()[0])

        shades = [luminance(*place) for place in ((0, 2), (4, 1), (4, 3), (8, 1), (8, 5))]
        assert shades == sorted(shades, reverse=True)
        assert len(set(shades)) == 5


def test_what_is_withheld_is_silent_until_it_is_asked_for(address):
    def places(page, kind):
        nodes = page.locator(f"td.{kind}").all()
        return {
            tuple(int(n.get_attribute(f"data-{k}")) for k in ("layer", "position")) for n in nodes
        }

    with chromium() as page:
        page.goto(address)
        silent = {(0, 1), (0, 2), (0, 3)}  # below 3.25 of 13
        assert places(page, "silent") == places(page, "doubted") == silent
        assert {cell(page, *place).inner_text() for place in silent} == {"·"}
        spoken = cell(page, 0, 2).get_attribute("aria-label")
        assert spoken == "layer 0, token 2 ·owl: withheld, below threshold, confidence 15 %"
        page.check("#show-withheld")
        assert places(page, "silent") == set()
        assert places(page, "doubted") == silent
        assert cell(page, 0, 2).inner_text() == "at 0 2"
        assert cell(page, 0, 1).inner_text() == "∅"
        page.uncheck("#show-withheld")
        assert places(page, "silent") == silent
        assert cell(page, 8, 2).inner_text().startswith("at 8 2 ↺")
        assert cell(page, 8, 1).get_attribute("data-lens") == "lens <b>"
        assert cell(page, 8, 1).get_attribute("aria-label").endswith(", logit lens lens <b>")


def test_hovering_shows_the_whole_label(address):
    with chromium() as page:
        page.goto(address)
        assert page.locator("#tip").is_hidden()
        cell(page, 4, 2).hover()
        assert (
            page.locator("#tip").inner_text() == "a barn owl\nlayer 4 · token 2 · confidence 46 %"
        )
        page.mouse.move(5, 5)
        assert page.locator("#tip").is_hidden()


def test_everything_can_be_done_by_keyboard(address):
    with chromium() as page:
        page.goto(address)
        for name in ("show-withheld", "lens-words", "compact", "find"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.id") == name
        page.keyboard.press("Tab")
        assert focused(page).startswith("layer 8, token 5 \\n: growl, confidence 100 %")
        for key, expected in (
            ("Home", "layer 8, token 1 The: at 8 1, confidence 69 %, logit lens lens <b>"),
            ("ArrowDown", "layer 4, token 1"),
            ("ArrowRight", "layer 4, token 2 ·owl: a barn owl, confidence 46 %"),
            ("End", "layer 4, token 5"),
            ("ArrowRight", "layer 4, token 5"),  # stays at the edge
            ("Home", "layer 4, token 1"),
            ("Control+End", "layer 0, token 5"),
            ("ArrowUp", "layer 4, token 5"),
            ("ArrowLeft", "layer 4, token 3"),  # past the token that is not read
            ("Control+Home", "layer 8, token 1"),
            ("PageDown", "layer 0, token 1 The: withheld, below threshold"),
        ):
            page.keyboard.press(key)
            assert focused(page).startswith(expected), key
        assert page.locator("td.cell[tabindex='0']").count() == 1
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert ring == "3px"
        page.locator("#tip").wait_for(state="visible")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        details = page.locator(".details")
        assert details.locator(".label").inner_text() == "a barn owl"
        facts = details.locator("dd").all_inner_texts()
        assert facts[:2] == ["46 %", "yes"]
        assert facts[2] == "1.25 nats per token over the zero vector"
        assert facts[4] == 'a barn owl"'
        through = details.locator("li").all_inner_texts()
        assert [line.split("\n")[0] for line in through] == ["8", "4", "0"]
        assert cell(page, 4, 2).get_attribute("aria-selected") == "true"
        page.keyboard.press("Escape")
        assert cell(page, 4, 2).get_attribute("aria-selected") is None
        assert "Choose a cell" in details.inner_text()


def test_it_opens_at_the_last_token_and_the_last_trained_layer(address):
    with chromium() as page:
        page.goto(address)
        assert cell(page, 8, 5).get_attribute("aria-selected") == "true"
        assert page.locator(".details .label").inner_text() == "growl"
        assert page.evaluate("document.activeElement === document.body")
        assert page.evaluate("scrollY") == 0
        assert page.locator("tbody th.trained").all_inner_texts() == ["8", "4"]


@pytest.fixture
def large(tmp_path):
    """58 tokens at 30 layers."""
    tokens = tuple(PromptToken(i, i, f" word{i}", special=False) for i in range(58))
    plan = ReadingPlan("many words", "none", tokens, tuple(range(30)), tuple(range(58)))
    cells = [
        Cell(*place, f"label {place[0]} {place[1]}", "x", -2.0, 4, True, place[0] / 10, None)
        for place in plan.cells()
    ]
    path = tmp_path / "large.html"
    control = RandomControl((0.2, 0.5, 1.0), 3)
    write_reading_page(path, Reading(plan, tuple(cells), control), {}, None, (12, 24))
    return path.as_uri()


def test_58_tokens_at_30_layers_are_readable_at_1280_pixels(large):
    with chromium() as page:
        page.goto(large)
        assert page.locator("#compact").is_checked()
        box = page.locator(".scroll")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert box.evaluate("node => node.scrollWidth <= node.clientWidth")
        assert box.bounding_box()["height"] < 800
        for layer, position in ((0, 0), (29, 57), (12, 30)):
            where = cell(page, layer, position).bounding_box()
            assert where["x"] > 0
            assert where["x"] + where["width"] <= 1280
            assert where["width"] >= 12
            assert where["height"] >= 12
        # the chosen token's labels are in full, at all layers
        column = [cell(page, layer, 57) for layer in range(30)]
        assert all(node.bounding_box()["width"] > 100 for node in column)
        assert cell(page, 24, 57).evaluate("node => getComputedStyle(node).fontSize") == "12px"
        cell(page, 3, 20).click()
        assert cell(page, 29, 20).bounding_box()["width"] > 100
        assert cell(page, 24, 57).bounding_box()["width"] < 40
        assert page.locator(".details .label").inner_text() == "label 3 20"
        page.uncheck("#compact")
        assert cell(page, 29, 20).bounding_box()["width"] > 100
        assert cell(page, 24, 57).bounding_box()["width"] > 100


def test_color_begins_at_the_random_directions(large):
    with chromium() as page:
        page.goto(large)
        legend = page.locator(".legend")
        assert legend.inner_text().split("\n")[0].startswith("color: gain")
        assert "1" in legend.inner_text()
        assert "4 nats per token or more" in legend.inner_text()
        shares = [
            cell(page, layer, 0).evaluate("node => node.style.getPropertyValue('--c')")
            for layer in (5, 10, 25, 29)
        ]
        assert shares == ["0.000", "0.000", "0.500", "0.633"]  # (gain - 1) / 3
        assert "doubted" in cell(page, 10, 0).get_attribute("class")
        assert "doubted" not in cell(page, 11, 0).get_attribute("class")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(address, large, scheme):
    with chromium(color_scheme=scheme) as page:
        for one in (address, large):
            page.goto(one)
            assert violations(page) == []


def test_the_lens_is_shown_on_demand(address):
    with chromium() as page:
        page.goto(address)
        shown = "node => getComputedStyle(node, '::after').display"
        assert cell(page, 8, 1).evaluate(shown) == "block"
        page.uncheck("#lens-words")
        assert cell(page, 8, 1).evaluate(shown) == "none"


def test_the_details_state_what_a_label_explains_and_the_concepts_after_it(tmp_path):
    tokens = (PromptToken(0, 7, "owl", False),)
    further = (
        FurtherConcept("night <b>", 0.125),
        FurtherConcept("tin", 0.01, "below threshold"),
    )
    numbers = ("owl", 'owl"', -2.0, 4, True, 1.25, None, None, False, None)
    read = Cell(4, 0, *numbers, explained=0.74, further=further)
    plain = Cell(8, 0, *numbers)
    plan = ReadingPlan("owl", "none", tokens, (4, 8), (0,))
    write_reading_page(tmp_path / "r.html", Reading(plan, (read, plain)), {})
    with chromium() as page:
        page.goto((tmp_path / "r.html").as_uri())
        cell(page, 4, 0).click()
        details = page.locator(".details").inner_text()
        assert "74 % of the state" in details
        assert "night <b> (13 %)" in details
        assert "tin" not in details  # withheld
        cell(page, 8, 0).click()
        details = page.locator(".details").inner_text()
        assert "explained" not in details
        assert "further" not in details


def test_a_click_opens_the_details_with_nothing_run(address):
    with chromium() as page:
        page.goto(address)
        cell(page, 8, 3).click()
        assert "<img src=x" in page.locator(".details .label").inner_text()
        assert "\\u202e" in page.locator(".details .label").inner_text()
        assert page.locator("img").count() == 0


def test_the_searched_word_is_marked(address):
    with chromium() as page:
        page.goto(address)
        found = page.locator("td.found")
        assert [node.inner_text() for node in found.all()] == ["a barn owl", "owls"]
        assert page.locator("output").inner_text() == "2 cells"
        page.fill("#find", "AT")
        assert found.count() == 5
        page.check("#show-withheld")  # two more are withheld
        assert found.count() == 7
        assert page.locator("output").inner_text() == "7 cells"
        page.fill("#find", "")
        assert found.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(address, scheme):
    def numbers(page, what):
        text = page.evaluate(f"getComputedStyle(document.body).{what}")
        return sum(int(n) for n in text[4:-1].split(","))

    with chromium(color_scheme=scheme) as page:
        page.goto(address)
        paper, ink = numbers(page, "backgroundColor"), numbers(page, "color")
        assert (paper > 600 and ink < 150) if scheme == "light" else (paper < 150 and ink > 600)


def test_a_narrow_window_scrolls_the_grid_and_not_the_page(address):
    with chromium(viewport={"width": 420, "height": 800}) as page:
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.evaluate("document.querySelector('.scroll').scrollWidth <= 420")  # compact
        page.uncheck("#compact")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.evaluate("document.querySelector('.scroll').scrollWidth > 420")
