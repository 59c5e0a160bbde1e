"""What is pushed is what engines pull, by its digest, and what runs."""

import dataclasses
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from containerize.engines import container
from containerize.image import canonical
from containerize.publish import push as pushing
from containerize.publish.reference import Reference
from tests import registries
from tests.conftest import Quiet
from tests.registries import PASSWORD, USER


@pytest.fixture(scope="module")
def registry():
    with registries.registry() as made:
        yield made


@dataclasses.dataclass(frozen=True)
class Pushed:
    archive: Path
    digests: canonical.ImageDigests
    reference: Reference


@pytest.fixture(scope="module")
def pushed(built, project, registry, tmp_path_factory):
    """An image of our own: Podman drops the health check of one that it pulls."""
    archive = tmp_path_factory.mktemp("pushed") / "image.tar"
    label, _, value = project.label.partition("=")
    labels = {label: value, "pushed": "1"}
    digests = canonical.canonicalize(
        built.archive, archive, labels=labels, references=["sample:1"], time=1
    )
    wanted = pushing.targets(project, f"{registry.host}/team/sample", ["1"])
    done = pushing.push(
        project, archive, wanted, progress=Quiet(), expected=digests.manifest
    )
    return Pushed(archive, digests, done.reference)


def insecure(using):
    """What makes an engine do without TLS; Docker does on loopback."""
    return ["--tls-verify=false"] if using.kind == "podman" else []


def answer(port):
    """What the app says at `/`, as soon as it does."""
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
                return response.read().decode()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_it_is_pulled_by_its_digest_and_runs(using, project, pushed, free_port):
    reference, digests = str(pushed.reference), pushed.digests
    assert pushed.reference.digest == digests.manifest
    name = f"{project.image}-pulled"
    using.run("pull", *insecure(using), reference)
    try:
        assert using.identifier(reference) in (digests.config, digests.manifest)
        launch = container.Launch(
            settings=project,
            reference=reference,
            name=name,
            port=free_port,
            environment={},
        )
        using.run(*launch.command())
        assert "Hello" in answer(free_port)
    finally:
        using.discard(name)
        using.run("rmi", reference, check=False)


def test_skopeo_copies_the_same_bytes(pushed, tmp_path):
    skopeo = registries.require("skopeo", "skopeo")
    copied = tmp_path / "copied.tar"
    subprocess.run(
        [
            *(skopeo, "copy", "--quiet", "--preserve-digests"),
            *("--src-tls-verify=false", f"docker://{pushed.reference}"),
            f"oci-archive:{copied}",
        ],
        check=True,
    )
    assert canonical.read_digests(copied) == canonical.read_digests(pushed.archive)


def test_an_engine_logs_in_and_we_push(using, project, built, tmp_path, monkeypatch):
    """With the files that the engine's own client leaves."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    if using.kind == "docker":
        monkeypatch.delenv("REGISTRY_AUTH_FILE")
    auth = registries.htpasswd(tmp_path / "htpasswd")
    with registries.registry(auth=auth) as guarded:
        login = ["login", *insecure(using), "--username", USER, "--password-stdin"]
        using.run(*login, guarded.host, input=PASSWORD.encode())
        kept = next(tmp_path.glob("docker/config.json"), tmp_path / "auth.json")
        assert guarded.host in json.loads(kept.read_text())["auths"]
        mine = dataclasses.replace(project, root=tmp_path)
        wanted = pushing.targets(mine, f"{guarded.host}/sample", ["1"])
        pushing.push(mine, built.archive, wanted, progress=Quiet())
        assert guarded.tag("sample", "1") == built.digests.manifest
