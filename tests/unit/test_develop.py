"""`dev` without an engine: what is watched, who is let in, what the engine is told."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import types

import pytest

from containerize.develop import program, session
from containerize.develop.forward import Forward
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings
from tests.conftest import unused_port


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path, image="shop")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the app's, as if it were imported."""
    found = types.ModuleType("shop_module")
    found.__file__ = os.fspath(tmp_path / "module.py")
    tmp_path.joinpath("module.py").write_text("x = 1\n")
    monkeypatch.setitem(sys.modules, "shop_module", found)
    return tmp_path / "module.py"


def test_modules_are_watched_and_nothing_else(tmp_path, module):
    watch = program.Watch(os.fspath(tmp_path))
    watch.begin(True)
    (tmp_path / "other.py").write_text("")
    (tmp_path / "data.txt").write_text("")
    assert watch.changed() == ""
    module.write_text("x = 22\n")
    assert watch.changed() == os.fspath(module)


def test_what_is_edited_during_the_import_is_a_change(tmp_path, module):
    watch = program.Watch(os.fspath(tmp_path))
    module.write_text("x = 22\n")
    watch.begin(True)
    assert watch.changed() == os.fspath(module)


def test_an_edit_that_keeps_time_and_size_is_seen(tmp_path, module):
    watch = program.Watch(os.fspath(tmp_path))
    watch.begin(True)
    before = module.stat()
    new = tmp_path / "new"
    new.write_text("x = 2\n")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(module)  # as editors save
    assert watch.changed() == os.fspath(module)


def test_a_module_that_goes_is_a_change(tmp_path, module):
    watch = program.Watch(os.fspath(tmp_path))
    watch.begin(True)
    module.unlink()
    assert watch.changed() == os.fspath(module)


@pytest.mark.parametrize("name", ["settings.toml", "new.py"])
def test_all_files_are_watched_if_the_app_failed(tmp_path, name):
    for hidden in (".venv", "node_modules", "env"):
        (tmp_path / hidden).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    watch = program.Watch(os.fspath(tmp_path))
    watch.begin(False)
    for hidden in (".venv", "node_modules", "env"):
        (tmp_path / hidden / "x.py").touch()
    assert watch.changed() == ""
    (tmp_path / name).touch()
    assert watch.changed() == os.fspath(tmp_path / name)
    assert program.Watch(os.fspath(tmp_path)).changed() == ""


def test_a_listener_tells_how_many_wait():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert program.waiting(listener) == 0
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.create_connection(address))
            assert program.waiting(listener) == 3


def test_who_comes_again_after_a_refusal_is_not_dropped_too():
    again = []

    class Refused(socket.socket):
        """A connection whose client comes again as soon as it is closed."""

        def close(self):
            address = self.getsockname()
            super().close()
            again.append(socket.create_connection(address))

    class Listener(socket.socket):
        def accept(self):
            number, address = self._accept()
            return Refused(fileno=number), address

    with Listener() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        first = [
            stack.enter_context(socket.create_connection(listener.getsockname()))
            for _ in range(3)
        ]
        program._drop(listener)
        for connection in again:
            stack.enter_context(connection)
        assert [connection.recv(1) for connection in first] == [b""] * 3
        assert program.waiting(listener) == 3


@pytest.mark.parametrize(
    ("sent", "let_in"),
    [(b"key!rest", True), (b"key", False), (b"kex!rest", False), (b"", False)],
)
def test_the_key_lets_in_and_is_taken_off(sent, let_in):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        assert program.admitted(ours, b"key!") is let_in
        if let_in:
            assert ours.recv(10) == b"rest"


def test_the_port_passes_on_behind_the_key():
    with socket.create_server(("127.0.0.1", 0)) as app, Forward(0, "key") as forward:
        to, ours = app.getsockname()[1], forward.server_address[1]

        def first():
            connection, _ = app.accept()
            connection.recv(3)
            connection.sendall(b"1")
            connection.close()

        thread = threading.Thread(target=first)
        thread.start()
        assert forward.reach(to)
        thread.join()
        threading.Thread(target=forward.serve_forever, args=(0.01,)).start()
        try:
            with socket.create_connection(("127.0.0.1", ours)) as client:
                # The app is asked with the first bytes, not before.
                app.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    app.accept()
                client.sendall(b"question")
                app.settimeout(10)
                connection, _ = app.accept()
                assert connection.recv(11, socket.MSG_WAITALL) == b"keyquestion"
                connection.sendall(b"answer")
                connection.close()
                assert client.recv(10, socket.MSG_WAITALL) == b"answer"
        finally:
            forward.shutdown()


def test_an_app_that_does_not_answer_yet_is_not_reached():
    with Forward(0, "key") as forward:
        assert forward.reach(unused_port()) is None


def test_two_signals_at_once_end_it_without_a_word():
    # As on Ctrl-C: the terminal tells the app's process, and so does its parent.
    code = """
import os, signal
from containerize.develop import program
both = (signal.SIGINT, signal.SIGTERM)
for number in both:
    signal.signal(number, program._end)
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for number in both:
    os.kill(os.getpid(), number)
try:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ())  # looks for the second, as any call
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_an_engine_elsewhere_is_one_line(settings):
    engine = Engine("docker", ("docker",), {"DOCKER_HOST": "ssh://user@far.example"})
    with pytest.raises(Problem, match=r"working tree, which far\.example does not"):
        session.see_free(settings, engine, name="shop-dev", port=1)


@pytest.mark.parametrize("character", [",", '"', "\n"])
def test_a_path_that_cannot_be_mounted_is_one_line(tmp_path, character):
    settings = Settings(root=tmp_path / f"a{character}b", image="shop")
    with pytest.raises(Problem, match="engines cannot mount '"):
        session.launch(settings, "shop", name="x", user="1", environment={})


def test_the_container_has_the_tree_read_only_and_no_right_too_many(settings):
    launch = session.launch(
        settings, "shop:latest", name="shop-dev", user="65532:65532",
        environment={"A": "1"}, key="hidden",
    )  # fmt: skip
    command = launch.command(("create",))
    assert "hidden" not in " ".join(command)
    assert "--cap-drop=ALL" in command
    assert "--read-only" in command
    assert [word for word in command if word.startswith("--cap-add")] == [
        "--cap-add=SETUID",
        "--cap-add=SETGID",
        "--cap-add=DAC_OVERRIDE",
    ]
    binds = [word for word in command if word.startswith("--mount")]
    assert len(binds) == 2
    assert all(word.endswith(",readonly") for word in binds)
    assert "--publish=127.0.0.1::8080" in command


def test_changes_are_in_words():
    news = frozenset({("Dockerfile", "sha256:1"), ("base.lock is out of step", "")})
    assert session.changes(news) == "Dockerfile changed, base.lock is out of step"
