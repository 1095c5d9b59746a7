"""The documented way to train: `python training/train.py --config training/configs/….yaml`.

The same as `selfie train`, with the same options.
"""

from __future__ import annotations

import sys

from selfie_adapters.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
