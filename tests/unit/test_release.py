"""What a release says of a Swarm, without one: nodes, tasks, reasons, the verb."""

import dataclasses

import pytest
from invoke import Config, Context, Exit

from containerize.deploy import cluster, once, release
from containerize.deploy.cluster import Node, Task
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.tasks import namespace

IMAGE = f"registry.example/shop@sha256:{'1' * 64}"


def node(name, **fields):
    known = {
        "identity": name * 25, "architecture": "amd64", "state": "ready",
        "active": True, "labels": {},
    }  # fmt: skip
    return Node(name=name, **known | fields)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "no node of the Swarm takes tasks"),
        ([node("a", active=False)], "no node of the Swarm takes tasks"),
        (
            [node("a"), node("b", state="down")],
            "not every node is ready: b is down: see to it, or leave it out: `docker "
            "node update --availability drain bbbbbbbbbbbb`",
        ),
        (
            [node("a", state="unknown"), node("b", state="disconnected")],
            "not every node is ready: a is unknown, b is disconnected: ",
        ),
        (
            [node("a"), node("b", architecture="armv7l")],
            "the image is for amd64, arm64, and b is armv7l: add it to the setting",
        ),
    ],
)
def test_a_node_that_a_release_would_fail_on_is_named(nodes, said):
    with pytest.raises(Problem, match=f"^{said}"):
        release.see_nodes(nodes, ("amd64", "arm64"))


def test_a_node_that_takes_no_tasks_may_be_down():
    drained = node("b", active=False, state="down", architecture="armv7l")
    release.see_nodes([node("a"), drained], ("amd64",))


def test_nodes_of_one_name_are_told_apart():
    about = {
        "Description": {"Hostname": "vm", "Platform": {"Architecture": "x86_64"}},
        "Status": {"State": "ready"},
        "Spec": {"Availability": "active"},
    }
    found = [cluster.node(about | {"ID": each * 25}, {"vm": 2}) for each in "ab"]
    assert [one.name for one in found] == ["vm (aaaaaaaaaaaa)", "vm (bbbbbbbbbbbb)"]
    assert {one.architecture for one in found} == {"amd64"}
    assert cluster.node(about | {"ID": "a"}, {"vm": 1}).name == "vm"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("task: non-zero exit (3)", 3, "ended with exit code 3"),
        (
            "task: non-zero exit (137): dockerexec: unhealthy container", 137,
            "ended with exit code 137: it was not healthy",
        ),
        ("No such image: x", 0, "did not start: No such image: x"),
        ("", 0, "ended with exit code 0"),
    ],
)  # fmt: skip
def test_how_a_task_ended(error, code, said):
    task = Task(
        identity="a", node="b", image=IMAGE, state="failed", wanted="shutdown",
        error=error, code=code,
    )  # fmt: skip
    assert task.end == said
    assert not task.runs
    assert dataclasses.replace(task, state="running", wanted="running").runs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # As daemons of Docker 20.10 and 28 write them.
        (
            'Error response from daemon: Get "https://r.example/v2/": dial tcp: lookup '
            "r.example on [::1]:53: read udp [::1]:48697->[::1]:53: read: connection "
            "refused",
            "no resolver there knows the host of r.example",
        ),
        (
            'Error response from daemon: Get "http://r.example/v2/": dial tcp '
            "127.0.0.1:1: connect: connection refused",
            "r.example does not answer there: see its address and the firewalls",
        ),
        (
            'Error response from daemon: Get "https://r.example/v2/": http: server gave'
            " HTTP response to HTTPS client",
            "r.example has no TLS, which a daemon must be told: insecure-registries in "
            "the daemon.json of each node",
        ),
        (
            'Error response from daemon: Get "https://r.example/v2/": x509: certificate'
            " signed by unknown authority",
            "its certificate is not trusted: put its CA into "
            "/etc/docker/certs.d/r.example/ca.crt of each node",
        ),
        (
            'Error response from daemon: Head "https://r.example/v2/shop/manifests/'
            'sha256:1": no basic auth credentials',
            "r.example wants to know who pulls: `docker login r.example` here, which "
            "the release passes on",
        ),
        (
            "Error response from daemon: manifest for r.example/shop@sha256:1 not "
            "found: manifest unknown: manifest unknown",
            "r.example has it no more: push it",
        ),
        ("something\nodd\x1b[1m", "odd\\x1b[1m"),
        ("", "it does not say why"),
    ],
)
def test_why_a_daemon_cannot_pull(text, said):
    assert once.reason("r.example", text) == said


def service(**fields):
    spec = {
        "Name": "shop_shop",
        "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}},
        "Mode": {"Replicated": {"Replicas": 3}},
    }
    return cluster.service({"ID": "a", "Spec": spec | fields})


def test_what_a_service_is_to_run():
    plain = service()
    assert (plain.digest, plain.replicas, plain.job) == (IMAGE[-71:], 3, False)
    assert (plain.monitor, plain.ports, plain.update) == (5, set(), "")
    assert service(UpdateConfig={"Monitor": 20_000_000_000}).monitor == 20
    everywhere = service(Mode={"Global": {}})
    assert (everywhere.replicas, everywhere.job) == (None, False)
    assert service(Mode={"GlobalJob": {}}).job
    ports = [
        {"PublishedPort": 80, "Protocol": "tcp", "PublishMode": "host"},
        {"PublishedPort": 53, "Protocol": "udp"},
        {"TargetPort": 9, "Protocol": "tcp"},
    ]
    published = service(EndpointSpec={"Ports": ports})
    assert published.ports == {(80, "tcp"), (53, "udp")}


@pytest.mark.parametrize(
    ("state", "policy", "mode", "content"),
    [
        ("running", None, "Replicated", True),
        ("complete", None, "Replicated", False),
        ("complete", "any", "Replicated", False),
        ("complete", "on-failure", "Replicated", True),
        ("complete", "none", "Replicated", True),
        ("failed", "none", "Replicated", False),
        ("complete", None, "ReplicatedJob", True),
    ],
)
def test_what_may_end(state, policy, mode, content):
    template = {"ContainerSpec": {"Image": IMAGE}}
    if policy:
        template["RestartPolicy"] = {"Condition": policy}
    found = service(TaskTemplate=template, Mode={mode: {}})
    task = Task(
        identity="a", node="b", image=IMAGE, state=state, wanted="running", error="",
        code=0,
    )  # fmt: skip
    assert found.content(task) is content


def engine(path, script):
    """An engine's command that is a shell's script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Engine("docker", (str(path),))


# As a manager of Docker 20.10 says it while the others choose.
ELECTION = "Error response from daemon: rpc error: code = Unknown desc = The swarm does"


def test_a_swarm_without_a_leader_is_asked_again(tmp_path):
    mark = tmp_path / "asked"
    script = f"[ -e {mark} ] && echo one two && exit; touch {mark}; echo '{ELECTION}"
    asked = engine(tmp_path / "docker", f"{script} not have a leader' >&2; exit 1")
    assert cluster.ask(asked, "service", "ls").split() == ["one", "two"]


def test_what_has_gone_is_nothing_and_what_fails_is_told(tmp_path):
    gone = engine(tmp_path / "gone", "echo 'Error: no such service: a' >&2; exit 1")
    assert cluster.ask(gone, "service", "ps", "a") == ""
    broken = engine(tmp_path / "broken", "echo 'Error: it is odd' >&2; exit 1")
    with pytest.raises(cluster.Unanswered, match="it is odd"):
        cluster.ask(broken, "service", "ls")


# --- The verb ----------------------------------------------------------------------

RELEASE = namespace.tasks["release"]
FLAGS = {
    "tag": [], "compose_file": [], "env": [], "stack": None, "before": None,
    "verify": False, "no_evidence": False, "env_file": None, "kubernetes": False,
    "engine": None,
}  # fmt: skip


def said(capsys, target, *, dry=False, **flags):
    context = Context(Config(overrides={"run": {"dry": dry}}))
    RELEASE(context, target=target, **FLAGS | flags)
    return capsys.readouterr().out


def test_dry_says_what_goes_where(capsys):
    pushed = said(capsys, "registry.example/shop", dry=True, tag=["1", "2"])
    assert pushed == (
        "Would push it, see that each node pulls registry.example/shop:1, "
        "registry.example/shop:2, and deploy it as the stack flask-introduction.\n"
    )
    there = said(capsys, IMAGE, dry=True, stack="shop")
    assert there == (
        f"Would see that each node pulls {IMAGE}, and deploy it as the stack shop.\n"
    )


def test_each_deployment_of_kubernetes_is_waited_for(capsys, tmp_path, monkeypatch):
    table = '[tool.containerize]\nimage = "shop"\ncommands = {worker = "python3 -V"}\n'
    (tmp_path / "pyproject.toml").write_text(table)
    monkeypatch.chdir(tmp_path)
    found = said(capsys, IMAGE, kubernetes=True).splitlines()
    assert found[-2:] == [
        f"kubectl rollout status deployment/{name} || "
        f"kubectl rollout undo deployment/{name}"
        for name in ("shop", "shop-worker")
    ]


@pytest.mark.parametrize("dry", [False, True])
def test_kubernetes_is_told_by_commands_alone(capsys, dry):
    rollout = (
        "kubectl rollout status deployment/flask-introduction || "
        "kubectl rollout undo deployment/flask-introduction"
    )
    found = said(capsys, "registry.example/shop", dry=dry, kubernetes=True, tag=["1"])
    assert found.splitlines() == [
        "invoke push registry.example/shop --tag=1",
        "invoke manifest kubernetes | kubectl apply -f -",
        rollout,
    ]
    given = {"env": ["A=b c"], "kubernetes": True}
    assert said(capsys, IMAGE, dry=dry, **given).splitlines() == [
        "invoke manifest kubernetes --secrets '--env=A=b c' | kubectl apply -f -",
        f"invoke manifest kubernetes --image={IMAGE} '--env=A=b c' | "
        "kubectl apply -f -",
        rollout,
    ]


@pytest.mark.parametrize(
    ("target", "flags", "text"),
    [
        ("shop", {}, "'shop' names no registry"),
        (IMAGE, {"tag": ["1"]}, "is there already: leave out --tag"),
        ("r.example/shop", {"before": "a 'b"}, "cannot be read: No closing quotation"),
        ("r.example/shop", {"before": " "}, "--before has no words"),
        ("r.example/shop", {"stack": ""}, "--stack is empty"),
        ("r.example/shop", {"kubernetes": True, "before": "a"}, "have no --before: "),
        (IMAGE, {"kubernetes": True, "compose_file": ["a"]}, "have no --compose-file"),
        (IMAGE, {"kubernetes": True, "stack": "a"}, "have no --stack: leave it out"),
    ],
)
def test_bad_flags_are_told_before_an_engine_is_asked(target, flags, text, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(Exit, match=text):
        RELEASE(Context(), target=target, **FLAGS | flags)


@pytest.mark.parametrize(
    ("said", "asked", "done"),
    [("update out of sequence", 3, True), ("no such service", 1, False)],
)
def test_a_change_that_swarm_has_come_before_is_asked_for_again(
    tmp_path, monkeypatch, said, asked, done
):
    """Swarm refuses a change of what has changed since it was read."""
    monkeypatch.setattr(cluster, "PAUSE", 0)
    calls, client = tmp_path / "calls", tmp_path / "client"
    client.write_text(
        f"#!/bin/sh\necho x >>{calls}\n[ $(wc -l <{calls}) -ge 3 ] && exit\n"
        f"echo 'rpc error: code = Unknown desc = {said}' >&2\nexit 1\n"
    )
    client.chmod(0o755)
    engine = Engine("docker", (str(client),))
    assert cluster.change(engine, "service", "rollback", "shop") is done
    assert calls.read_text().count("x") == asked
