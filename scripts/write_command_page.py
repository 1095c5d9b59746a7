"""Write docs/commands.md from the command table. `python scripts/write_command_page.py`"""

from __future__ import annotations

import re
from pathlib import Path

from selfie_adapters.cli import app

PAGE = Path(__file__).parents[1] / "docs/commands.md"
NOTE = (
    "`selfie COMMAND --help` for every command. `python scripts/write_command_page.py` writes this "
    "page."
)


def page() -> str:
    """Every command with its options, in Markdown."""
    text = app.generate_docs(output_format="markdown")
    text = re.sub(r"## Table of Contents\n\n.*?(?=\*\*Commands\*\*)", "", text, flags=re.DOTALL)
    text = re.sub(r"\A# selfie\n", f"# Commands\n\n{NOTE}\n", text)
    # cyclopts writes how this process was started.
    text = re.sub(r"^(selfie --install-completion) .*", r"\1 [OPTIONS]", text, flags=re.MULTILINE)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
