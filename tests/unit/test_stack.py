"""The stack file: what it says is what `run` says, and what it must not say."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from containerize import confinement, settings
from containerize.deploy import swarm, workload
from containerize.engines import container
from containerize.errors import Problem
from containerize.settings import Settings

IMAGE = f"registry.example/shop@sha256:{'a' * 64}"


def shop(root):
    """A project with each kind of thing that a manifest names."""
    return Settings(
        root=root,
        image="shop",
        volumes=("data:/data", "conf:/conf:ro"),
        secrets={"db": "secrets/db"},
        commands={"worker": "python3 -m shop.worker"},
    )


@pytest.fixture
def project(tmp_path):
    return shop(tmp_path)


def text(given_settings, *, values=False, **environment):
    found = workload.workloads(given_settings, IMAGE, environment)
    return swarm.stack(found, values=values)


def stack(given_settings, **options):
    return YAML(typ="safe", pure=True).load(text(given_settings, **options))


# --- One setting says a value, to `run` and to a Swarm ---------------------------


def said_to_an_engine(given_settings):
    """By container: what the flags of `run` say."""
    service = container.Launch(
        settings=given_settings, reference=IMAGE, name=given_settings.image, port=0
    )
    commands = container.commands(given_settings, IMAGE, name=given_settings.image)
    return {each.name: engines_words(each) for each in (service, *commands)}


def engines_words(launch):
    def values(name):
        return [w.partition("=")[2] for w in flags if w.startswith(f"--{name}=")]

    command = launch.command()
    at = command.index(IMAGE)
    flags, words = command[:at], command[at + 1 :]
    size = {"m": 1 << 20, "g": 1 << 30, "k": 1 << 10}
    mounted = {}
    for each in values("volume"):
        source, path, *options = each.split(":")
        mounted[path] = (source, "ro" in options)
    memory = values("memory")[-1]
    return {
        "read-only": "--read-only" in flags,
        "temporary": {
            each.split(":")[0]: int(each.rpartition("size=")[2][:-1]) << 20
            for each in values("tmpfs")
        },
        "dropped": values("cap-drop"),
        "memory": int(memory[:-1]) * size[memory[-1]],
        "pids": int(values("pids-limit")[-1]),
        "sysctls": dict(each.split("=") for each in values("sysctl")),
        "volumes": mounted,
        "secrets": re.findall(r"target=(\S+?),", " ".join(values("mount"))),
        "network": values("network"),
        "words": [*values("entrypoint"), *words],
        "checked": "--no-healthcheck" not in flags,
        "label": values("label")[0],
    }


def said_to_a_swarm(given_settings, **environment):
    found = stack(given_settings, **environment)
    network = found["networks"]["default"]
    named = [network["name"]] if network.get("external") else []
    return {
        name: swarms_words(service, found) | {"network": named}
        for name, service in found["services"].items()
    }


def swarms_words(service, whole):
    limits = service["deploy"]["resources"]["limits"]
    mounts = {kind: [] for kind in ("tmpfs", "volume")}
    for mount in service["volumes"]:
        mounts[mount["type"]].append(mount)
    [(key, value)] = service["labels"].items()
    assert service["deploy"]["labels"] == {key: value}
    assert {m["source"] for m in mounts["volume"]} == {*whole.get("volumes", ())}
    assert {s["source"] for s in service.get("secrets", ())} == {
        *whole.get("secrets", ())
    }
    return {
        "read-only": service["read_only"],
        "temporary": {m["target"]: m["tmpfs"]["size"] for m in mounts["tmpfs"]},
        "dropped": service["cap_drop"],
        "memory": settings.size_in_bytes(limits["memory"]),
        "pids": limits["pids"],
        "sysctls": service.get("sysctls", {}),
        "volumes": {
            m["target"]: (m["source"], m.get("read_only", False))
            for m in mounts["volume"]
        },
        "secrets": [f"/run/secrets/{s['target']}" for s in service.get("secrets", ())],
        "words": service.get("entrypoint", []),
        "checked": "disable" not in service["healthcheck"],
        "label": f"{key}={value}",
    }


NAMES = st.from_regex(r"[a-z][a-z0-9]{1,8}", fullmatch=True)


@given(
    memory=st.from_regex(r"[1-9][0-9]{0,3}[kmg]", fullmatch=True),
    pids=st.integers(1, 5000),
    volumes=st.lists(
        st.builds("{}:/{}{}".format, NAMES, NAMES, st.sampled_from(["", ":ro"]))
    ).map(tuple),
    network=st.one_of(st.just(""), NAMES),
    secrets=st.dictionaries(NAMES, NAMES),
    commands=st.dictionaries(NAMES, st.sampled_from(["a", "a 'b c'", "a -m b --x=1"])),
)
def test_a_swarm_is_told_what_an_engine_is_told(tmp_path_factory, **values):
    root = tmp_path_factory.getbasetemp()
    own = Settings(root=root, image="shop", **values)
    assert said_to_a_swarm(own) == said_to_an_engine(own)


OTHERS = {
    "image": "other",
    "memory": "256m",
    "volumes": ("other:/other",),
    "secrets": {"other": "other"},
    "commands": {"other": "other"},
}


def changed(own, field):
    """The settings with another value of one."""
    value = getattr(own, field)
    other = OTHERS.get(field)
    if other is None:
        kinds = {int: 1, str: "x", tuple: ("x",)}
        other = value / "x" if field == "root" else value + kinds[type(value)]
    return dataclasses.replace(own, **{field: other})


def said_where(own, to_the_other):
    """The settings by whether an engine, and an orchestrator, get another word."""

    def to_an_engine(each):
        launch = container.Launch(
            settings=each, reference=each.reference(), name=each.container_name,
            port=each.port,
        )  # fmt: skip
        return launch.command(), said_to_an_engine(each)

    found = {}
    for field in dataclasses.fields(Settings):
        other = changed(own, field.name)
        ways = (to_an_engine, to_the_other)
        found[field.name] = tuple(way(own) != way(other) for way in ways)
    return {
        which: {name for name, each in found.items() if each == which}
        for which in ((True, True), (True, False), (False, True))
    }


def test_each_setting_of_a_container_is_said_to_both(tmp_path):
    own = Settings(root=tmp_path, image="shop", ingress_port=80, secrets={"db": "db"})
    said = said_where(
        own, lambda each: stack(each, SERVED_PORT=str(each.container_port))
    )
    assert said[True, True] == {
        *("image", "container_port", "memory", "pids", "stop_timeout"),
        *("volumes", "network", "secrets", "commands"),
    }
    assert said[True, False] == {"root", "container", "port"}
    assert said[False, True] == {
        *("replicas", "drain_delay", "ingress_port", "health_timeout"),
    }


OTHERWISE = {
    "memory": "7m",
    "pids": 7,
    "user": 7,
    "group": 7,
    "read_only": False,
    "temporary": {"/tmp": 1 << 20, "/var/tmp": 2 << 20},
    "dropped": ("NET_RAW", "CHOWN"),
    "new_privileges": True,
    "sysctls": {"net.ipv4.ip_local_port_range": "20000 30000"},
}


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(confinement.Confinement)]
)
def test_what_confines_stands_once(project, monkeypatch, field):
    def told():
        return said_to_an_engine(project), text(project), said_to_a_swarm(project)

    before = told()
    other = dataclasses.replace(confinement.of(project), **{field: OTHERWISE[field]})
    monkeypatch.setattr(confinement, "of", lambda _: other)
    after = told()
    assert after[0] == after[2]
    if field == "new_privileges":  # a stack has no field for it
        service = container.Launch(settings=project, reference=IMAGE, name="x")
        assert "--security-opt=no-new-privileges" not in service.command()
    elif field in ("user", "group"):  # to an engine the image says it
        assert before[1] != after[1]
    else:
        assert before[0] != after[0]


def test_the_user_of_the_image_can_listen_on_a_port_that_is_reserved(project):
    for port, said in ((80, "80"), (1023, "1023"), (1024, None)):
        limits = confinement.of(dataclasses.replace(project, container_port=port))
        assert limits.sysctls.get("net.ipv4.ip_unprivileged_port_start") == said


# --- What else it says -----------------------------------------------------------


def service(given_settings, **options):
    return stack(given_settings, **options)["services"]["shop"]


def test_it_names_the_image_by_digest_and_each_release_looks_the_same(project):
    found = stack(project)
    assert {each["image"] for each in found["services"].values()} == {IMAGE}
    assert text(project) == text(project)


def test_a_value_is_never_in_it_unless_it_is_for_a_pipe(project):
    variables = {"TOKEN": "hunter2", "PRICE": "5$ ${TOKEN} $$"}
    shown = text(project, **variables)
    assert "hunter2" not in shown
    assert "5$" not in shown
    for each in stack(project, **variables)["services"].values():
        kept = {k: v for k, v in each["environment"].items() if k in variables}
        assert kept == {
            name: f"${{{name}?set it, or use invoke release}}" for name in variables
        }
    piped = service(project, values=True, **variables)["environment"]
    assert piped["TOKEN"] == "hunter2"
    assert piped["PRICE"] == "5$$ $${TOKEN} $$$$"


def test_a_pipe_takes_variables_of_any_name(project):
    variables = {"HOME": "/tmp", "DOCKER_HOST": "x", "A.B": "1"}
    found = service(project, values=True, **variables)["environment"]
    assert found.items() >= variables.items()


def test_a_template_of_swarms_is_a_value_like_any_other(project):
    said = {"GREETING": "{{{.Name}}} }}"}
    found = service(project, values=True, **said)["environment"]
    assert found["GREETING"] == '{{"{{"}}{.Name}}} }}'


def test_how_long_it_drains_stands_in_it(project):
    found = service(project, SERVED_DRAIN_DELAY="5", SERVED_THREADS="8")
    environment = found["environment"]
    assert environment["SERVED_DRAIN_DELAY"] == "5"
    assert environment["SERVED_GRACE_PERIOD"] == "25"
    assert environment["SERVED_THREADS"].startswith("${SERVED_THREADS?")
    assert found["stop_grace_period"] == "30s"


@pytest.mark.parametrize("drain", [0, 2, 15])
def test_an_update_never_has_fewer_than_serve_and_goes_back_by_itself(project, drain):
    own = dataclasses.replace(project, volumes=(), drain_delay=drain, replicas=3)
    deploy = service(own)["deploy"]
    assert deploy["replicas"] == 3
    way = {
        "parallelism": 1,
        "order": "start-first",
        "delay": f"{drain}s",
        "monitor": f"{drain + 5}s",
        "max_failure_ratio": 0,
    }
    assert deploy["update_config"] == way | {"failure_action": "rollback"}
    assert deploy["rollback_config"] == way | {"failure_action": "continue"}


def test_what_writes_a_volume_stops_first_and_stays_where_its_data_is(project):
    for each in stack(project)["services"].values():
        deploy = each["deploy"]
        assert deploy["replicas"] == 1
        for way in ("update_config", "rollback_config"):
            assert deploy[way]["order"] == "stop-first"
        constraints = deploy["placement"]["constraints"]
        assert constraints == ["node.labels.shop.volumes == here"]
    assert "docker node update --label-add shop.volumes=here NODE" in text(project)


def test_a_command_stops_first_wherever_it_runs(project):
    own = dataclasses.replace(project, volumes=())
    worker = stack(own)["services"]["shop-worker"]
    assert worker["entrypoint"] == ["python3", "-m", "shop.worker"]
    assert worker["healthcheck"] == {"disable": True}
    assert "ports" not in worker
    assert "environment" not in worker
    assert "constraints" not in worker["deploy"]["placement"]
    assert worker["deploy"]["update_config"]["order"] == "stop-first"


def test_words_of_a_command_are_left_as_they_are(project):
    own = dataclasses.replace(
        project, commands={"worker": "sell --for '5$ ${HOME}' yes 1"}
    )
    words = stack(own)["services"]["shop-worker"]["entrypoint"]
    assert words == ["sell", "--for", "5$$ $${HOME}", "yes", "1"]


def test_the_service_stands_behind_dns_or_the_mesh(project):
    assert service(project)["deploy"]["endpoint_mode"] == "dnsrr"
    assert "ports" not in service(project)
    own = dataclasses.replace(project, ingress_port=80)
    assert service(own)["deploy"]["endpoint_mode"] == "vip"
    [port] = service(own)["ports"]
    assert (port["published"], port["target"], port["mode"]) == (80, 8080, "ingress")


def test_a_network_is_the_stacks_own_or_there_already(project):
    assert stack(project)["networks"] == {"default": {"driver": "overlay"}}
    own = dataclasses.replace(project, network="edge")
    assert stack(own)["networks"] == {"default": {"external": True, "name": "edge"}}


def test_a_secret_is_the_swarms_and_for_the_apps_user_alone(project):
    found = stack(project)
    assert found["secrets"] == {"db": {"external": True}}
    for each in found["services"].values():
        assert each["secrets"] == [
            {"source": "db", "target": "db", "uid": "65532", "gid": "65532",
             "mode": 0o400}
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("image", "name"), [("my.shop", "my-shop"), ("my__shop", "my--shop"), ("9s", "9s")]
)
def test_a_service_has_a_name_of_dns(project, image, name):
    own = dataclasses.replace(project, image=image)
    assert list(stack(own)["services"]) == [name, f"{name}-worker"]
    assert f"tasks.{name} " in text(own) or f"tasks.{name}," in text(own)


@pytest.mark.parametrize(
    ("image", "name"),
    [("a" * 27, "a" * 27), ("a" * 28, "[UP TO 27 CHARACTERS]")],
)
def test_it_names_a_stack_that_docker_takes_before_each_service(project, image, name):
    said = text(dataclasses.replace(project, image=image))
    assert f"-c - {name}\n" in said


@pytest.mark.parametrize(
    ("values", "variables", "said"),
    [
        ({"image": "a" * 62}, {}, "is too long for a service's name"),
        ({"volumes": ("./data:/data",)}, {}, "data is a directory of this machine"),
        ({"volumes": ("data:/data:sync",)}, {}, "volume data: a stack has no option s"),
        ({}, {"A.B": "1"}, "the variable A.B cannot be referred to"),
        ({}, {"HOME": "/tmp"}, "the variable HOME is one that `docker stack deploy` h"),
        ({}, {"HELLO": "{{.ID}}"}, "the variable HELLO has {{, where Swarm would read"),
        ({}, {"https_proxy": "x"}, "the variable https_proxy is one that `docker st"),
    ],
)
def test_what_a_swarm_has_no_way_to_do_is_one_line(project, values, variables, said):
    with pytest.raises(Problem, match=said) as caught:
        text(dataclasses.replace(project, **values), **variables)
    assert "\n" not in str(caught.value)


def test_what_yaml_cannot_hold_is_one_line_without_the_value(project):
    with pytest.raises(Problem, match="TOKEN is not UTF-8") as caught:
        text(project, values=True, TOKEN="hunter\udcff2")
    assert "hunter" not in str(caught.value)


def test_a_base_of_the_users_own_is_not_said_to_be_harmless(project):
    assert "No file of the\n# image is setuid" in text(project)
    own = dataclasses.replace(project, base_image=f"base@sha256:{'b' * 64}")
    assert "No file of the\n# image is setuid" not in text(own)
    assert "base-image" in text(own)
