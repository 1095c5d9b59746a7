"""The documented way to prepare SAE data, for example:

    python data_prep/prepare_sae_training_data.py --release llama_scope_lxr_8x --sae-id l19r_8x \
        --output-dir data --output-name llamascope_l19r

The same as `selfie prepare sae`, with the same options.
"""

from __future__ import annotations

import sys

from selfie_adapters.cli import main

if __name__ == "__main__":
    main(["prepare", "sae", *sys.argv[1:]])
