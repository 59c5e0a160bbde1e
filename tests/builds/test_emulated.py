"""Images for another processor, proved by that processor's own interpreter under qemu.

By hand, in a directory that the image's layers are unpacked in: no kernel need know of
it (binfmt_misc), and the tool itself uses no emulation.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest

from containerize import build
from containerize.engines import engine
from containerize.fetch import inputs
from containerize.lock import locks
from containerize.pack import layers
from tests.builds.conftest import OTHER
from tests.conftest import ROOT, Quiet, copied, taking_turns, unused_port

# One engine's will do: what each makes is the same (test_architectures).
pytestmark = pytest.mark.parametrize("using", ["docker"], indirect=True)

QEMU = {"arm64": "qemu-aarch64-static", "amd64": "qemu-x86_64-static"}[OTHER]
# Who is not root is it in a user namespace of their own.
AS_ROOT = ["unshare", "--user", "--map-root-user"] if os.geteuid() else []
CHROOT = [*AS_ROOT, engine.which("chroot")]
NUMBERS = "from flask import Flask\nimport lxml, numpy, PIL\napp = Flask(__name__)\n"


@pytest.fixture(scope="module")
def qemu():
    """Debian's qemu, as one program that needs nothing beside it."""
    root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    with taking_turns():
        if not shutil.which(QEMU):
            install = ["apt-get", "install", "--yes", "--no-install-recommends"]
            subprocess.run([*root, *install, "qemu-user-static"], check=True)
    return Path(shutil.which(QEMU))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("places")


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """An image's layers, and its config's `config`."""

    top: Path
    config: dict

    @property
    def environment(self):
        return dict(item.split("=", 1) for item in self.config["Env"])

    def compiled(self):
        """The compiled modules, by path."""
        return contents(self.top / "pycache")


def contents(directory):
    """What the files below a directory hold, by path."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def same(made, expected):
    """Whether there are the same modules; shows where the first byte differs."""
    for path in sorted(made.keys() & expected.keys()):
        one, two = made[path], expected[path]
        if one != two:
            pairs = enumerate(zip(one, two, strict=False))
            at = next((n for n, (a, b) in pairs if a != b), min(len(one), len(two)))
            part = slice(max(at - 24, 0), at + 24)
            print(f"{path}, {len(one)} and {len(two)} bytes, from {at}:")
            print(one[part], two[part], sep="\n")
    return made == expected


def unpack(archive, top):
    """The one image of an archive, unpacked in `top`."""
    with tarfile.open(archive) as tar:

        def blob(digest):
            return tar.extractfile(f"blobs/{digest.replace(':', '/')}")

        [image] = json.load(tar.extractfile("index.json"))["manifests"]
        manifest = json.load(blob(image["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"])) as found:
                found.extractall(top, filter="fully_trusted")
        return Unpacked(top, json.load(blob(manifest["config"]["digest"]))["config"])


@contextlib.contextmanager
def stage(image, qemu, settings, other=None):
    """What the Dockerfile's stages that compile have, in the unpacked image.

    Compiled modules are not there yet. An interpreter that has read its own from them
    holds other strings, and so compiles some modules to other bytes.
    """
    layers.pack(settings)  # what lies there may be another test's
    tmp, pycache = image.top / "tmp", image.top / "pycache"
    aside = pycache.rename(image.top / "pycache.aside")
    try:
        shutil.copy(qemu, image.top / qemu.name)
        shutil.copy(layers.COMPILE, tmp)
        for name in ("deps", "service", "app"):
            with tarfile.open(settings.build_dir / f"{name}.tar") as tar:
                tar.extractall(tmp / name, filter="fully_trusted")
        if other:  # only the root file system: the first stage has no more
            with tarfile.open(settings.build_dir / "rootfs.tar") as tar:
                tar.extractall(tmp / "image", filter="fully_trusted")
        yield tmp
    finally:
        aside.rename(pycache)
        for path in tmp.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def compile_by_emulation(image, qemu, settings, other=None, without=()):
    """What the Dockerfile's own steps make when `image`'s interpreter runs them.

    But for the modules of the trees `without`: under qemu each takes its time.
    """
    text = (ROOT / "Dockerfile").read_text("utf-8")
    steps = re.findall(r"^RUN (\[.*?\])$", text.replace("\\\n", ""), re.MULTILINE)
    assert len(steps) == 2
    environment = image.environment | {"PYTHONHASHSEED": "0", "PYTHONPATH": ""}
    found = {}
    with stage(image, qemu, settings, other) as tmp:
        for step in steps:
            program, *arguments = json.loads(step)
            start = arguments.index("/tmp/compile_modules.py") + 1
            pairs = zip(arguments[start::2], arguments[start + 1 :: 2], strict=True)
            kept = [pair for pair in pairs if pair[0] not in without]
            arguments[start:] = [word for pair in kept for word in pair]
            emulated = [f"/{qemu.name}", f"/usr/bin/{program}", *arguments]
            subprocess.run([*CHROOT, image.top, *emulated], env=environment, check=True)
            for made in (tmp / "compiled").rglob("pycache"):
                found |= contents(made)
            shutil.rmtree(tmp / "compiled")
    return found


@pytest.fixture(scope="module")
def theirs(foreign, place):
    """The repository's image for the other processor, unpacked."""
    return unpack(foreign.archive, place / "foreign")


def test_modules_compiled_across_are_those_compiled_natively(
    theirs, using, project, qemu
):
    made = compile_by_emulation(theirs, qemu, project.for_architecture(OTHER))
    assert len(made) > 700
    assert same(made, theirs.compiled())


def test_another_host_compiles_the_same_for_this_processor(
    theirs, built, using, project, qemu, place
):
    """What a host of the other processor would make of this one's image."""
    ours = unpack(built.archive, place / "ours")
    made = compile_by_emulation(theirs, qemu, project, other=True)
    assert same(made, ours.compiled())


def test_the_app_of_a_foreign_image_answers(theirs, using, qemu):
    port = unused_port()
    entry = theirs.config["Entrypoint"]
    shutil.copy(qemu, theirs.top / qemu.name)
    environment = theirs.environment | {"SERVED_PORT": str(port)}
    user = [] if AS_ROOT else [f"--userspec={theirs.config['User']}"]
    program = [f"/{qemu.name}", f"/usr/bin/{entry[0]}", *entry[1:]]
    with subprocess.Popen(
        [*CHROOT, *user, theirs.top, *program], env=environment
    ) as process:
        try:
            assert b"Hello World from Flask" in asked(f"http://127.0.0.1:{port}/")
        finally:
            process.terminate()
    assert process.returncode == 0


def asked(url):
    """What a URL answers once something listens; it has two minutes to begin."""
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as page:
                return page.read()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def test_wheels_of_compiled_code_are_no_other(using, project, qemu, tmp_path):
    """numpy, lxml and Pillow: modules beside libraries for one processor."""
    made = copied(project, tmp_path / "repository")
    (made.root / "requirements.in").write_text("flask\nnumpy\nlxml\npillow\n")
    (made.root / "app/__init__.py").write_text(NUMBERS)
    locks.lock(made, upgrade=False, progress=Quiet())
    settings = made.for_architecture(OTHER)
    inputs.fetch(settings, progress=Quiet())
    image = build.build(settings, using, output=tmp_path / "image.tar")
    theirs = unpack(image.archive, tmp_path / "image")
    native = compile_by_emulation(theirs, qemu, settings, without=("/",))
    wheels = {
        path: made
        for path, made in theirs.compiled().items()
        if "/dist-packages/" in path
    }
    assert all(
        any(name in path for path in wheels) for name in ("numpy", "lxml", "PIL")
    )
    assert same({path: native[path] for path in wheels}, wheels)
