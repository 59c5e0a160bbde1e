"""Signals that are kept from this process, and from the commands that it runs."""

import os
import signal
import subprocess
import sys

import pytest

KEPT = """\
import sys
from containerize import signals
from containerize.engines.engine import Engine

shell = Engine("podman", (sys.executable,))
with signals.{how}():
    for _ in range(20):
        print(shell.run("-c", sys.argv[1], check=False).stdout, end="", flush=True)
    print("done", flush=True)
    sys.stdin.read()
print("went on")
"""

# As a client does that is written in Go.
LISTENS = """\
import os, signal
signal.signal(signal.{name}, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.{name}])
"""

# The group of who runs it has all that a terminal's Ctrl-C reaches.
DISTURBS = "os.killpg(os.getpgid(os.getppid()), signal.{name})\n"


@pytest.fixture
def begun():
    """Starts Python programs, each in a process group of its own."""
    started = []

    def begin(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    ("how", "after"), [("undisturbed", "went on\n"), ("later", "")]
)
def test_what_must_not_stop_half_way_is_kept_from_its_commands_too(
    begun, how, after, name
):
    command = (LISTENS + DISTURBS).format(name=name) + "print('whole')"
    out, _ = begun(KEPT.format(how=how), command).communicate()
    assert out == "whole\n" * 20 + "done\n" + after


def test_a_signal_before_a_command_is_in_its_own_group(begun):
    """It waits for the command then, which looks for it at once (#12)."""
    command = LISTENS.format(name="SIGINT") + "print('whole')"
    process = begun(KEPT.format(how="later"), command)
    lines = [process.stdout.readline()]
    hammer = f"import os\nwhile True: os.killpg({process.pid}, {signal.SIGINT})"
    begun(hammer)
    lines += iter(process.stdout.readline, "done\n")
    assert lines == ["whole\n"] * 20
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate()
    assert out == ""
