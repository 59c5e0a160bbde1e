"""What orchestrators are told, before it is said in the words of one."""

import dataclasses
import json

import pytest

from containerize.deploy import workload
from containerize.errors import Problem
from containerize.publish import push
from containerize.settings import Settings

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.example/shop@{DIGEST}"


@pytest.fixture
def project(tmp_path):
    return Settings(root=tmp_path, image="shop")


def service(settings, **environment):
    return workload.workloads(settings, IMAGE, environment)[0]


def times(found):
    names = (workload.DRAIN_DELAY, workload.GRACE_PERIOD)
    return (*(found.own[name] for name in names), found.stop_seconds)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("15", "40", 45)),
        # Those in flight have 50 s as under `run`, though the setting stop-timeout
        # leaves it 30.
        ({"SERVED_GRACE_PERIOD": "50"}, ("15", "65", 70)),
        ({"SERVED_GRACE_PERIOD": "0.5"}, ("15", "15.5", 45)),
        # A delay that the file of variables says is part of its grace period.
        ({"SERVED_DRAIN_DELAY": "5"}, ("5", "25", 30)),
        ({"SERVED_DRAIN_DELAY": "5", "SERVED_GRACE_PERIOD": "40"}, ("5", "40", 45)),
    ],
)
def test_the_drain_delay_takes_nothing_from_requests_in_flight(
    project, environment, expected
):
    assert times(service(project, **environment)) == expected


@pytest.mark.parametrize("drain", [0, 1, 15, 3600])
@pytest.mark.parametrize("grace", ["0.1", "25", "300"])
@pytest.mark.parametrize("stop", [1, 30, 600])
def test_who_stops_a_container_waits_longer_than_it_drains(project, drain, grace, stop):
    own = dataclasses.replace(project, drain_delay=drain, stop_timeout=stop)
    found = service(own, SERVED_GRACE_PERIOD=grace)
    assert found.drain_seconds == drain
    in_the_container = float(found.own[workload.GRACE_PERIOD])
    assert drain < in_the_container < found.stop_seconds


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SERVED_DRAIN_DELAY": "soon"}, "SERVED_DRAIN_DELAY must be a number"),
        ({"SERVED_GRACE_PERIOD": "-1"}, "SERVED_GRACE_PERIOD must be a number"),
        ({"SERVED_DRAIN_DELAY": "25"}, "must be less than SERVED_GRACE_PERIOD"),
        ({"SERVED_GRACE_PERIOD": "86400"}, "SERVED_GRACE_PERIOD must be a number"),
        ({"SERVED_THREADS": "0"}, "SERVED_THREADS must be a whole number"),
        ({"SERVED_PORT": "9000"}, "would listen on 9000 .*container-port is 8080"),
    ],
)
def test_what_the_service_would_not_take_is_one_line(project, environment, said):
    with pytest.raises(Problem, match=said) as caught:
        service(project, **environment)
    assert "\n" not in str(caught.value)


def test_a_kubernetes_link_is_no_port_of_the_service(project):
    assert service(project, SERVED_PORT="tcp://192.0.2.1:80").serves


def test_a_command_is_alone_and_drains_nothing(project):
    own = dataclasses.replace(
        project, commands={"worker": "python3 -m shop 'a b'"}, replicas=3
    )
    served, command = workload.workloads(own, IMAGE, {"A": "1"})
    assert (served.name, served.serves, served.alone, served.replicas) == (
        *("shop", True, False, 3),
    )
    assert (command.name, command.serves, command.alone, command.replicas) == (
        *("shop-worker", False, True, 1),
    )
    assert command.words == ("python3", "-m", "shop", "a b")
    assert (command.own, command.drain_seconds, command.stop_seconds) == ({}, 0, 30)
    assert command.environment == served.environment


def test_who_writes_a_volume_is_alone(project):
    own = dataclasses.replace(project, volumes=("data:/data",), replicas=3)
    assert (service(own).alone, service(own).replicas) == (True, 1)


def test_the_image_is_what_was_pushed_last_or_what_is_named(project):
    with pytest.raises(Problem, match="nothing was pushed from here yet: `invoke push"):
        workload.image(project)
    file = push.record_path(project)
    file.parent.mkdir()
    file.write_text(json.dumps({"reference": IMAGE}))
    assert workload.image(project) == IMAGE
    other = f"localhost:5000/other@{DIGEST}"
    assert workload.image(project, other.replace("@", ":1.4@")) == other


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("registry.example/shop:1", "names no digest.*say registry.example/shop@sha"),
        (f"shop@{DIGEST}", "names no registry"),
        ("registry.example/shop@sha256:1", "has no digest after its '@'"),
        ("registry.example/Shop:1", "no registry takes"),
    ],
)
def test_an_image_without_a_digest_is_one_line(project, named, said):
    with pytest.raises(Problem, match=said) as caught:
        workload.image(project, named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "{}", '{"reference": 5}', '{"reference": "registry.example/a:1"}'],
)
def test_a_record_of_pushes_without_sense_is_told_from_none(project, record):
    file = push.record_path(project)
    file.parent.mkdir()
    file.write_text(record)
    with pytest.raises(
        Problem, match=r"push\.json is damaged, or .*`invoke push"
    ) as caught:
        workload.image(project)
    assert "\n" not in str(caught.value)
