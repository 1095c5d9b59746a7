"""`python -m selfie_adapters` is `selfie`; the installed command starts here too."""

from __future__ import annotations

from selfie_adapters import imports, interruption


def main() -> None:
    """Run the command line. Signals are answered from here on: a slow import may be stopped."""
    interruption.install()
    imports.own_process()
    try:
        with interruption.installed():
            from selfie_adapters.cli import main as command

            command()
    finally:
        interruption.finish()


if __name__ == "__main__":
    main()
