"""`python -m selfie_adapters`: the same as `selfie`."""

from selfie_adapters.cli import main

if __name__ == "__main__":
    main()
