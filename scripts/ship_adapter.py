"""Remake an adapter that comes with the package, with means, calibration and model card.

    python scripts/ship_adapter.py --work shipping
    python scripts/ship_adapter.py --work shipping --adapter demo-block24

Four steps, each resumed where it stopped: capture and train (for the set "demo" `selfie demo
--train` does the same), calibrate on the val nouns, measure on the test nouns, write
src/selfie_adapters/adapters/shipped. On one core with bfloat16 units "demo" takes three hours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from ship_block24 import NAME, ship_block24
from ship_demo import ship_demo
from shipping import HOME

from selfie_adapters.adapters.locating import DEMO

SHIPPED = {DEMO: ship_demo, NAME: ship_block24}


def main() -> None:
    parser = argparse.ArgumentParser(description="Remake a shipped adapter.")
    parser.add_argument("--work", type=Path, default=Path("shipping"))
    parser.add_argument("--adapter", choices=list(SHIPPED), default=DEMO)
    arguments = parser.parse_args()
    console = Console()
    SHIPPED[arguments.adapter](arguments.work, console)
    console.print(f"shipped: {HOME}")


if __name__ == "__main__":
    main()
