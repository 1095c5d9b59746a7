"""`selfie configs`: the configurations that come with the package."""

from __future__ import annotations

import sys
from pathlib import Path

from selfie_adapters.commands.options import Json
from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.config.files import find_config, shipped_configs
from selfie_adapters.files import existing_file


def configs(name: str | None = None, /, *, json: Json = False) -> None:
    """List the configurations of the package, or print one, for --config NAME.

    Parameters
    ----------
    name
        The one to print, such as smollm2_topics.
    """
    if name is not None:
        sys.stdout.write(existing_file(find_config(name)).read_text(encoding="utf-8"))
        return
    rows = [{"name": name, "about": _about(file)} for name, file in shipped_configs().items()]
    if json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print_line(f"{row['name']:{width}}  {row['about']}".rstrip())


def _about(file: Path) -> str:
    """The file's first comment, if it begins with one."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
