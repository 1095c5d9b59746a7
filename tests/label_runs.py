"""Rows of labelling runs that hold everything that could break a format."""

from __future__ import annotations

NASTY = [
    'a "quoted" word, and a comma',
    "two\nlines\r\nand a\ttab",
    "nul \x00 bell \x07 escape \x1b[31m",
    "<script>alert('x')</script> & more",
    "عربي, emoji 🦉, line separator \u2028 and replacement \ufffd",
    "=SUM(A1:A9)",
]


def row(index, label, **more):
    first = {"index": index, "label": label, "raw": label + '"', "scale": 1.0}
    first["sample"] = more.get("rank", 0)
    numbers = {
        "seed": 2**62 + more.get("rank", 0),
        "log_prob": -1.5,
        "zero_log_prob": -3.0,
        "gain": 0.75,
        "tokens": 2,
    }
    return {**first, **numbers, "ended": True, **more}


def default_rows():
    rows = []
    for index, label in enumerate(NASTY):
        rows.append(row(index, "the second best", rank=1, confidence=0.2, concept=False))
        rows.append(row(index, label, rank=0, confidence=0.9, concept=True))
    rows.append(row(6, "not believed", rank=0, confidence=0.1, concept=False))
    rows.append(row(6, "even less", rank=1, confidence=0.1, concept=False))
    rows.append({"index": 7, "error": "the vector holds NaN or infinity"})
    return rows
