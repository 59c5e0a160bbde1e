"""The manifests for Kubernetes: valid, and what `run` says in Kubernetes' words."""

import base64
import dataclasses
import os
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_validate import utils as schemas

from containerize import confinement
from containerize.deploy import kubernetes, workload
from containerize.engines import variables
from containerize.errors import Problem
from containerize.settings import Settings
from tests.unit.test_stack import (
    NAMES,
    OTHERWISE,
    said_to_an_engine,
    said_where,
    shop,
)

IMAGE = f"registry.example/team/shop@sha256:{'a' * 64}"
OTHER = f"registry.example/team/shop@sha256:{'b' * 64}"
# Three minor versions are supported at a time (kubernetes.io, "Version Skew Policy").
MINORS = [schemas.major_minor(each) for each in schemas.all_versions()]
SUPPORTED = MINORS[-3:]


@pytest.fixture
def project(tmp_path):
    return shop(tmp_path)


@pytest.fixture
def plain(tmp_path):
    return Settings(root=tmp_path, image="shop")


def text(settings, image=IMAGE, **environment):
    found = workload.workloads(settings, image, environment)
    return kubernetes.manifests(found)


def objects(settings, image=IMAGE, **environment):
    return list(yaml.safe_load_all(text(settings, image, **environment)))


def of_kind(found, kind):
    return [each for each in found if each["kind"] == kind]


def pods(found):
    """By Deployment: the pods that it makes."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in of_kind(found, "Deployment")
    }


def pod(settings, **environment):
    return pods(objects(settings, **environment))["shop"]


def only(pod):
    [found] = pod["containers"]
    return found


# --- Kubernetes takes them -------------------------------------------------------


def valid(found, minor):
    """Each is what the schema of that version knows, and has no other field."""
    assert found
    for each in found:
        schemas.validate(each, minor, strict=True)


@pytest.mark.parametrize("minor", SUPPORTED)
def test_each_supported_version_takes_them(project, plain, minor, tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/db").write_text("x")
    for settings in (project, plain):
        valid(objects(settings, TOKEN="x"), minor)
        given_all = workload.workloads(settings, IMAGE, {"TOKEN": "x"})
        valid(list(yaml.safe_load_all(kubernetes.secrets(given_all))), minor)


@pytest.mark.parametrize("minor", SUPPORTED)
def test_what_no_version_takes_is_seen(plain, minor):
    for break_it in (
        lambda pod: pod.update(readOnly=True),
        lambda pod: pod.update(terminationGracePeriodSeconds="45s"),
        lambda pod: only(pod)["resources"]["limits"].update(memory=[]),
        lambda pod: only(pod)["readinessProbe"].update(interval=1),
        lambda pod: only(pod).pop("name"),
    ):
        found = objects(plain)
        break_it(pods(found)["shop"])
        with pytest.raises(schemas.ValidationError):
            valid(found, minor)


def test_names_that_must_differ_do_and_names_that_lead_somewhere_are_there(project):
    found = objects(project, TOKEN="x")
    claims = {
        each["metadata"]["name"] for each in of_kind(found, "PersistentVolumeClaim")
    }
    kinds = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(set(kinds)) == len(kinds)
    for each in pods(found).values():
        volumes = {volume["name"]: volume for volume in each["volumes"]}
        mounts = only(each)["volumeMounts"]
        assert len(volumes) == len(each["volumes"])
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert {mount["name"] for mount in mounts} == set(volumes)
        claimed = [v.get("persistentVolumeClaim") for v in volumes.values()]
        assert {claim["claimName"] for claim in filter(None, claimed)} == claims


# --- One setting says a value, to `run` and to a cluster -------------------------


SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def size(quantity):
    return int(quantity[:-2]) * SIZES[quantity[-2:]]


def said_to_a_cluster(settings, **environment):
    written = text(settings, **environment)
    limits = re.findall(r"# No field limits processes \(([0-9]+) under", written)
    found = list(yaml.safe_load_all(written))
    return {
        each["metadata"]["name"]: clusters_words(each, pids=int(number))
        for each, number in zip(of_kind(found, "Deployment"), limits, strict=True)
    }


def clusters_words(deployment, pids):
    pod = deployment["spec"]["template"]["spec"]
    one = only(pod)
    allowed = one["securityContext"]
    memory = one["resources"]
    assert memory["limits"] == memory["requests"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    temporary, claimed, secrets = {}, {}, []
    for mount in one["volumeMounts"]:
        volume, path = volumes[mount["name"]], mount["mountPath"]
        if memory_backed := volume.get("emptyDir"):
            assert memory_backed["medium"] == "Memory"
            temporary[path] = size(memory_backed["sizeLimit"])
        elif claim := volume.get("persistentVolumeClaim"):
            claimed[path] = (claim["claimName"], mount.get("readOnly", False))
        else:
            assert mount["readOnly"]
            secrets = [f"{path}/{e['path']}" for e in volume["secret"]["items"]]
    key = "containerize.project"
    label = deployment["spec"]["template"]["metadata"]["labels"][key]
    return {
        "read-only": allowed["readOnlyRootFilesystem"],
        "temporary": temporary,
        "dropped": allowed["capabilities"]["drop"],
        "memory": size(memory["limits"]["memory"]),
        "pids": pids,
        "sysctls": {
            s["name"]: s["value"] for s in pod["securityContext"].get("sysctls", ())
        },
        "volumes": claimed,
        "secrets": secrets,
        "words": [*one.get("command", ()), *one.get("args", ())],
        "checked": "livenessProbe" in one,
        "label": f"{key}={label}",
    }


def without(said, key):
    return {
        name: {k: v for k, v in each.items() if k != key} for name, each in said.items()
    }


@given(
    memory=st.from_regex(r"[1-9][0-9]{0,3}[kmg]", fullmatch=True),
    pids=st.integers(1, 5000),
    volumes=st.lists(
        st.builds("{}:/{}{}".format, NAMES, NAMES, st.sampled_from(["", ":ro"]))
    ).map(tuple),
    secrets=st.dictionaries(NAMES, NAMES),
    commands=st.dictionaries(NAMES, st.sampled_from(["a", "a 'b c'", "a -m b --x=1"])),
)
def test_a_cluster_is_told_what_an_engine_is_told(tmp_path_factory, **values):
    own = Settings(root=tmp_path_factory.getbasetemp(), image="shop", **values)
    # An engine's networks are no cluster's.
    assert said_to_a_cluster(own) == without(said_to_an_engine(own), "network")


def test_each_setting_of_a_container_is_said_to_both(tmp_path):
    own = Settings(root=tmp_path, image="shop", secrets={"db": "db"})
    said = said_where(
        own, lambda each: objects(each, SERVED_PORT=str(each.container_port))
    )
    assert said[True, True] == {
        *("image", "container_port", "memory", "stop_timeout"),
        *("volumes", "secrets", "commands"),
    }
    # A comment tells of pids.
    assert said[True, False] == {"root", "container", "port", "pids", "network"}
    assert said[False, True] == {"replicas", "drain_delay", "health_timeout"}


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(confinement.Confinement)]
)
def test_what_confines_stands_once(project, monkeypatch, field):
    def told():
        found = said_to_an_engine(project), said_to_a_cluster(project)
        return (without(found[0], "network"), found[1], objects(project))

    before = told()
    other = dataclasses.replace(confinement.of(project), **{field: OTHERWISE[field]})
    monkeypatch.setattr(confinement, "of", lambda _: other)
    after = told()
    assert after[0] == after[1]
    if field == "pids":
        assert before[:2] != after[:2]
    else:
        assert before[2] != after[2]


# --- Health, and how a pod goes --------------------------------------------------


@given(st.one_of(st.integers(0, 3600), st.floats(0, 3600)))
def test_that_it_is_not_ready_is_known_before_the_drain_delay_is_over(drain):
    given_all = {"SERVED_DRAIN_DELAY": f"{drain:f}", "SERVED_GRACE_PERIOD": "7200"}
    settings = Settings(root=None, image="shop")
    drain = float(f"{drain:f}")
    if drain <= 1:
        with pytest.raises(Problem, match="set drain-delay to 2 or more") as caught:
            pod(settings, **given_all)
        assert "\n" not in str(caught.value)
        return
    probe = only(pod(settings, **given_all))["readinessProbe"]
    period, failures = probe["periodSeconds"], probe["failureThreshold"]
    assert period >= 1
    assert failures >= 1
    assert period * failures < drain
    assert probe["timeoutSeconds"] <= period


def test_probes_ask_what_the_service_answers(plain):
    one = only(pod(dataclasses.replace(plain, container_port=9000), SERVED_PORT="9000"))
    paths = {"startup": "started", "liveness": "live", "readiness": "ready"}
    for kind, path in paths.items():
        asked = one[f"{kind}Probe"]["httpGet"]
        assert asked == {"path": f"/health/{path}", "port": "http"}
    assert one["ports"] == [{"name": "http", "containerPort": 9000}]
    startup = one["startupProbe"]
    assert (
        startup["periodSeconds"] * startup["failureThreshold"] == plain.health_timeout
    )


def test_a_pod_has_longer_to_end_than_its_service_takes(plain):
    found = pod(plain, SERVED_GRACE_PERIOD="50")
    own = {each["name"]: each["value"] for each in only(found)["env"]}
    assert own == {"SERVED_DRAIN_DELAY": "15", "SERVED_GRACE_PERIOD": "65"}
    assert found["terminationGracePeriodSeconds"] == 70


def test_a_release_comes_one_by_one_and_a_node_can_be_drained(plain):
    found = objects(dataclasses.replace(plain, replicas=4))
    [deployment] = of_kind(found, "Deployment")
    spec = deployment["spec"]
    assert spec["replicas"] == 4
    gradual = {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": gradual}
    assert (
        plain.health_timeout + spec["minReadySeconds"] < spec["progressDeadlineSeconds"]
    )
    [budget] = of_kind(found, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    spread = pods(found)["shop"]["topologySpreadConstraints"]
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}


def test_what_has_a_volume_is_alone_and_where_the_volume_is(project):
    found = objects(dataclasses.replace(project, replicas=4))
    for each in of_kind(found, "Deployment"):
        assert each["spec"]["replicas"] == 1
        assert each["spec"]["strategy"] == {"type": "Recreate"}
        labels = each["spec"]["template"]["metadata"]["labels"]
        affinity = each["spec"]["template"]["spec"]["affinity"]["podAffinity"]
        [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
        # The first pod of all finds none that it has to be with: itself counts.
        assert term["labelSelector"]["matchLabels"].items() <= labels.items()


def test_a_command_has_no_port_no_health_and_no_service(project):
    found = objects(project)
    worker = only(pods(found)["shop-worker"])
    assert not {"ports", "env", "livenessProbe", "readinessProbe"} & set(worker)
    [service] = of_kind(found, "Service")
    [budget] = of_kind(found, "PodDisruptionBudget")
    selected = service["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"] == selected
    for each in of_kind(found, "Deployment"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"] == labels
        # By the Service's own selector only its own pods are found.
        serves = each["metadata"]["name"] == "shop"
        assert (selected.items() <= labels.items()) == serves


@given(st.lists(st.text("$()Aé \n"), min_size=1))
def test_kubernetes_replaces_nothing_in_a_command(tmp_path_factory, words):
    own = Settings(root=tmp_path_factory.getbasetemp(), image="shop")
    [service] = workload.workloads(own, IMAGE, {})
    command = dataclasses.replace(service, name="shop-x", words=tuple(words), own={})
    written = kubernetes.manifests([service, command])
    one = only(pods(list(yaml.safe_load_all(written)))["shop-x"])
    said = [*one["command"], *one.get("args", ())]
    assert [expanded(word) for word in said] == words


def expanded(word):
    """A word as a kubelet reads it: `$$` is `$`, and `$(NAME)` a variable's value."""
    return re.sub(r"\$(\$)|\$\([^)]*\)", lambda match: match[1] or "a value", word)


# --- Variables and secrets -------------------------------------------------------


def secrets(settings, **environment):
    found = kubernetes.secrets(workload.workloads(settings, IMAGE, environment))
    return {
        each["metadata"]["name"]: {
            key: base64.b64decode(value) for key, value in each["data"].items()
        }
        for each in yaml.safe_load_all(found)
    }


def test_values_are_by_reference_and_ours_go_over_them(project):
    given_all = {"TOKEN": "hunter2", "SERVED_DRAIN_DELAY": "5"}
    assert "hunter2" not in text(project, **given_all)
    found = pods(objects(project, **given_all))
    for each in found.values():
        [source] = only(each)["envFrom"]
        reference = {"name": "shop-environment", "optional": False}
        assert source == {"secretRef": reference}
        [volume] = [v["secret"] for v in each["volumes"] if "secret" in v]
        assert volume["secretName"] == "shop-secrets"
        assert volume["items"] == [{"key": "db", "path": "db"}]
        # For user and group 65532 and nobody else.
        assert volume["defaultMode"] == 0o440
        assert each["securityContext"]["fsGroup"] == 65532
    own = {each["name"]: each["value"] for each in only(found["shop"])["env"]}
    assert own["SERVED_DRAIN_DELAY"] == "5"


def test_without_variables_no_secret_is_asked_for(plain):
    found = pod(plain, SERVED_DRAIN_DELAY="5")
    assert "envFrom" not in only(found)
    assert "--secrets" not in text(plain, SERVED_DRAIN_DELAY="5")
    assert "--secrets" in text(plain, TOKEN="x")
    service = workload.workloads(plain, IMAGE, {"SERVED_DRAIN_DELAY": "5"})[0]
    assert not kubernetes.has_secrets(service)


DOTENV = """
A='one $HOME'   # a comment
export B="two
lines"
C=${A}!
E=
SERVED_DRAIN_DELAY=7
"""


def test_secrets_hold_what_run_would_give(project, tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/db").write_bytes(b"\xff\x00hush\n")
    (tmp_path / ".env").write_text(DOTENV)
    environment = variables.read(dataclasses.replace(project, env_file=".env"))
    found = secrets(project, **environment)
    assert found["shop-secrets"] == {"db": b"\xff\x00hush\n"}
    assert found["shop-environment"] == {
        "A": b"one $HOME",
        "B": b"two\nlines",
        "C": b"one $HOME!",
        "E": b"",
    }


# --- Names -----------------------------------------------------------------------


LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1035, as for Services
IMAGES = st.from_regex(
    r"[a-z0-9]{1,25}((\.|_|__|-{1,3})[a-z0-9]{1,25}){0,3}", fullmatch=True
)


@given(IMAGES, st.lists(NAMES, max_size=2))
def test_each_image_has_a_name_there_or_is_told_of_it(tmp_path_factory, image, names):
    own = Settings(
        root=tmp_path_factory.getbasetemp(),
        image=image,
        commands=dict.fromkeys(names, "x"),
        volumes=tuple(f"{name}:/{name}" for name in set(names)),
    )
    longest = max(len(image), *(len(f"{image}-{name}") for name in ["", *names]))
    if image[0].isdigit() or longest > 63:
        with pytest.raises(Problem, match="Kubernetes"):
            objects(own)
        return
    found = objects(own)
    assert all(LABEL.fullmatch(each["metadata"]["name"]) for each in found)
    for each in pods(found).values():
        names_of_parts = [v["name"] for v in (*each["volumes"], *each["containers"])]
        assert all(LABEL.fullmatch(name) for name in names_of_parts)


def test_a_selector_stays_the_same_and_is_no_other_images(plain):
    def selectors(settings, image=IMAGE, **environment):
        found = of_kind(objects(settings, image, **environment), "Deployment")
        return [each["spec"]["selector"] for each in found]

    other = dataclasses.replace(plain, memory="1g", replicas=9, drain_delay=30)
    assert selectors(plain) == selectors(other, OTHER, TOKEN="x")
    named = [dataclasses.replace(plain, image=image) for image in ("my_app", "my-app")]
    first, second = (objects(each)[0]["metadata"] for each in named)
    assert first["name"] == second["name"] == "my-app"
    assert selectors(named[0]) != selectors(named[1])


def refused(settings, said, **environment):
    with pytest.raises(Problem, match=said) as caught:
        text(settings, **environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"image": "2048"},
            "image '2048' is no name in Kubernetes: begin it with a le",
        ),
        ({"image": "a" * 64}, "more than the 63 characters"),
        ({"image": "a" * 60, "commands": {"long": "x"}}, "command 'a+-long' has more"),
        (
            {"volumes": ("./data:/data",)},
            "/data is a directory of this machine, and po",
        ),
        (
            {"volumes": ("Data:/a", "data:/b")},
            "Data and data would both be data in Kub",
        ),
        ({"volumes": ("7a:/a",)}, "volume '7a' is no name"),
        ({"drain_delay": 1}, "a drain delay of 1 s is over before"),
        ({"commands": {"x": "a \udcff"}}, "a command is not UTF-8"),
    ],
)
def test_what_kubernetes_has_no_way_to_do_is_one_line(plain, values, said):
    refused(dataclasses.replace(plain, **values), said)


def test_secrets_that_cannot_be_had_are_one_line(plain, tmp_path):
    def refused(settings, said, **environment):
        with pytest.raises(Problem, match=said) as caught:
            secrets(settings, **environment)
        assert "\n" not in str(caught.value)

    refused(plain, "there is nothing that a Secret would hold")
    missing = dataclasses.replace(plain, secrets={"db": "none"})
    refused(missing, "there is no file .*/none for the secret db")
    os.mkfifo(tmp_path / "pipe")
    pipe = dataclasses.replace(plain, secrets={"db": "pipe"})
    refused(pipe, "there is no file .*/pipe for the secret db")
    large = tmp_path / "large"
    much = dataclasses.replace(plain, secrets={"db": "large"})
    large.write_bytes(bytes(190 << 10))
    assert len(secrets(much)) < 256 << 10
    large.write_bytes(bytes(196 << 10))
    refused(much, "larger than the 256 KiB that `kubectl apply` takes")
    refused(plain, "the variable TOKEN is not UTF-8", TOKEN="\udcff")
