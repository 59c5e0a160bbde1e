"""Each text was written by a real engine: Docker 20.10 to 28, Podman 4.3."""

import grp
import os
import pwd
import socket

import pytest

from containerize.engines.complaints import Complaint, NoEngine, explain

DAEMON = "docker: Error response from daemon: "


def told(message, kind="docker", subcommand="run", container=""):
    return explain(Complaint(kind, subcommand, message, lambda port: container))


@pytest.mark.parametrize(
    ("kind", "message", "meaning"),
    [
        (
            "docker",
            f'{DAEMON}Conflict. The container name "/web" is already in use by '
            'container "25907e". You have to remove (or rename) that container to be '
            "able to reuse that name.\n\nRun 'docker run --help' for more information",
            "a container called web is there already",
        ),
        (
            "podman",
            'Error: creating container storage: the container name "web" is already '
            "in use by 101c87. You have to remove that container to be able to reuse "
            "that name: that name is already in use",
            "a container called web is there already",
        ),
        (
            "docker",
            'Error response from daemon: invalid mount config for type "bind": bind '
            "source path does not exist: /nowhere/x",
            "docker does not see /nowhere/x, which is to be mounted",
        ),
        (
            "podman",
            "Error: statfs /nowhere/x: no such file or directory",
            "podman does not see /nowhere/x, which is to be mounted",
        ),
        (
            "docker",
            "Unable to find image 'no:x' locally\n"
            f'{DAEMON}Get "https://registry.invalid/v2/": no such host',
            "docker has no image no:x: `invoke build` makes it",
        ),
        (
            "docker",
            "Error response from daemon: no such image: no: No such image: no:latest",
            "docker has no image no:",
        ),
        (
            "podman",
            'Error: short-name "no:x" did not resolve to an alias and no '
            "unqualified-search registries are defined",
            "podman has no image no:x: `invoke build` makes it",
        ),
        (
            "podman",
            "Error: inspecting object: no: image not known",
            "podman has no image no: `invoke build` makes it",
        ),
        (
            "docker",
            "Error response from daemon: No such container: web",
            "docker has no container web: `invoke ps` lists them",
        ),
        (
            "podman",
            'Error: no container with name or ID "web" found: no such container',
            "podman has no container web: `invoke ps` lists them",
        ),
        (
            "docker",
            "Error processing tar file(exit status 1): write /f: no space left on "
            "device",
            "the disk is full where docker keeps its data",
        ),
        (
            "docker",
            "ERROR: BuildKit is enabled but the buildx component is missing or broken.",
            "install docker-buildx or unset DOCKER_BUILDKIT",
        ),
        (
            "podman",
            "Error: OCI runtime error: crun: cgroups in hybrid mode not supported, "
            "drop all controllers from cgroupv2",
            "install runc",
        ),
        (
            "podman",
            'Error: /usr/bin/slirp4netns failed: "open(\\"/dev/net/tun\\"): No such '
            'file or directory\\nWARNING: Support for seccomp is experimental\\n"',
            "/dev/net/tun, which is missing or closed here: `sudo modprobe tun`",
        ),
        (
            "docker",
            'error during connect: Get "https://127.0.0.1:9/v1.50/version": tls: '
            "failed to verify certificate: x509: certificate signed by unknown "
            "authority",
            "cannot be reached by TLS: tls: failed to verify certificate: x509: cert",
        ),
        (
            "docker",
            "Error response from daemon: Client sent an HTTP request to an HTTPS "
            "server.",
            "cannot be reached by TLS: Client sent an HTTP request",
        ),
    ],
)
def test_meaning(kind, message, meaning):
    problem = told(message, kind)
    assert meaning in str(problem)
    assert "\n" not in str(problem)
    assert not isinstance(problem, NoEngine)


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ("Cannot connect to the Docker daemon at unix:///a.sock. Is it running?", " at unix:///a.sock:"),
        ("failed to connect to the docker API at unix:///a.sock; check it", " at unix:///a.sock:"),
        ("error during connect: Cannot connect to the Docker daemon.", "answers:"),
    ],
)  # fmt: skip
def test_daemon_down_can_be_helped_by_installing(message, where):
    problem = told(message)
    assert isinstance(problem, NoEngine)
    assert where in str(problem)


def test_daemon_down_that_is_named_is_not_replaced():
    message = "Cannot connect to the Docker daemon at tcp://a:1. Is it running?"
    complaint = Complaint(
        "docker", "ps", message, lambda _: "", "DOCKER_HOST=tcp://a:1"
    )
    problem = explain(complaint)
    assert not isinstance(problem, NoEngine)
    assert str(problem) == (
        "no Docker daemon answers at tcp://a:1, which DOCKER_HOST=tcp://a:1 names: "
        "start it there, or mend or unset DOCKER_HOST"
    )


def test_a_registry_without_tls_is_no_engine_without():
    message = (
        "ERROR: pull x: tls: failed to verify certificate: x509: unknown authority"
    )
    assert "`docker build` failed" in str(told(message, subcommand="build"))


@pytest.mark.parametrize("subcommand", ["build", "pull"])
def test_what_a_registry_says_of_anothers_image(subcommand):
    # `invoke build` would not make it.
    reason = 'failed to resolve reference "no:x": no such host'
    said = str(told(f"ERROR: {reason}", subcommand=subcommand))
    assert said == f"`docker {subcommand}` failed: {reason}"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "docker",
            'OCI runtime create failed: exec: "nonsense": executable file not found '
            "in $PATH: unknown",
        ),
        ("podman", "Error: crun: executable file `nonsense` not found in $PATH"),
    ],
)
def test_a_command_that_is_missing_is_told_of_what_names_it(kind, message):
    said = "the image has no command nonsense: see its PATH, or name a path"
    assert str(told(message, kind, "run")) == said
    assert str(told(message, kind, "build")) == f"`{kind} build` failed: {said}"


def test_refused_names_the_group_that_owns_the_socket(tmp_path):
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))
        os.chown(path, -1, os.getgid())
        text = str(
            told(
                "Got permission denied while trying to connect to the Docker daemon "
                f'socket at unix://{path}: Get "http://x": dial unix {path}: connect: '
                "permission denied"
            )
        )
    assert f"at {path} refuses user" in text
    assert f"usermod -aG {grp.getgrgid(os.getgid()).gr_name} " in text


def test_port_is_taken_by_a_container():
    message = f"{DAEMON}Bind for 127.0.0.1:8080 failed: port is already allocated"
    assert "port 8080 is taken by the container web:" in str(
        told(message, container="web")
    )


def test_port_is_taken_by_a_process():
    message = "listen tcp4 127.0.0.1:8080: bind: address already in use"
    assert str(told(message, "podman")).startswith("port 8080 is taken: free it")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (f"{DAEMON}what is new\nSee 'docker run --help'.\n", "what is new"),
        ("unknown flag: --x\n\nUsage:  docker run\n\nRun 'docker …'", "unknown flag"),
        ('time="now" level=warning msg="x"\nError: broken\n', "broken"),
        ("", "it does not say why"),
        (
            "DEPRECATED: The legacy builder is deprecated and will be removed.\n"
            "            Install the buildx component to build images with BuildKit:\n"
            "            https://docs.docker.com/go/buildx/\n",
            "it does not say why",
        ),
    ],
)
def test_unknown_complaint_is_passed_on_in_one_line(message, said):
    assert str(told(message)).startswith(f"`docker run` failed: {said}")


def test_a_user_without_a_name_is_a_number(monkeypatch):
    # B14: getpwuid is asked where no variable says the name.
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    problem = told("dial unix /none.sock: connect: permission denied")
    assert f"at /none.sock refuses user {os.geteuid()}: add it to" in str(problem)
