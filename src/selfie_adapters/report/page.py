"""Self-contained HTML pages: no outside request, everything escaped."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from selfie_adapters.extras import extra
from selfie_adapters.files import write_text


def write_page(path: str | Path, template: str, values: dict[str, Any]) -> None:
    """Fill `templates/{template}.html` with `values` and write it atomically.

    Raises MissingExtraError without jinja2.
    """
    write_text(path, render_page(template, values))


def render_page(template: str, values: dict[str, Any]) -> str:
    """`templates/{template}.html` filled with `values`.

    Strings are escaped; figures, which this project draws itself, are marked safe in the template.
    Raises MissingExtraError without jinja2.
    """
    with extra("report", "Writing a report page"):
        import jinja2
    folder = package_files("selfie_adapters.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{template}.html").render(values)
