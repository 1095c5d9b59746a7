"""Real signals to real processes: one line, the exit status of the signal, no traceback."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

AGAIN = "Finished work is kept. Run the same command again to resume."
ROOT = Path(__file__).parents[1]


def start(program, *arguments, **options):
    """A process that runs `program` where a command would run, behind the command line's entry."""
    script = f"""
import sys, types
from selfie_adapters import interruption
from selfie_adapters.__main__ import main

def command():
{textwrap.indent(textwrap.dedent(program), "    ")}

stub = types.ModuleType("selfie_adapters.cli")
stub.main = command
sys.modules["selfie_adapters.cli"] = stub
main()
"""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ready(process):
    assert process.stdout.readline() == "ready\n"


def end(process, *signals):
    for number in signals:
        process.send_signal(number)
        time.sleep(0.1)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


SLEEPING = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("cleaned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cleans_up_and_prints_one_line(number):
    process = start(SLEEPING)
    ready(process)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert end(process, number) == (128 + number, "cleaned\n", f"stopped by {name}. {AGAIN}\n")


CASES = {
    "a cleanup that hangs": """
        import time
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep(60)
    """,
    "a thread that outlives the command": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,)).start()
        print("ready", flush=True)
        time.sleep(60)
    """,
    "an exit function that hangs": """
        import atexit, time
        atexit.register(time.sleep, 60)
        print("ready", flush=True)
        time.sleep(60)
    """,
    "code that swallows the interrupt": """
        import time
        announced = False
        while True:
            try:
                announced = announced or print("ready", flush=True) is None
                time.sleep(60)
            except BaseException:
                pass
    """,
    "workers of a pool": """
        import time
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(time.sleep, 60) for _ in range(4)]
            print("ready", flush=True)
            done[0].result()
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_a_second_signal_ends_at_once_and_the_line_is_printed_once(case):
    process = start(CASES[case])
    ready(process)
    code, _, errors = end(process, signal.SIGINT, signal.SIGINT)
    assert (code, errors) == (130, f"stopped by Ctrl-C. {AGAIN}\n")


ONE_IS_ENOUGH = {
    "an interrupt that a C library turns into another error": """
        import time
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException as error:
            raise ImportError("KeyboardInterrupt: <EMPTY MESSAGE>") from error
    """,
    "in a destructor": """
        import time
        class Slow:
            def __del__(self):
                print("ready", flush=True)
                time.sleep(60)
        Slow()
        time.sleep(60)
    """,
    "in an exit function of a finished command": """
        import atexit, time
        def slow():
            print("ready", flush=True)
            time.sleep(60)
        atexit.register(slow)
    """,
    "while threads are waited for after the command": """
        import threading, time
        def slow():
            time.sleep(0.2)
            print("ready", flush=True)
            time.sleep(60)
        threading.Thread(target=slow).start()
    """,
    "in an event loop": """
        import asyncio
        async def serve():
            # Not before both are begun: Python warns of one that never is.
            asyncio.get_running_loop().call_later(0.2, lambda: print("ready", flush=True))
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
        asyncio.run(serve())
    """,
}


@pytest.mark.parametrize("case", ONE_IS_ENOUGH)
def test_wherever_a_signal_comes_there_is_one_line(case):
    process = start(ONE_IS_ENOUGH[case])
    ready(process)
    code, _, errors = end(process, signal.SIGINT)
    assert (code, errors) == (130, f"stopped by Ctrl-C. {AGAIN}\n")


def test_the_innermost_advice_is_printed():
    process = start("""
    import time
    with interruption.advice(lambda: "outer"), interruption.advice(lambda: "Resume with: x."):
        with interruption.advice(lambda: "closed"):
            pass
        print("ready", flush=True)
        time.sleep(60)
    """)
    ready(process)
    assert end(process, signal.SIGTERM) == (143, "", "stopped by SIGTERM. Resume with: x.\n")


def test_ignored_signals_stay_ignored():
    """As under nohup, and for commands that a shell starts in the background."""
    program = """
    import signal
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGINT)
    print("done")
    """

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(program, preexec_fn=ignore)
    assert end(process) == (0, "done\n", "")


def test_a_terminal_that_is_gone_is_no_error():
    process = start(SLEEPING)
    ready(process)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 129


def test_a_child_that_was_forked_stays_silent():
    process = start("""
    import os, signal, time
    child = os.fork()
    if not child:
        time.sleep(60)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert end(process) == (0, "143\n", "")


COMMANDS = (
    ["--help"],
    ["prepare", "list", "gemma"],
    ["data", "inspect", str(ROOT / "data/sample/sample.json")],
    ["adapter", "show", str(ROOT / "tests/golden/llama/adapters/scalar_affine_norm.safetensors")],
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_at_random_moments_of_a_command_no_traceback_is_seen(command):
    """Imports included; only Python's own start, before any of our code, is left to Python."""
    chance = random.Random(0)
    # The hook makes sure that our entry was reached before the signal is sent.
    script = "import selfie_adapters.interruption as i; i.install(); print('ready', flush=True)\n"
    script += "from selfie_adapters.__main__ import main; main()"
    began = time.perf_counter()
    whole = [sys.executable, "-c", script, *command]
    complete = subprocess.run(whole, check=True, capture_output=True, text=True).stdout
    usual = time.perf_counter() - began
    stopped = 0
    for _ in range(12):
        process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ready(process)
        time.sleep(chance.random() * usual)
        number = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        code, out, errors = end(process, number, number)
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        line = f"stopped by {name}. {AGAIN}\n"
        if code == -number and not errors:
            # It came when the interpreter had given up its handlers, after everything was done.
            assert f"ready\n{out}" == complete
        elif code:
            assert errors == line
            assert code in (128 + number, -number)  # the second one alone came that late
            stopped += 1
    assert stopped
