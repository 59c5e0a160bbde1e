"""A base image of one's own, pulled by its digest from a registry on loopback."""

import dataclasses
import hashlib
import http.server
import json
import tarfile
import threading

import pytest

from containerize import build
from containerize.errors import Problem


@pytest.fixture
def base(built):
    """NAME@DIGEST of a base image: the project's, served from its archive."""
    with tarfile.open(built.archive) as archive:
        blobs = {
            "sha256:" + member.name.rpartition("/")[2]: archive.extractfile(
                member
            ).read()
            for member in archive
            if member.name.startswith("blobs/")
        }

    def put(content):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[digest] = content
        return digest

    # Of another author: Podman would take the pulled one for the one in its store, and
    # forget the health check, which OCI's format of an image does not have.
    config = json.loads(blobs[built.digests.config]) | {"author": "another"}
    content = json.dumps(config).encode()
    manifest = json.loads(blobs[built.digests.manifest])
    manifest["config"] |= {"digest": put(content), "size": len(content)}
    digest = put(json.dumps(manifest).encode())

    class Registry(http.server.BaseHTTPRequestHandler):
        """As much of the OCI distribution spec as a pull by digest asks for."""

        def do_GET(self):
            found = blobs.get(self.path.rpartition("/")[2])
            body = b"{}" if self.path == "/v2/" else found
            self.send_response(200 if body else 404)
            if found and "/manifests/" in self.path:
                self.send_header("Content-Type", json.loads(found)["mediaType"])
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        do_HEAD = do_GET  # noqa: N815 - as http.server names it

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}/base@{digest}"
        server.shutdown()


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
    if using.kind == "podman":  # takes plain HTTP only where it is told to
        using.run("pull", "--tls-verify=false", base)
    own = dataclasses.replace(project, base_image=base, image=f"{project.image}-own")
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
    own = dataclasses.replace(project, base_image=nowhere)
    with pytest.raises(Problem) as caught:
        build.build(own, using, output=tmp_path / "own.tar")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
