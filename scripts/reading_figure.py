"""A reading as one picture: tokens down, blocks across, the logit lens's word next to each label.

    selfie read "…" --layers 8,12,16,20 --lens --out reading
    python scripts/reading_figure.py reading docs/images/reading.svg

The SVG needs no font or file from elsewhere. Silent cells are a dot.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from selfie_adapters.files import read_json, write_text
from selfie_adapters.output import SILENT, visible

_ROW, _TOKEN, _BLOCK, _TOP = 25, 104, 212, 62  # pixels
_LENS = 122  # from the beginning of a block's column to the lens's word
_SHOWN = {"label": 15, "lens": 11, "token": 11}  # characters
_STYLE = (
    "text{font:14px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1c2126}"
    ".label{font-weight:700;fill:#1f5a9e}.lens{font-style:italic;font-size:12.5px;fill:#5a6570}"
    ".head{font-weight:700;fill:#444c55}.silent{fill:#5a6570}"
)


def picture(reading: dict[str, Any]) -> str:
    """The SVG of what reading.json holds."""
    layers, positions = reading["settings"]["layers"], reading["settings"]["positions"]
    cells = {(cell["layer"], cell["position"]): cell for cell in reading["cells"]}
    tokens = {token["position"]: token["text"] for token in reading["tokens"]}
    width = _TOKEN + _BLOCK * len(layers) + 8
    height = _TOP + _ROW * len(positions)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(visible(reading['settings']['prompt']))}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fcfcfb"/>',
        _text(10, 48, "token", "head"),
    ]
    for number, layer in enumerate(layers):
        left = _TOKEN + _BLOCK * number
        lines.append(_text(left, 22, f"after block {layer}", "head"))
        lines.append(_text(left, 48, "adapter", "label"))
        lines.append(_text(left + _LENS, 48, "logit lens", "lens"))
    for row, position in enumerate(positions):
        y = _TOP + _ROW * row
        lines.append(f'<path d="M0 {y}H{width}" stroke="#dfe2e4"/>')
        lines.append(_text(10, y + 17, _cut(tokens[position].strip() or "␣", "token"), "token"))
        for number, layer in enumerate(layers):
            cell, left = cells[layer, position], _TOKEN + _BLOCK * number
            silent = cell["withheld"] is not None
            shown = SILENT if silent else _cut(cell["label"], "label")
            lines.append(_text(left, y + 17, shown, "silent" if silent else "label"))
            if cell["lens"] is not None:
                lines.append(_text(left + _LENS, y + 17, _cut(cell["lens"], "lens"), "lens"))
    return "\n".join([*lines, "</svg>", ""])


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'


def _cut(text: str, kind: str) -> str:
    text, most = visible(text), _SHOWN[kind]
    return text if len(text) <= most else text[: most - 1] + "…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reading", type=Path, help="folder that selfie read --out wrote")
    parser.add_argument("picture", type=Path, help="SVG file to write")
    args = parser.parse_args()
    write_text(args.picture, picture(read_json(args.reading / "reading.json")))
    print(args.picture)


if __name__ == "__main__":
    main()
