"""A base image of one's own, pulled by its digest from a registry on loopback."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading

import pytest

from containerize import build
from containerize.errors import Problem
from containerize.fetch import bases, inputs
from containerize.image import archive, index
from containerize.settings import this_machine
from tests.builds.conftest import OTHER
from tests.conftest import Quiet


@dataclasses.dataclass
class Registry:
    """As much of the OCI distribution spec as a pull by digest asks for."""

    blobs: dict = dataclasses.field(default_factory=dict)
    host: str = ""

    def put(self, content):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"digest": digest, "size": len(content)}

    def take(self, image, layer=b""):
        """An image, with one layer more if it is given; returns its descriptor."""
        with tarfile.open(image.archive) as archive:
            for member in archive:
                if member.isfile() and member.name.startswith("blobs/"):
                    self.put(archive.extractfile(member).read())
        # Of another author: Podman would take the pulled one for the one in its store,
        # and forget the health check, which OCI's format of an image does not have.
        config = json.loads(self.blobs[image.digests.config]) | {"author": "another"}
        manifest = json.loads(self.blobs[image.digests.manifest])
        if layer:
            diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
            config["rootfs"]["diff_ids"].append(diff_id)
            config["history"].append(config["history"][-1])
            packed = self.put(gzip.compress(layer))
            manifest["layers"].append(manifest["layers"][-1] | packed)
        manifest["config"] |= self.put(json.dumps(config).encode())
        platform = {key: config[key] for key in ("architecture", "os")}
        found = self.put(json.dumps(manifest).encode())
        return found | {"mediaType": manifest["mediaType"], "platform": platform}

    def name(self, descriptor):
        return f"{self.host}/base@{descriptor['digest']}"


@pytest.fixture
def registry():
    found = Registry()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            blob = found.blobs.get(self.path.rpartition("/")[2])
            body = b"{}" if self.path == "/v2/" else blob
            self.send_response(200 if body else 404)
            if blob and "/manifests/" in self.path:
                self.send_header("Content-Type", json.loads(blob)["mediaType"])
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        do_HEAD = do_GET  # noqa: N815 - as http.server names it

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.host = f"127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()


@pytest.fixture
def base(built, registry):
    """NAME@DIGEST of a base image: the project's, served from its archive."""
    return registry.name(registry.take(built))


@pytest.fixture
def own(project, foreign, tmp_path):
    """The project for both processors, with a cache of its own that has the wheels."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for architecture in project.image_architectures:
        for wheel in inputs.collect(project.for_architecture(architecture)).wheels:
            shutil.copy(wheel.path, cache)
    return dataclasses.replace(project, image=f"{project.image}-own", cache=str(cache))


def pull(using, *names):
    if using.kind == "podman":  # takes plain HTTP only where it is told to
        for name in names:
            using.run("pull", "--tls-verify=false", name)


def top(project, using, image):
    """What is at the top of an image's file system."""
    listing = "import os; print(*sorted(os.listdir('/')))"
    answer = using.run(
        "run", "--rm", f"--label={project.label}", "--network=none",
        "--entrypoint=python3", image.references[0], "-c", listing,
    )  # fmt: skip
    return answer.stdout


def test_the_app_stands_on_a_base_image_named_by_digest(
    built, base, using, project, tmp_path
):
    pull(using, base)
    alone = dataclasses.replace(project, architectures=())
    own = dataclasses.replace(alone, base_image=base, image=f"{project.image}-own")
    try:
        made = build.build(own, using, output=tmp_path / "own.tar")
        base_layers = len(built.digests.diff_ids)
        assert made.digests.diff_ids[:base_layers] == built.digests.diff_ids
        assert made.digests.manifest != built.digests.manifest
        # Nothing but that is at the top: no packed tar that holds nothing, as a file.
        assert top(own, using, made) == top(own, using, built)
    finally:
        build.remove(own, using)
        using.run("rmi", base, check=False)


def test_a_base_image_that_cannot_be_had_is_one_line(using, project, tmp_path):
    nowhere = f"127.0.0.1:1/base@sha256:{'0' * 64}"
    own = dataclasses.replace(project, base_image=nowhere, architectures=())
    with pytest.raises(Problem) as caught:
        build.build(own, using, output=tmp_path / "own.tar")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_each_processor_gets_its_own_of_an_index(
    built, foreign, own, using, registry, tmp_path
):
    manifests = [registry.take(foreign), registry.take(built)]
    both = {"schemaVersion": 2, "mediaType": archive.INDEX, "manifests": manifests}
    named = registry.name(registry.put(json.dumps(both).encode()))
    own = dataclasses.replace(own, base_image=named)
    with pytest.raises(Problem, match=r"lacks the index .* run `invoke fetch`"):
        build.build(own, using, output=tmp_path / "own.tar")
    found = {}
    try:
        for image in (built, foreign):
            one = own.for_architecture(built_for(image))
            inputs.fetch(one, progress=Quiet())
            pull(using, bases.reference(one), bases.reference(own))
            target = tmp_path / "own.tar"
            made = build.build(one, using, output=target)
            below = len(image.digests.diff_ids)
            assert made.digests.diff_ids[:below] == image.digests.diff_ids
            assert built_for(made) == built_for(image)
            found[built_for(image)] = made.digests.diff_ids[below:]
        # What a base image has compiled already is compiled to the same again.
        assert found[OTHER] == found[this_machine()]
    finally:
        build.remove(own, using)
        using.run("rmi", *map(registry.name, manifests), check=False)


def test_a_foreign_base_with_another_python_is_refused(
    built, foreign, own, using, registry, tmp_path
):
    changed = io.BytesIO()
    with tarfile.open(fileobj=changed, mode="w") as tar:
        content = b"\x003.13.0\0"
        program = tarfile.TarInfo("usr/bin/python3.13")
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
    names = {
        this_machine(): registry.name(registry.take(built)),
        OTHER: registry.name(registry.take(foreign, changed.getvalue())),
    }
    one = dataclasses.replace(own, base_image=names).for_architecture(OTHER)
    pull(using, *names.values())
    try:
        with pytest.raises(Problem, match=f"Python for {OTHER} is not of the version"):
            build.build(one, using, output=tmp_path / "own.tar")
        assert not (tmp_path / "own.tar").exists()
    finally:
        build.remove(one, using)
        using.run("rmi", *names.values(), check=False)


def test_a_base_image_for_another_processor_than_it_is_taken_for_is_refused(
    foreign, own, using, registry, tmp_path
):
    name = registry.name(registry.take(foreign))
    native = this_machine()
    one = dataclasses.replace(own, base_image={native: name, OTHER: name})
    one = one.for_architecture(native)
    pull(using, name)
    try:
        with pytest.raises(Problem, match=f"compiles no .* must be for {native}, the"):
            build.build(one, using, output=tmp_path / "own.tar")
        assert not (tmp_path / "own.tar").exists()
    finally:
        build.remove(one, using)
        using.run("rmi", name, check=False)


def built_for(image):
    return index.describe(image.archive).architecture
