from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from selfie_adapters.commands.serve import serve
from selfie_adapters.errors import ConfigError, DataError, MissingExtraError, MissingFileError


@pytest.fixture
def settings(golden_dir):
    return {
        "model": str(golden_dir / "model"),
        "adapter": [str(golden_dir / "adapters/scalar_affine_norm.safetensors")],
        "port": 0,
    }


@pytest.fixture
def never_runs(monkeypatch):
    """The server starts and ends at once; what it was made with is kept."""
    made = []

    class Server:
        def run(self, sockets):
            made.append(sockets)

    monkeypatch.setattr("selfie_adapters.commands.serve._server", lambda *_a: Server())
    return made


def test_on_loopback_no_token_is_needed(settings, never_runs, capsys):
    serve(**settings)
    assert re.search(r"http://127\.0\.0\.1:\d+/\n", capsys.readouterr().out)
    assert len(never_runs) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2"])
def test_bound_elsewhere_a_token_is_made_and_printed(settings, never_runs, capsys, host):
    for _ in range(2):
        serve(**settings, host=host)
    tokens = re.findall(r"#token=([\w-]{32})\n", capsys.readouterr().out)
    assert len(set(tokens)) == 2


def test_a_token_of_ones_own_is_used(settings, never_runs, capsys):
    serve(**settings, host="0.0.0.0", token="correct-horse")
    assert "#token=correct-horse" in capsys.readouterr().out
    for weak in ("short", "", "long enough\n", "pässword"):
        with pytest.raises(ConfigError, match="--token: at least 8"):
            serve(**settings, token=weak)


def test_the_token_comes_from_the_option_a_file_or_the_environment(
    settings, never_runs, capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("SELFIE_TOKEN", "from-the-environment")
    (tmp_path / "token").write_text("from-the-file\n")
    tokens = []
    monkeypatch.setattr(
        "selfie_adapters.serving.app.make_app", lambda _service, _hosts, token: tokens.append(token)
    )
    serve(**settings)
    serve(**settings, token_file=str(tmp_path / "token"))
    serve(**settings, token="from-the-option")
    assert tokens == ["from-the-environment", "from-the-file", "from-the-option"]
    printed = capsys.readouterr().out.replace("\n", "")
    assert "#token=<$SELFIE_TOKEN>" in printed
    assert "from-the-environment" not in printed
    assert "from-the-file" not in printed
    assert "#token=from-the-option" in printed
    with pytest.raises(ConfigError, match="give one of them"):
        serve(**settings, token="from-the-option", token_file=str(tmp_path / "token"))
    (tmp_path / "token").write_bytes(b"\xff" * 9)
    with pytest.raises(ConfigError, match="token: at least 8 printable"):
        serve(**settings, token_file=str(tmp_path / "token"))
    with pytest.raises(MissingFileError):
        serve(**settings, token_file=str(tmp_path / "none"))
    monkeypatch.setenv("SELFIE_TOKEN", "short")
    with pytest.raises(ConfigError, match=r"\$SELFIE_TOKEN: at least 8"):
        serve(**settings)


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings["port"] = taken.getsockname()[1]
        settings["model"] = "./nowhere"
        with pytest.raises(ConfigError, match=r"cannot listen there.*Choose another --port"):
            serve(**settings)


def test_a_wrong_mean_is_refused_at_the_start(settings, tmp_path):
    (tmp_path / "mean.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="not a safetensors file"):
        serve(**settings, mean=str(tmp_path / "mean.safetensors"))


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "jinja2"])
def test_a_missing_extra_names_the_install_command(settings, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*'selfie-adapters\[serve\]'"):
        serve(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_stopping_ends_every_answer_with_a_line_that_says_so(settings, sent, code):
    command = [sys.executable, "-c", "from selfie_adapters.cli import main; main()", "serve"]
    command += ["--model", settings["model"], "--adapter", settings["adapter"][0], "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "500"},
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            port = int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]
            connections = [_begin(port) for _ in range(3)]  # one runs, two wait
            answers = [connection.getresponse() for connection in connections]
            assert json.loads(answers[0].readline())["event"] == "start"
            assert json.loads(answers[0].readline())["event"] == "cells"
            process.send_signal(sent)
            for answer in answers:
                last = json.loads(answer.read().splitlines()[-1])
                assert last["event"] == "error"
                assert last["message"] == "The server is stopping. Try again later."
            for connection in connections:
                connection.close()
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    name = "Ctrl-C" if sent == signal.SIGINT else sent.name
    assert errors == f"stopped by {name}. Run the same command again to start it.\n"


def _begin(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"prompt": "x" * 400, "chat": "none"})
    connection.request("POST", "/api/read", body, {"Content-Type": "application/json"})
    return connection


@pytest.mark.parametrize(
    ("adapters", "names"),
    [
        (["demo"], ["demo"]),
        (["/a/b/one.safetensors", "/a/c/two.safetensors"], ["one", "two"]),
        (["/a/b/best.safetensors", "/a/c/best.safetensors"], ["b/best", "c/best"]),
        (["demo", "runs/x/demo.safetensors"], ["demo", "x/demo"]),
        (["demo", "demo"], ["demo", "demo (2)"]),
        (["owner/repo", "other/repo"], ["owner/repo", "other/repo"]),
    ],
)
def test_adapters_have_short_and_different_names(adapters, names):
    from selfie_adapters.commands.serve import _names

    assert _names(adapters) == names
