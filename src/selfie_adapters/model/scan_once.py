"""Import transformers, which goes through the files of all its models twice, with one such scan.

`import transformers` reads some 1,700 files for the names that they define. `transformers.models`
requests the same table under another prefix, and the library's memo of folders has room for fewer
than it has models. A version that keeps its table in another way is not concerned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import import_utils

_PREFIX = "models"

ImportTable = Mapping[frozenset[str], Mapping[str, set[str]]]
"""By what a name requires (such as "torch") and the module that defines it, names."""


def import_models() -> None:
    """Import `transformers.models` with the table that `import transformers` has made."""
    names = import_utils.__dict__
    scan = names.get("define_import_structure")
    if scan is None or "transformers.models" in sys.modules:
        return
    names["define_import_structure"] = shared(scan, Path(transformers.__file__).parent / _PREFIX)
    try:
        import_module("transformers.models")
    finally:
        names["define_import_structure"] = scan


def shared(scan: Callable[..., ImportTable], models: Path) -> Callable[..., ImportTable]:
    """`scan` (a file of a package, prefix) → table, which takes that of the folder `models` from
    the memo of `scan` itself: transformers has called it with these arguments."""

    def define(file: str, prefix: str | None = None) -> Any:
        if prefix is not None or Path(file) != models / "__init__.py":
            return scan(file, prefix)
        start = f"{_PREFIX}."
        return {
            needs: {
                module.removeprefix(start): set(names)
                for module, names in modules.items()
                if module.startswith(start)  # transformers adds its own other modules
            }
            for needs, modules in scan(models, prefix=_PREFIX).items()
        }

    return define
