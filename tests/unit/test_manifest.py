"""The verb `manifest`: no engine, no network, and nothing but YAML on stdout."""

import json
import os
import subprocess
import sys
import tarfile

import pytest
from ruamel.yaml import YAML

from containerize import build, settings
from containerize.image import canonical, index
from tests.conftest import ROOT

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.example/shop@{DIGEST}"
BOTH = 'architectures = ["amd64", "arm64"]'


def write(root, *lines):
    table = ["[tool.containerize]", 'image = "shop"', *lines]
    (root / "pyproject.toml").write_text("\n".join(table))


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    return tmp_path


# Python runs it first: to ask another host or program ends the process.
ALONE = """
import os, sys
def heed(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.exec"):
        os.write(2, f"{event} was called\\n".encode())
        os._exit(3)
sys.addaudithook(heed)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Where Python finds `ALONE`."""
    directory = tmp_path_factory.mktemp("alone")
    (directory / "sitecustomize.py").write_text(ALONE)
    return directory


def test_to_ask_another_program_is_seen(alone):
    command = [sys.executable, "-c", "import subprocess; subprocess.run(['true'])"]
    environment = os.environ | {"PYTHONPATH": str(alone)}
    answer = subprocess.run(
        command, env=environment, stderr=subprocess.PIPE, check=False
    )
    assert (answer.returncode, answer.stderr) == (3, b"subprocess.Popen was called\n")


@pytest.fixture
def manifest(root, alone):
    """Run it as a user does, but by itself."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CONTAINERIZE_")}
    path = {"PYTHONPATH": f"{alone}{os.pathsep}{ROOT}"}

    def run(*words, flags=(), **environment):
        return subprocess.run(
            [sys.executable, "-m", "containerize", *flags, "manifest", *words],
            cwd=root,
            env=kept | path | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def refused(answer):
    """The one line of what ended without a manifest."""
    assert (answer.returncode, answer.stdout) == (1, "")
    [line] = answer.stderr.splitlines()
    return line


def pushed(root, name=IMAGE):
    (root / "dist").mkdir(exist_ok=True)
    (root / "dist/shop.push.json").write_text(json.dumps({"reference": name}))


def read(answer):
    assert answer.returncode == 0, answer.stderr
    return YAML(typ="safe", pure=True).load(answer.stdout)


def test_it_prints_what_was_pushed_last_and_dry_the_same(manifest, root):
    pushed(root)
    (root / ".env").write_text("TOKEN=hunter2\n")
    answer = manifest("swarm", "--env-file", ".env", "--env", "A=1")
    service = read(answer)["services"]["shop"]
    assert service["image"] == IMAGE
    assert {"A", "TOKEN"} <= service["environment"].keys()
    assert "hunter2" not in answer.stdout
    assert answer.stderr == ""
    dry = manifest("swarm", "--env-file", ".env", "--env", "A=1", flags=["--dry"])
    assert (dry.stdout, dry.returncode) == (answer.stdout, 0)


def test_it_names_the_program_that_runs_it_but_changes_no_word_of_the_users(
    manifest, root
):
    pushed(root)
    write(root, '[tool.containerize.commands]\nworker = "python3 -m invoke build"')
    answer = manifest("swarm")
    assert "#   containerize manifest swarm | docker stack deploy" in answer.stdout
    worker = read(answer)["services"]["shop-worker"]
    assert worker["entrypoint"] == ["python3", "-m", "invoke", "build"]


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["swarm"], {}, "manifest: nothing was pushed from here yet: `containerize pu"),
        (["kubernetes"], {}, "manifest: nothing was pushed from here yet"),
        (["compose"], {}, "'compose' is none: say manifest swarm, or manifest kub"),
        (["swarm", "--image", "registry.example/shop:1"], {}, "names no digest"),
        (["swarm", "--image", ""], {}, "--image is empty"),
        (["swarm", "--env", "A"], {}, "--env A: there is no such variable here"),
        (["swarm", "--env-file", "no"], {}, "there is no file"),
        (["swarm"], {"CONTAINERIZE_REPLICAS": "0"}, "replicas must be at least 1"),
        (["swarm"], {"CONTAINERIZE_SECRETS": "a=b"}, "cannot be set by a variable"),
    ],
)
def test_bad_input_is_one_line(manifest, root, words, environment, said):
    assert said in refused(manifest(*words, **environment))


def test_without_a_kind_it_asks_for_one(manifest, root):
    answer = manifest()
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "required positional arguments: 'kind'" in answer.stderr


@pytest.fixture
def archive(root, save):
    """Make an archive of an image in dist/, as a build leaves it; its digest."""

    def archive(architecture):
        one = settings.load(root, {"CONTAINERIZE_ARCHITECTURE": architecture})
        layer = [(tarfile.TarInfo("own"), architecture.encode())]
        saved = save(root / "saved.tar", layer, architecture=architecture)
        target = build.archive_path(one)
        target.parent.mkdir(exist_ok=True)
        canonical.canonicalize(saved, target, time=0, labels={}, references=["shop:1"])
        return canonical.read_digests(target).manifest

    return archive


@pytest.mark.parametrize("several", [False, True])
def test_it_says_if_what_is_built_is_not_what_was_pushed(
    manifest, root, archive, several
):
    write(root, BOTH if several else 'architecture = "amd64"')
    held = archive("amd64")
    if several:
        archive("arm64")
        own = settings.load(root, {})
        each = [build.archive_path(one) for one in own.for_each()]
        held = index.write(each, build.index_path(own), time=0, references=["shop:1"])
    pushed(root, f"registry.example/shop@{held}")
    assert manifest("swarm").stderr == ""
    pushed(root)
    answer = manifest("swarm")
    assert read(answer)["services"]["shop"]["image"] == IMAGE
    [line] = answer.stderr.splitlines()
    assert line == (
        f"note: {IMAGE} is not what dist/ holds, {held}: `containerize push` sends that"
    )


def test_what_cannot_be_written_whole_is_one_line(root):
    pushed(root)
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "containerize", "manifest", "swarm"],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert answer.returncode == 1
    assert answer.stderr == (
        "manifest: cannot write to stdout: No space left on device\n"
    )


def test_secrets_are_for_a_pipe_and_need_no_image(manifest, root):
    answer = manifest("kubernetes", "--secrets", "--env", "TOKEN=hunter2")
    assert read(answer)["data"] == {"TOKEN": "aHVudGVyMg=="}
    assert "docker secret create" in refused(manifest("swarm", "--secrets"))
    nothing = refused(manifest("kubernetes", "--secrets"))
    assert "nothing that a Secret would hold" in nothing


def test_secrets_are_not_shown_on_a_terminal(root):
    terminal, side = os.openpty()
    command = (sys.executable, "-m", "containerize", "manifest", "kubernetes")
    answer = subprocess.run(
        [*command, "--secrets", "--env", "TOKEN=hunter2"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(side)
    os.close(terminal)
    assert answer.returncode == 1
    [line] = answer.stderr.decode().splitlines()
    assert line.endswith("--secrets writes values: add `| kubectl apply -f -`")
