"""Model cards of the shipped adapters and the documents state the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = ROOT / "src/selfie_adapters/adapters/shipped"
BLOCKS = (8, 12, 16, 20, 24, 28)
PLACES = {"name": "| adapter |", "last token": "| adapter (12 to 24: a specialist each) |"}


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def row(page: str, start: str) -> list[str]:
    """Cells of the first row of a table that begins with `start`, without stars."""
    line = next(line for line in page.splitlines() if line.startswith(start))
    return [cell.strip(" *") for cell in line[len(start) :].strip("|").split("|")]


def of_card(block: int, place: str) -> list[str]:
    """Exact, right or related, shown, …: "53% [46%, 60%]"."""
    return row((HOME / "demo.md").read_text(encoding="utf-8"), f"| {block} | {place} |")


def share(cell: str) -> str:
    return cell.partition("%")[0]


@pytest.mark.parametrize("place", PLACES)
def test_the_guide_states_the_shares_of_the_card(place):
    expected = [
        f"{share(exact)} / {share(related)}"
        for exact, related, *_ in (of_card(block, place) for block in BLOCKS)
    ]
    assert row(text("docs/reading.md"), PLACES[place]) == expected


def test_the_readme_states_the_shares_and_intervals_of_the_card():
    readme = text("README.md")
    found = row(readme, "| **the adapter that comes with the package** |")
    assert found == [of_card(block, "name")[0].replace("%", "") for block in BLOCKS[:4]]
    last = [share(of_card(block, "last token")[0]) for block in (12, 16, 20, 24)]
    assert row(readme, "| **the adapter, last token** |") == last


def test_the_page_of_claims_states_the_shares_of_the_card():
    names = [share(of_card(block, "name")[0]).strip() for block in BLOCKS[:4]]
    exact, _, _, lens, _ = of_card(24, "last token")
    claims = text("docs/reproduce.md")
    assert row(claims, "| adapter |") == names
    assert row(claims, "| logit lens |") == ["0", "0", "0", "0"]
    assert f"(adapter {share(exact)} %, lens {share(lens)} %)" in claims


def test_both_cards_state_the_same_share_of_the_set():
    other = (HOME / "demo-block24.md").read_text(encoding="utf-8")
    assert row(other, '| the set "demo" |') == of_card(24, "last token")[:2]
