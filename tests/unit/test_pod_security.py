"""The restricted Pod Security Standard, rule by rule, for each pod of the manifests.

Of kubernetes.io, "Pod Security Standards", as of 1.37: those of the profile baseline,
then those that restricted adds. Each rule is seen to fail on a pod that breaks it.
"""

import copy
import dataclasses
import re
from pathlib import Path

import pytest

from containerize.settings import Settings
from tests.unit.test_kubernetes import objects, pods

ROOT = Path("/srv/shop")
PLAIN = Settings(root=ROOT, image="shop")
PROJECTS = {
    "plain": PLAIN,
    "all": dataclasses.replace(
        PLAIN,
        volumes=("data:/data", "conf:/conf:ro"),
        secrets={"db": "secrets/db"},
        commands={"worker": "python3 -m shop.worker"},
    ),
}
PODS = {
    f"{project}-{name}": pod
    for project, settings in PROJECTS.items()
    for name, pod in pods(objects(settings, TOKEN="x")).items()
}
KINDS = ("initContainers", "containers", "ephemeralContainers")


def containers(pod):
    return [each for kind in KINDS for each in pod.get(kind, ())]


def contexts(pod):
    """What the pod says for all, and each of its containers for itself."""
    return [
        pod.get("securityContext", {}),
        *(each.get("securityContext", {}) for each in containers(pod)),
    ]


def own(pod):
    return contexts(pod)[1:]


# Baseline.


def no_host_process(pod):
    return not any(
        c.get("windowsOptions", {}).get("hostProcess") for c in contexts(pod)
    )


def no_host_namespaces(pod):
    return not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))


def not_privileged(pod):
    return not any(context.get("privileged") for context in own(pod))


def no_host_path(pod):
    return not any("hostPath" in volume for volume in pod.get("volumes", ()))


def no_host_ports(pod):
    ports = [port for each in containers(pod) for port in each.get("ports", ())]
    return not any(port.get("hostPort") for port in ports)


def no_host_in_probes_and_hooks(pod):
    """Nothing makes the kubelet ask another host (since 1.34)."""
    asked = []
    for each in containers(pod):
        asked += [
            each.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")
        ]
        asked += [
            each.get("lifecycle", {}).get(kind) for kind in ("postStart", "preStop")
        ]
    ways = [
        way
        for one in filter(None, asked)
        for way in (one.get("httpGet"), one.get("tcpSocket"))
    ]
    return not any(way.get("host") for way in filter(None, ways))


def app_armor(pod):
    kinds = {
        c["appArmorProfile"]["type"] for c in contexts(pod) if "appArmorProfile" in c
    }
    return kinds <= {"RuntimeDefault", "Localhost"}


def selinux(pod):
    found = [context.get("seLinuxOptions", {}) for context in contexts(pod)]
    types = {
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    }
    return all(
        each.get("type", "") in types and not each.get("user") and not each.get("role")
        for each in found
    )


def proc_mount(pod):
    return all(context.get("procMount", "Default") == "Default" for context in own(pod))


SYSCTLS = re.compile(
    r"kernel\.shm_rmid_forced|net\.ipv4\.(ip_local_port_range|ip_unprivileged_port_start"
    r"|tcp_syncookies|ping_group_range|ip_local_reserved_ports|tcp_keepalive_time"
    r"|tcp_fin_timeout|tcp_keepalive_intvl|tcp_keepalive_probes|tcp_[rw]mem)"
)


def sysctls(pod):
    found = pod.get("securityContext", {}).get("sysctls", ())
    return all(SYSCTLS.fullmatch(each["name"]) for each in found)


# Restricted.


def volume_types(pod):
    allowed = {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
        *("persistentVolumeClaim", "projected", "secret"),
    }
    return all(set(each) - {"name"} <= allowed for each in pod.get("volumes", ()))


def no_privilege_escalation(pod):
    return all(context.get("allowPrivilegeEscalation") is False for context in own(pod))


def said_of_each(pod, key, good):
    """The pod says so and no container otherwise, or each container says so."""
    whole, *each = (context.get(key) for context in contexts(pod))
    return all(good(whole if one is None else one) for one in each)


def run_as_non_root(pod):
    return said_of_each(pod, "runAsNonRoot", lambda value: value is True)


def no_root_user(pod):
    return all(context.get("runAsUser") != 0 for context in contexts(pod))


def seccomp(pod):
    """At the pod too: «Unconfined» nowhere."""
    kinds = ("RuntimeDefault", "Localhost")

    def good(value):
        return value is not None and value["type"] in kinds

    whole = contexts(pod)[0].get("seccompProfile")
    return (whole is None or good(whole)) and said_of_each(pod, "seccompProfile", good)


def capabilities(pod):
    found = [context.get("capabilities", {}) for context in own(pod)]
    return all(
        "ALL" in each.get("drop", ())
        and set(each.get("add", ())) <= {"NET_BIND_SERVICE"}
        for each in found
    )


# What breaks each, at the pod or at the container.


def at_pod(**values):
    return lambda pod: pod.update(values)


def at_pods_context(**values):
    return lambda pod: pod["securityContext"].update(values)


def at_container(**values):
    return lambda pod: pod["containers"][0].update(values)


def at_context(**values):
    return lambda pod: pod["containers"][0]["securityContext"].update(values)


def added_volume(**source):
    return lambda pod: pod["volumes"].append({"name": "more", **source})


def unsaid(*names):
    """Take it away from the pod and its containers."""

    def take(pod):
        for context in contexts(pod):
            for name in names:
                context.pop(name, None)

    return take


def added_container(pod):
    """One that says nothing for itself."""
    pod["initContainers"] = [{"name": "more", "image": "more"}]


ELSEWHERE = {"httpGet": {"path": "/", "port": 80, "host": "192.0.2.1"}}
BREAKS = {
    no_host_process: [
        at_pods_context(windowsOptions={"hostProcess": True}),
        at_context(windowsOptions={"hostProcess": True}),
    ],
    no_host_namespaces: [
        at_pod(hostNetwork=True),
        at_pod(hostPID=True),
        at_pod(hostIPC=True),
    ],
    not_privileged: [at_context(privileged=True)],
    no_host_path: [added_volume(hostPath={"path": "/"})],
    no_host_ports: [at_container(ports=[{"containerPort": 80, "hostPort": 80}])],
    no_host_in_probes_and_hooks: [
        at_container(livenessProbe=ELSEWHERE),
        at_container(lifecycle={"preStop": ELSEWHERE}),
        at_container(readinessProbe={"tcpSocket": {"port": 80, "host": "192.0.2.1"}}),
    ],
    app_armor: [
        at_pods_context(appArmorProfile={"type": "Unconfined"}),
        at_context(appArmorProfile={"type": "Unconfined"}),
    ],
    selinux: [
        at_pods_context(seLinuxOptions={"type": "spc_t"}),
        at_context(seLinuxOptions={"user": "system_u"}),
        at_context(seLinuxOptions={"role": "system_r"}),
    ],
    proc_mount: [at_context(procMount="Unmasked")],
    sysctls: [at_pods_context(sysctls=[{"name": "kernel.msgmax", "value": "1"}])],
    volume_types: [
        added_volume(nfs={"server": "x", "path": "/"}),
        added_volume(hostPath={"path": "/"}),
    ],
    no_privilege_escalation: [
        unsaid("allowPrivilegeEscalation"),
        at_context(allowPrivilegeEscalation=True),
        added_container,
    ],
    run_as_non_root: [
        unsaid("runAsNonRoot"),
        at_pods_context(runAsNonRoot=False),
        at_context(runAsNonRoot=False),
    ],
    no_root_user: [at_pods_context(runAsUser=0), at_context(runAsUser=0)],
    seccomp: [
        unsaid("seccompProfile"),
        at_pods_context(seccompProfile={"type": "Unconfined"}),
        at_context(seccompProfile={"type": "Unconfined"}),
    ],
    capabilities: [
        unsaid("capabilities"),
        at_context(capabilities={"drop": ["NET_RAW"]}),
        at_context(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}),
        added_container,
    ],
}
RULES = pytest.mark.parametrize("rule", BREAKS, ids=lambda rule: rule.__name__)


@RULES
@pytest.mark.parametrize("name", PODS)
def test_each_pod_holds_the_rule(rule, name):
    assert rule(PODS[name])


@RULES
@pytest.mark.parametrize("name", PODS)
def test_a_pod_that_breaks_the_rule_is_seen(rule, name):
    for break_it in BREAKS[rule]:
        pod = copy.deepcopy(PODS[name])
        break_it(pod)
        assert not rule(pod)


def test_each_pod_has_more_than_the_standard_asks_for():
    for pod in PODS.values():
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (
            *(False, False),
        )
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["runAsGroup"] == 65532
        assert all(context["readOnlyRootFilesystem"] for context in own(pod))
