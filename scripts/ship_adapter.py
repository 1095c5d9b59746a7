"""Remake the set of adapters that comes with the package, with means, calibration and model card.

    python scripts/ship_adapter.py --work shipping

Four steps, each resumed where it stopped: capture and train (`selfie demo --train` does the same),
calibrate on the val nouns, measure on the test nouns, write src/selfie_adapters/adapters/shipped.
Three hours on one core with bfloat16 units.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from ship_demo import ship_demo
from shipping import HOME


def main() -> None:
    parser = argparse.ArgumentParser(description="Remake the shipped adapter.")
    parser.add_argument("--work", type=Path, default=Path("shipping"))
    console = Console()
    ship_demo(parser.parse_args().work, console)
    console.print(f"shipped: {HOME}")


if __name__ == "__main__":
    main()
