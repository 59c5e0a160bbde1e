import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from containerize.engines.complaints import NoEngine
from containerize.engines.engine import Engine, docker, find
from containerize.errors import Problem
from containerize.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path, image="x")


@pytest.fixture
def shell():
    """An engine whose subcommands are those of Python: `-c` and its program."""
    return Engine("podman", (sys.executable,), environment={"DEEP": "thought"})


def test_no_engine_on_the_path(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(NoEngine) as caught:
        find(settings)
    assert str(caught.value) == (
        "no engine can be used: docker is not installed; podman is not installed: "
        "`invoke engine --install` sees to it"
    )


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ("dokcer", "dokcer is not there or cannot be run: mend CONTAINERIZE_"),
        ("/bin/true", "/bin/true is no Docker and no Podman, or it is broken"),
        ("/bin", "the engine /bin is not there or cannot be run"),
    ],
)  # fmt: skip
def test_named_engine_that_is_none(settings, named, text):
    with pytest.raises(Problem) as caught:
        find(dataclasses.replace(settings, engine=named))
    assert text in str(caught.value)
    assert not isinstance(caught.value, NoEngine)


def test_run_gives_both_streams_or_one(shell):
    program = "import sys; print(1); print(2, file=sys.stderr); sys.exit(3)"
    done = shell.run("-c", program, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "1\n", "2\n")
    merged = shell.run("-c", program, check=False, merge=True)
    assert sorted(merged.stdout) == sorted("1\n2\n")


def test_run_feeds_input_and_environment(shell):
    program = "import os, sys; print(sys.stdin.read() + os.environ['DEEP'])"
    assert shell.run("-c", program, input=b"a ").stdout == "a thought\n"
    assert shell.run("-c", program).stdout == "thought\n"


def test_run_echoes_what_a_shell_would_take(shell):
    said = []
    shell = dataclasses.replace(
        shell, on_command=said.append, options={"-c": ("pass",)}
    )
    shell.run("-c", "x")
    shell.run("-c", "x", echo=False)
    assert said == [["DEEP=thought", sys.executable, "-c", "pass", "x"]]


def test_run_that_takes_too_long(shell):
    with pytest.raises(Problem, match=r"did not end within 0.2 s"):
        shell.run("-c", "import time; time.sleep(60)", timeout=0.2)


def test_command_that_is_gone():
    gone = Engine("docker", ("/nonexistent/docker",))
    for call in (gone.run, gone.stream):
        with pytest.raises(NoEngine, match="/nonexistent/docker is not installed"):
            call("version")


def test_pipe(shell):
    with shell.pipe("-c", "import os; os.write(1, bytes(300_000))") as stream:
        assert len(stream.read()) == 300_000


def test_pipe_fails_on_leaving(shell):
    with (
        pytest.raises(Problem, match="failed: oh"),
        shell.pipe("-c", "import sys; print(1); sys.exit('oh')") as stream,
    ):
        assert stream.read() == b"1\n"


def test_pipe_ends_the_command_when_its_reader_fails(shell):
    began = time.monotonic()
    with (
        pytest.raises(KeyError),
        shell.pipe("-c", "import time; time.sleep(600)"),
    ):
        raise KeyError
    assert time.monotonic() - began < 600


def test_stream_says_how_it_failed(shell, capfd):
    with pytest.raises(Problem, match="exit code 4"):
        shell.stream("-c", "print('seen', flush=True); raise SystemExit(4)")
    assert capfd.readouterr().out == "seen\n"


def test_interrupted_stream_lets_the_command_end_by_itself(tmp_path):
    """Ctrl-C reaches the whole group; the command must have its one signal only."""
    command = (
        # os.write: the signal may come while print is still writing.
        "import os, signal, sys, time\n"
        "def end(number, _):\n"
        "    time.sleep(0.5)\n"
        "    os.write(1, b'ended by %d\\n' % number)\n"
        "    sys.exit()\n"
        "signal.signal(2, end); signal.signal(15, end)\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(60)\n"
    )
    caller = (
        "import sys\n"
        "from containerize.engines.engine import Engine\n"
        "try:\n"
        "    Engine('podman', (sys.executable,)).stream('-c', sys.argv[1])\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", caller, command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        timer = threading.Timer(30, process.kill)
        timer.start()
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "ended by 2\ninterrupted\n"
        timer.cancel()
    assert process.returncode == 0


INFO = {"ClientInfo": {"Plugins": [{"Name": "buildx", "Version": "0.13.1"}]}}


@pytest.mark.parametrize(
    ("variable", "client", "server", "info", "builder"),
    [
        # docs.docker.com/build/buildkit and the sources of docker/cli, cmd/docker
        (None, "20.10.24", "20.10.24", {}, "legacy (the default of this release)"),
        (None, "20.10.24", "26.1.5", {}, "BuildKit of the daemon (its default)"),
        ("1", "20.10.24", "20.10.24", {}, "BuildKit of the daemon (DOCKER_BUILDKIT=1)"),
        ("0", "20.10.24", "26.1.5", {}, "legacy (DOCKER_BUILDKIT=0)"),
        (None, "28.2.2", "20.10.24", {}, "legacy (the client has no buildx)"),
        ("1", "28", "26", {}, "none (DOCKER_BUILDKIT is set, but there is no buildx)"),
        (None, "26.1.5", "26.1.5", INFO, "BuildKit through buildx 0.13.1"),
        ("0", "26.1.5", "26.1.5", INFO, "legacy (DOCKER_BUILDKIT=0)"),
    ],
)  # fmt: skip
def test_builder(monkeypatch, variable, client, server, info, builder):
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    environment = {"DOCKER_BUILDKIT": variable} if variable else {}
    engine = Engine("docker", ("docker",), environment=environment)
    assert engine._builder(client, server, info) == builder


@pytest.mark.parametrize(
    ("variable", "client", "server", "builder"),
    [
        (None, "20.10.24+dfsg1", "20.10.24", "BuildKit .* set for `build`"),
        (None, "18.09.1", "20.10.24", "BuildKit .* set for `build`"),
        ("1", "20.10.24", "20.10.24", r"BuildKit of the daemon \(DOCKER_BUILDKIT=1\)"),
        ("0", "20.10.24", "20.10.24", r"legacy \(DOCKER_BUILDKIT=0\)"),
        ("", "20.10.24", "20.10.24", "BuildKit .* set for `build`"),
        (None, "18.06.3", "20.10.24", "legacy"),
        (None, "20.10.24", "18.06.3", "legacy"),
        (None, "28.2.2", "20.10.24", r"legacy \(the client has no buildx\)"),
        (None, "20.10.24", "26.1.5", r"BuildKit of the daemon \(its default\)"),
        (None, "dev", "20.10.24", "legacy"),
        (None, "20.10.24", "", "legacy"),
    ],
)  # fmt: skip
def test_buildkit_is_asked_for_where_client_and_daemon_have_it(
    monkeypatch, variable, client, server, builder
):
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    if variable is not None:
        monkeypatch.setenv("DOCKER_BUILDKIT", variable)
    engine = docker("docker", client, server)
    assert re.match(builder, engine._builder(client, server, {}))
    asked = "set for" in builder
    assert engine.variables("build") == ["DOCKER_BUILDKIT=1"] * asked


def test_a_variable_of_a_subcommand_is_shown_and_set_for_it_alone(monkeypatch):
    monkeypatch.delenv("ASKED", raising=False)
    shown = []
    engine = Engine(
        "docker", (sys.executable,), assigned={"-c": {"ASKED": "1"}},
        on_command=shown.append,
    )  # fmt: skip
    program = "import os; print(os.environ.get('ASKED'))"
    assert engine.run("-c", program).stdout == "1\n"
    assert engine.run("-Ic", program).stdout == "None\n"
    assert engine.call("-c", "import os; os.environ['ASKED']")[0] == 0
    with engine.pipe("-c", program) as stream:
        assert stream.read() == b"1\n"
    assert [command[0] for command in shown] == [
        "ASKED=1", sys.executable, "ASKED=1", "ASKED=1",
    ]  # fmt: skip


def test_a_listing_that_fails_while_an_image_goes_is_repeated(tmp_path):
    podman = tmp_path / "podman"
    gone = f"[ -e {tmp_path}/again ] || "
    gone += (
        f"{{ : >{tmp_path}/again; echo 'Error: 71: image not known' >&2; exit 125; }}"
    )
    podman.write_text(f"#!/bin/sh\n{gone}\necho one two\n")
    podman.chmod(0o755)
    assert Engine("podman", (str(podman),)).listing("ps") == ["one", "two"]
    podman.write_text("#!/bin/sh\necho 'Error: 71: image not known' >&2; exit 125\n")
    with pytest.raises(Problem, match="no image 71"):
        Engine("podman", (str(podman),)).listing("ps")
