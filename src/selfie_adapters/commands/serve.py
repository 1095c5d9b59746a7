"""`selfie serve`: read prompts and label vectors in the browser, on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.adapters.locating import needed_adapter
from selfie_adapters.commands.checking import check_inputs
from selfie_adapters.commands.options import options
from selfie_adapters.config.commands import ServeSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra
from selfie_adapters.files import read_plain
from selfie_adapters.interruption import advice, catchable

if TYPE_CHECKING:
    import uvicorn

    from selfie_adapters.serving.service import Service


TOKEN_VARIABLE = "SELFIE_TOKEN"


@options(ServeSettings)
def serve(settings: ServeSettings) -> None:
    """A web page that reads prompts and labels vectors. Stop it with Ctrl-C."""
    require_extra("serve", "selfie serve")
    from selfie_adapters.adapters.locating import find_adapter_file, find_mean_file
    from selfie_adapters.serving.app import make_app
    from selfie_adapters.serving.guard import ANYWHERE, LOOPBACK

    console = Console()
    token, known = _token(settings.token, settings.token_file)
    with _listening(settings.host, settings.port) as listener:
        adapters = [*settings.adapter] or [needed_adapter(None, settings.model, "selfie serve")]
        mean = find_mean_file(settings.mean, find_adapter_file(adapters[0]))
        check_inputs(
            model=settings.model,
            lora=settings.lora,
            device=settings.device,
            adapters=adapters,
            files=[mean],
        )
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        if token is None and name not in LOOPBACK:
            token = secrets.token_urlsafe(24)
        service = _service(settings, adapters, mean)
        service.show_withheld = settings.show_withheld
        hosts = None if name in ANYWHERE else LOOPBACK | {name.casefold()}
        app = make_app(service, hosts, token)
        shown = "localhost" if name in ANYWHERE else name
        secret = "" if token is None else f"#token={known or token}"
        address = f"http://{shown}:{listener.getsockname()[1]}/{secret}"
        console.print(f"reading with {service.source.name}: {address}", highlight=False)
        with advice(lambda: "Run the same command again to start it."):
            _server(app, service).run(sockets=[listener])


def _listening(host: str, port: int) -> contextlib.AbstractContextManager[socket.socket]:
    """A socket that listens. Raises ConfigError if that address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}, port {port}: cannot listen there ({error}). Choose another --port or --host."
        ) from error


def _service(settings: ServeSettings, adapters: list[str], mean: str | None) -> Service:
    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.adapters.locating import find_adapter_file
    from selfie_adapters.labelling.adapter_prompt import adapter_prompt
    from selfie_adapters.labelling.centering import mean_layers
    from selfie_adapters.labelling.labeller import Labeller
    from selfie_adapters.model import load_model, with_lora
    from selfie_adapters.reading.calibration import calibration
    from selfie_adapters.reading.means import read_means
    from selfie_adapters.serving.service import ServedAdapter, Service

    files = [find_adapter_file(adapter) for adapter in adapters]
    loaded = [load_adapter(file) for file in files]
    template, placeholder = settings.template, settings.placeholder
    trust = [calibration(file, template=template, placeholder=placeholder) for file in files]
    frozen = load_model(settings.model, settings.dtype, settings.device)
    source = None if settings.lora is None else with_lora(frozen, settings.lora)
    served = [
        ServedAdapter(
            name,
            Labeller(
                frozen,
                one,
                adapter_prompt(one, frozen.tokenizer, template, placeholder),
                not settings.ignore_binding,
            ),
            confidence,
        )
        for name, one, confidence in zip(_names(adapters), loaded, trust, strict=True)
    ]
    if mean is None:
        return Service(frozen, served, source=source)
    layers = mean_layers(mean)
    read_means(mean, layers, frozen.d_model)  # a wrong file is refused now, not at a request
    return Service(frozen, served, (mean, layers), source=source)


def _names(adapters: list[str]) -> list[str]:
    """Each as it is called: a shipped or hub adapter by its name, a file by the last part of its
    path, or by as many parts as tell the files apart. One that is given twice has a number."""
    parts = [Path(adapter).with_suffix("").parts for adapter in adapters]
    names, length = adapters, 0
    while length < max(map(len, parts)):
        length += 1
        names = ["/".join(one[-length:]) for one in parts]
        if len({*names}) == len({*adapters}):
            break
    return [
        name if names.index(name) == i else f"{name} ({names[: i + 1].count(name)})"
        for i, name in enumerate(names)
    ]


def _server(app: Any, service: Service) -> uvicorn.Server:
    import uvicorn

    from selfie_adapters.serving.connections import server_settings

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Uvicorn does not know SIGHUP, which would end every answer in the middle.
            with super().capture_signals():
                before = {number: signal.signal(number, self.handle_exit) for number in catchable()}
                try:
                    yield
                finally:  # uvicorn raises the signals again after this block
                    for number, former in before.items():
                        signal.signal(number, former)

        def handle_exit(self, sig: int, frame: Any) -> None:
            self.force_exit = self.should_exit  # a second signal waits for nobody
            super().handle_exit(sig, frame)
            # Not here: a signal may come while this very thread holds the worker's lock.
            if self.loop is not None:
                self.loop.call_soon_threadsafe(service.worker.close)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            import asyncio

            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)

        loop: Any = None

    return Server(uvicorn.Config(app, **server_settings(service.limits)))


def _token(token: str | None, token_file: str | None) -> tuple[str | None, str | None]:
    """From --token, else --token-file, else $SELFIE_TOKEN; and where it is to be found, if it is
    kept secret: then it is not printed either. Raises ConfigError for a weak one.
    """
    if token is not None and token_file is not None:
        raise ConfigError("--token and --token-file cannot be combined; give one of them.")
    found, where = token, "--token"
    if token_file is not None:
        found, where = read_plain(token_file)[:4096].decode("latin-1").rstrip("\r\n"), token_file
    elif token is None:
        found, where = os.environ.get(TOKEN_VARIABLE), f"${TOKEN_VARIABLE}"
    if found is not None and (len(found) < 8 or not found.isascii() or not found.isprintable()):
        raise ConfigError(f"{where}: at least 8 printable ASCII characters are expected.")
    return found, None if token is not None or found is None else f"<{where}>"
