"""Pictures of the pages for docs/images: report.png, reading.png and serve.png.

    python scripts/page_pictures.py RUN… --out docs/images

RUN: folders for the report's picture (of selfie label, train and eval). The reading and the app use
the demo model. Requires the extras report, serve and browser, and chromium
(apt-get install chromium).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

PROMPT = "The capital of France is Paris, but the Eiffel Tower was built by an engineer."
WIDTH = 1280
_LARGEST = 300_000  # bytes of a picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--keep", type=Path, help="folder for all widths and schemes as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, browser() as chromium:
        selfie("report", *map(str, given.runs), "--out", f"{work}/report.html")
        selfie("read", PROMPT, "--lens", "--out", f"{work}/reading")
        report = Path(work, "report.html").as_uri()
        reading = Path(work, "reading/reading.html").as_uri()
        take(chromium, given, "report", report, ready_report, 900)
        take(chromium, given, "reading", reading, lambda page: page.locator("td.cell").first, 720)
        with app() as address:
            take(chromium, given, "serve", address, read_in_app, 760)


def take(
    chromium: Any, given: Any, name: str, address: str, ready: Callable[[Any], Any], height: int
) -> None:
    """Write `name`.png, and with --keep every width and scheme; the light one of 1,280 pixels is
    the picture."""
    kept = [(width, scheme) for width in (390, WIDTH, 1920) for scheme in ("light", "dark")]
    for width, scheme in kept if given.keep else [(WIDTH, "light")]:
        page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(address)
        ready(page).wait_for(timeout=600_000)
        if (sideways := page.evaluate("document.documentElement.scrollWidth")) > width:
            sys.exit(f"{name} at {width} pixels is {sideways} wide")
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=given.keep / f"{name}-{width}-{scheme}.png")
        if (width, scheme) == (WIDTH, "light"):
            file = given.out / f"{name}.png"
            page.screenshot(path=file)
            print(f"{file}: {file.stat().st_size:,} bytes")
            if file.stat().st_size > _LARGEST:
                sys.exit(f"{file} is larger than {_LARGEST:,} bytes")
        page.close()


def ready_report(page: Any) -> Any:
    return page.locator(".labels.ready, figure").first


def read_in_app(page: Any) -> Any:
    return page.locator("#status", has_text="cells read.")


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def app():
    """`selfie serve` with the demo's adapter, and the address that reads `PROMPT`."""
    command = [sys.executable, "-m", "selfie_adapters", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split(": ")[-1].strip()
        yield f"{address}#prompt={quote(PROMPT)}&layers=8:29:4&lens=1"
    finally:
        server.terminate()
        server.wait(60)


def selfie(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "selfie_adapters", *words], check=True)


if __name__ == "__main__":
    main()
