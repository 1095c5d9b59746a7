"""`python -m selfie_adapters` is `selfie`."""

from __future__ import annotations

from selfie_adapters.cli import main

if __name__ == "__main__":
    main()
