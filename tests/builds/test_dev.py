"""`dev` on real engines: edits, errors, volumes, who reaches it, and what it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from containerize import build, settings
from containerize.develop import program, session
from containerize.engines import container, volumes
from containerize.errors import Problem
from containerize.settings import PREFIX
from tests.conftest import copied, unused_port

APP = """
import os, sqlite3
from flask import Flask, render_template, request
from app.part import WORD

def create_app():
    app = Flask(__name__, instance_path="/srv/instance")

    @app.get("/")
    def word():
        return WORD

    @app.get("/page")
    def page():
        return render_template("page.html")

    @app.get("/environ")
    def environ():
        kept = dict(os.environ)
        return {"environ": kept, "uid": os.getuid(), "debug": app.debug,
                "main": open("/proc/self/environ").read().count("KEY")}

    @app.get("/write")
    def write():
        path = request.args["path"]
        with open(path, "a") as file:
            file.write("x")
        return str(os.stat(path).st_uid)

    @app.get("/fails")
    def fails():
        raise KeyError("on purpose")

    @app.get("/dies")
    def dies():
        os._exit(7)

    return app
"""


class Development:
    """A run of the verb in a process of its own, and what it writes."""

    def __init__(self, tree, environment, *flags, terminal=False):
        self.tree, self.port = tree, unused_port()
        self.name = f"{tree.image}-dev"
        command = [sys.executable, "-m", "invoke", "dev", *flags]
        if terminal:
            command = ["setsid", "--ctty", *command]
        self.leader, self.follower = pty.openpty() if terminal else os.pipe()
        ours = self.follower
        self.process = subprocess.Popen(
            command, cwd=tree.root, stdin=ours if terminal else subprocess.DEVNULL,
            stdout=ours, stderr=ours, start_new_session=not terminal,
            env=environment | {f"{PREFIX}PORT": str(self.port)},
        )  # fmt: skip
        os.close(self.follower)
        self._said, self._over = b"", False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # Linux's end of a terminal
            while not self._over:
                if select.select([self.leader], [], [], 0.1)[0]:
                    part = os.read(self.leader, 1 << 16)
                    if not part:
                        break
                    self._said += part
        os.close(self.leader)

    @property
    def said(self):
        return self._said.decode(errors="replace").replace("\r", "")

    def wait(self, text, timeout=60):
        until(lambda: text in self.said or self.process.poll() is not None, timeout)
        assert text in self.said, self.said

    def get(self, path=""):
        """Status and body of an answer; the connection may come before the app."""
        url = f"http://127.0.0.1:{self.port}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def close_terminal(self):
        self._over = True
        return self.process.wait(60)

    def end(self, number=signal.SIGINT):
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)  # as a terminal does
        else:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(5)
        return code


def until(predicate, timeout=60):
    end = time.monotonic() + timeout
    while not predicate() and time.monotonic() < end:
        time.sleep(0.05)


def left(tree, using):
    return container.listed(tree, using)


@pytest.fixture(scope="module")
def tree(using, project, tmp_path_factory):
    """A repository of umask 077 with an app of the test's own, and its image's name.

    The first `dev` builds the image.
    """
    found = copied(project, tmp_path_factory.mktemp("dev") / "tree")
    found = dataclasses.replace(found, image=f"{project.image}-tree", tags=("latest",))
    app = found.root / "app"
    app.joinpath("__init__.py").write_text(APP)
    app.joinpath("part.py").write_text("WORD = 'first'\n")
    app.joinpath("templates").mkdir()
    app.joinpath("templates/page.html").write_text("<p>a page</p>")
    app.joinpath("static").mkdir()
    app.joinpath("static/old.css").write_text("a {}")
    for path in (found.root, *found.root.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    yield found
    build.remove(found, using)


@pytest.fixture(scope="module")
def environment(using, tree):
    return {
        **os.environ,
        f"{PREFIX}IMAGE": tree.image,
        f"{PREFIX}ENGINE": using.command[0],
        "DOCKER_BUILDKIT": "0" if using.kind == "docker" else "",
    }


@pytest.fixture(scope="module")
def kept(tree, environment):
    """One that runs for all tests that only ask it."""
    found = Development(tree, environment)
    try:
        found.wait("answers at", 600)  # it builds
        yield found
    finally:
        code = found.end()
        print(found.said)
    assert code == 0


@pytest.fixture
def start(tree, using, environment):
    """Starts others, which end with the test; nothing may be left of them."""
    before = set(left(tree, using))
    started = []

    def begin(*flags, name="", image=tree.image, **options):
        name = name or f"{tree.image}-{secrets.token_hex(3)}"
        variables = environment | {f"{PREFIX}IMAGE": image}
        found = Development(tree, variables, f"--name={name}", *flags, **options)
        found.name = name
        started.append(found)
        return found

    yield begin
    for each in started:
        print(each.said)
        if each.process.poll() is None:
            each.end(signal.SIGTERM)
    until(lambda: set(left(tree, using)) <= before)
    assert set(left(tree, using)) <= before


@pytest.fixture
def file(tree):
    """Writes files of the tree, which are as they were after the test."""
    before = {}

    def write(name, text):
        path = tree.root / name
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        path.write_text(text)
        path.chmod(0o600)

    yield write
    for path, content in before.items():
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)


def test_an_edit_shows_with_the_next_request(kept, file):
    assert kept.get() == (200, "first")
    for number in range(3):
        file("app/part.py", f"WORD = 'edit {number}'\n")
        assert kept.get() == (200, f"edit {number}")
    file("app/templates/page.html", "<p>another page</p>")
    assert kept.get("page") == (200, "<p>another page</p>")
    file("app/static/new.css", "b {}")
    assert kept.get("static/new.css") == (200, "b {}")
    file("app/static/old.css", "c {}")
    assert kept.get("static/old.css") == (200, "c {}")


def test_an_edit_that_no_request_follows_is_loaded_too(kept, file):
    file("app/part.py", "print('loaded at', 'once'); WORD = 'x'\n")
    kept.wait("loaded at once")


def test_a_request_that_waits_for_the_new_code_is_not_lost(kept, file):
    """As of a page whose parts are asked for at once."""
    file("app/part.py", "import time; time.sleep(1); WORD = 'slow'\n")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(kept.get())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, "slow")] * 8


@pytest.mark.parametrize(
    ("broken", "shown"),
    [
        ("WORD = (\n", "SyntaxError"),
        ("import nowhere\n", "No module named &#39;nowhere&#39;"),
        ("raise SystemExit('away')\n", "sys.exit(&#39;away&#39;)"),
    ],
)
def test_what_is_broken_shows_in_the_browser_and_mends_itself(
    kept, file, broken, shown
):
    file("app/part.py", broken)
    code, page = kept.get()
    assert code == 500
    assert shown in page
    assert "Werkzeug Debugger" in page
    file("app/part.py", "WORD = 'mended'\n")
    assert kept.get() == (200, "mended")


def test_a_module_that_is_missing_mends_what_asks_for_it(kept, file):
    file("app/part.py", "from app.other import WORD\n")
    assert kept.get()[0] == 500
    file("app/other.py", "WORD = 'other'\n")
    assert kept.get() == (200, "other")


def test_the_debugger_works_and_prints_its_pin(kept):
    code, page = kept.get("fails")
    assert code == 500
    assert "KeyError" in page
    assert "Debugger PIN: " in kept.said
    code, script = kept.get("?__debugger__=yes&cmd=resource&f=debugger.js")
    assert code == 200
    assert "debugger" in script


def test_a_process_that_ends_is_told_and_starts_again(kept, file):
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        kept.get("dies")
    assert kept.get()[0] == 200
    kept.wait("ended with exit code 7; the next request starts it")
    # At its import: the request is refused, the next one tries anew.
    for code in (0, 3, 8):  # 3 is Werkzeug's own for a reload
        file("app/part.py", f"import os; os._exit({code})\n")
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            kept.get()
        kept.wait(f"ended with exit code {code}")
    file("app/part.py", "WORD = 'again'\n")
    assert kept.get() == (200, "again")


def test_the_app_is_the_images_user_in_debug_mode_and_knows_no_key(kept):
    found = json.loads(kept.get("environ")[1])
    assert found["uid"] == 65532
    assert found["debug"] is True
    assert found["environ"]["HOME"] != "/root"
    assert program.KEY not in found["environ"]


def test_what_needs_a_build_is_told_in_one_line(tree, kept, file):
    for name, told in (
        ("requirements.in", "requirements.txt is out of step with requirements.in"),
        ("base.in", "base.lock is out of step with base.in"),
        ("Dockerfile", "Dockerfile changed"),
    ):
        before = (tree.root / name).read_text()
        other = before + ("click\n" if name == "requirements.in" else "less\n")
        file(name, f"{before}# more\n" if name == "Dockerfile" else other)
        kept.wait(told)
        [line] = {line for line in kept.said.splitlines() if told in line}
        assert "build again" in line
        file(name, before)
    # A file of the app's is no such thing.
    assert "part.py changed: build" not in kept.said


def inside(using, tree, words, *options):
    """What a command writes in another container of the image."""
    done = using.run(
        "run", "--rm", "--no-healthcheck", "--entrypoint=python3", *options,
        f"{tree.image}:latest", "-c", *words,
    )  # fmt: skip
    return done.stdout.strip()


REACH = """
import socket, sys
for address in sys.argv[2:]:
    peer = socket.create_connection((address, int(sys.argv[1])), 5)
    peer.settimeout(10)
    peer.sendall(b"GET / HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n" + b"X: y\\r\\n" * 20)
    try:
        peer.sendall(b"\\r\\n")
        print(peer.recv(4096))
    except ConnectionError:
        print(b"")
"""


def addresses(using, name):
    form = (
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}} "
        "{{.NetworkSettings.IPAddress}}"
    )
    found = using.run("container", "inspect", "--format", form, name).stdout.split()
    return list(dict.fromkeys(found))


def test_no_other_container_reaches_it(using, tree, kept):
    port = str(tree.container_port)
    found = addresses(using, kept.name)
    assert found
    # It is connected to, and gets nothing.
    answers = inside(using, tree, (REACH, port, *found)).splitlines()
    assert answers == ["b''"] * len(found)
    # Nor does the port on the host lead there without the key.
    published = session._published(tree, using, kept.name)
    with socket.create_connection(("127.0.0.1", published)) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n" + b" " * 100)
        with contextlib.suppress(ConnectionError):
            assert peer.recv(100) == b""
    assert kept.get()[0] == 200


def test_nor_one_of_the_same_network(using, tree, start):
    network = f"{tree.image}-{secrets.token_hex(2)}"
    using.run("network", "create", f"--label={tree.label}", network)
    try:
        mine = start(f"--network={network}")
        mine.wait("answers at")
        assert mine.get()[0] == 200
        words = (REACH, str(tree.container_port), *addresses(using, mine.name))
        assert inside(using, tree, words, f"--network={network}") == "b''"
        assert mine.end() == 0
    finally:
        using.run("network", "rm", network, check=False)


def test_volumes_are_the_services_and_the_tree_stays_as_it_is(using, tree, start):
    volume = f"{tree.image}-{secrets.token_hex(2)}"
    kept = tree.root / "data"
    kept.mkdir(mode=0o755)
    os.chown(kept, 65532, 65532)
    try:
        mine = start(f"--volume={volume}:/srv/instance", "--volume=./data:/data")
        mine.wait("answers at")
        assert mine.get("write?path=/srv/instance/x") == (200, "65532")
        assert mine.get("write?path=/data/x") == (200, "65532")
        code, page = mine.get("write?path=/srv/app/x")
        assert code == 500
        assert "Read-only file system" in page
        assert mine.end() == 0
        assert not (tree.root / "instance").exists()
        assert (kept / "x").stat().st_uid == 65532
        assert volume in volumes.owned(tree, using)
        own = dataclasses.replace(tree, volumes=(f"{volume}:/srv/instance",))
        # The service's container writes on.
        program = "open('/srv/instance/x', 'a')"
        words = ("python3", "-c", program)
        assert container.execute(own, using, f"{tree.image}:latest", words) == 0
    finally:
        using.run("volume", "rm", volume, check=False)
        for path in (kept / "x", kept):
            path.unlink() if path.is_file() else path.rmdir()


def test_variables_are_those_of_run(start, tree, file):
    file("dev-variables", "FROM_FILE=1\nFLASK_DEBUG=0\n")
    mine = start("--env-file=dev-variables", "--env=GIVEN=a b", "--memory=96m")
    mine.wait("answers at")
    found = json.loads(mine.get("environ")[1])["environ"]
    assert (found["FROM_FILE"], found["GIVEN"]) == ("1", "a b")
    assert found["FLASK_DEBUG"] == "1"


def test_secrets_are_those_of_run(using, start, tree, file):
    file("db-password", "hunter2")
    os.chown(tree.root / "db-password", 65532, 65532)
    table = '\n[tool.containerize.secrets]\ndb = "db-password"\n'
    file("pyproject.toml", (tree.root / "pyproject.toml").read_text() + table)
    mine = start()
    mine.wait("answers at", timeout=300)
    read = "print(open('/run/secrets/db').read())"
    done = using.run("exec", mine.name, "python3", "-c", read)
    assert done.stdout.strip() == "hunter2"
    assert mine.end() == 0


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGHUP", "SIGKILL", "terminal"])
def test_it_ends_and_leaves_nothing(using, tree, start, how):
    mine = start(terminal=how == "terminal")
    mine.wait("answers at")
    assert mine.get()[0] == 200
    if how == "Ctrl-C":
        assert mine.end() == 0
        assert "Traceback" not in mine.said
    elif how == "terminal":
        assert mine.close_terminal() != 0
    else:
        assert mine.end(getattr(signal, how)) != 0
    until(lambda: mine.name not in left(tree, using))
    assert mine.name not in left(tree, using)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        probe.bind(("127.0.0.1", mine.port))


def test_ctrl_c_on_a_terminal_ends_it(start):
    mine = start(terminal=True)
    mine.wait("answers at")
    os.write(mine.leader, b"\x03")
    assert mine.process.wait(60) == 0, mine.said


def test_a_breakpoint_has_the_terminal(start, file):
    file("app/part.py", "breakpoint(); WORD = 'stopped'\n")
    mine = start(terminal=True)
    mine.wait("(Pdb)")
    os.write(mine.leader, b"print(6 * 7)\nc\n")
    mine.wait("42")
    assert mine.get() == (200, "stopped")


def test_stop_ends_it(tree, start, environment):
    mine = start()
    mine.wait("answers at")
    stop = [sys.executable, "-m", "invoke", "stop", f"--name={mine.name}"]
    subprocess.run(stop, cwd=tree.root, env=environment, check=False)
    assert mine.process.wait(60) == 0, mine.said


def test_a_port_or_name_that_is_taken_is_one_line(using, tree, kept, start):
    port, name = unused_port(), f"{tree.image}-service"
    container.run(tree, using, f"{tree.image}:latest", port=port, name=name)
    try:
        mine = start(f"--port={port}")
        assert mine.process.wait(60) == 1
        said = f"dev: port {port} is taken by the container {name}: "
        mine.wait(f"{said}end it (`invoke stop --name {name}`)")
        other = start(f"--port={port}", image=f"{tree.image}-other")
        assert other.process.wait(60) == 1
        other.wait(f"{said}free it, or choose another (--port)")
        forms = ("container", "inspect", "--format", "{{json .Config.Env}}", name)
        assert (
            "FLASK_DEBUG" not in using.run(*forms).stdout
        )  # nothing of it is in `run`
        look = "import glob; print(glob.glob('/*dev*.py'))"
        assert using.run("exec", name, "python3", "-c", look).stdout == "[]\n"
    finally:
        using.discard(name)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        mine = start(f"--port={port}")
        assert mine.process.wait(60) == 1
        mine.wait(f"dev: port {port} is taken: free it, or choose another (--port)")
    again = start(name=kept.name)
    assert again.process.wait(60) == 1
    again.wait(f"runs already: `invoke stop --name {kept.name}` ends it")
    assert kept.get()[0] == 200


def test_an_app_that_is_not_found_is_told(start):
    mine = start("--env=FLASK_APP=nowhere")
    mine.wait("dev: Could not import 'nowhere'")
    assert "Traceback" not in mine.said
    assert "Could not import" in mine.get()[1]


def test_a_tree_that_the_engine_does_not_see_is_one_line(using, tree, kept, tmp_path):
    empty = dataclasses.replace(tree, root=tmp_path)
    for root, told in ((tmp_path, f"shows {tmp_path} empty"), (tmp_path / "x", "see")):
        with pytest.raises(Problem, match=told):
            session.serve(
                dataclasses.replace(empty, root=root), using, f"{tree.image}:latest",
                name=f"{tree.image}-empty", port=unused_port(), environment={},
                look=dict, on_line=print,
            )  # fmt: skip
    until(lambda: left(tree, using) == [kept.name])
    assert left(tree, using) == [kept.name]


def test_an_edit_of_the_app_alone_builds_nothing(tree, using, kept, file, start):
    file("app/part.py", "WORD = 'no build'\n")
    mine = start()
    mine.wait("answers at")
    assert mine.get() == (200, "no build")
    assert " build " not in mine.said
    loaded = settings.load(tree.root, {f"{PREFIX}IMAGE": tree.image})
    assert build.carries(loaded, using, f"{tree.image}:latest")
    assert not build.is_current(loaded, using, f"{tree.image}:latest")
    file("Dockerfile", (tree.root / "Dockerfile").read_text() + "# more\n")
    assert not build.carries(loaded, using, f"{tree.image}:latest")
