"""`selfie configs`: the configurations that come with the package."""

from __future__ import annotations

import sys
from pathlib import Path

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_columns, print_json
from selfie_adapters.config.commands import ConfigsSettings
from selfie_adapters.config.files import find_config, shipped_configs
from selfie_adapters.files import existing_file


@options(ConfigsSettings)
def configs(settings: ConfigsSettings, *, json: Json = False) -> None:
    """List the configurations of the package, or print one, for --config NAME."""
    if settings.name is not None:
        sys.stdout.write(existing_file(find_config(settings.name)).read_text(encoding="utf-8"))
        return
    rows = [{"name": name, "about": _about(file)} for name, file in shipped_configs().items()]
    if json:
        print_json(rows)
        return
    print_columns([(row["name"], row["about"]) for row in rows])


def _about(file: Path) -> str:
    """The file's first comment, if it begins with one."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
