"""The manifests for Kubernetes, as kubectl reads them; it has no cluster to ask."""

import base64
import re
import subprocess

import pytest
import yaml
from kubernetes_validate import utils as schemas

from containerize.deploy import kubernetes, workload
from containerize.engines import variables
from containerize.settings import Settings
from tests.conftest import taking_turns
from tests.matrix.releases import Release

KUBECTL = Release("trixie", ("kubernetes-client",))
IMAGE = f"registry.example/team/shop@sha256:{'a' * 64}"
OVERLAY = """
resources:
- manifests.yml
patches:
- target: {kind: PersistentVolumeClaim, name: data}
  patch: |
    - {op: replace, path: /spec/resources/requests/storage, value: 20Gi}
- patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: shop}
    spec:
      template:
        spec:
          containers:
          - name: shop
            env: [{name: SERVED_THREADS, value: "8"}]
            resources: {requests: {cpu: 100m}}
"""


@pytest.fixture(scope="session")
def kubectl(repository, tmp_path_factory):
    with taking_turns():
        command = KUBECTL.unpacked(repository) / "usr/bin/kubectl"
    home = tmp_path_factory.mktemp("home")

    def run(*words, text=""):
        return subprocess.run(
            [command, *words],
            env={"HOME": str(home)},
            input=text,
            capture_output=True,
            check=False,
            text=True,
        )

    return run


@pytest.fixture
def found(tmp_path):
    settings = Settings(
        root=tmp_path,
        image="shop",
        volumes=("data:/data",),
        secrets={"token": "token.txt"},
        commands={"worker": "python3 -m shop.worker"},
    )
    (tmp_path / "token.txt").write_text("hush")
    return workload.workloads(settings, IMAGE, {"TOKEN": "x"})


def known(kubectl, text):
    """What it makes of the documents, each as the type that it is.

    `apply` would ask a cluster. This asks for the pods of each, which not all have.
    """
    options = ("--local", "--filename=-", "--output=name", "*=x")
    answer = kubectl("set", "image", *options, text=text)
    others = re.findall(r"^error: (\S+)\s+the object is not a pod", answer.stderr, re.M)
    return {*answer.stdout.split(), *others}, answer.stderr


def test_it_knows_each_object(kubectl, found):
    names, _ = known(kubectl, kubernetes.manifests(found))
    assert names == {
        "persistentvolumeclaim/data",
        "deployment.apps/shop",
        "deployment.apps/shop-worker",
        "service/shop",
        "poddisruptionbudget.policy/shop",
    }
    names, _ = known(kubectl, kubernetes.secrets(found))
    assert names == {"secret/shop-environment", "secret/shop-secrets"}


@pytest.mark.parametrize(
    ("field", "broken"),
    [
        ("replicas: 1", "replicas: one"),
        ("maxUnavailable: 1", "maxUnavailable: [1]"),
        ("port: 80", "port: http"),
    ],
)
def test_what_is_of_another_type_is_seen(kubectl, found, field, broken):
    text = kubernetes.manifests(found)
    assert field in text
    _, said = known(kubectl, text.replace(field, broken))
    assert "unable to decode" in said


def test_a_kustomization_goes_over_them(kubectl, found, tmp_path):
    (tmp_path / "manifests.yml").write_text(kubernetes.manifests(found))
    (tmp_path / "kustomization.yaml").write_text(OVERLAY)
    done = kubectl("kustomize", str(tmp_path))
    assert done.returncode == 0, done.stderr

    def by_name(text):
        documents = yaml.safe_load_all(text)
        return {(each["kind"], each["metadata"]["name"]): each for each in documents}

    before, after = by_name(kubernetes.manifests(found)), by_name(done.stdout)
    for each in after.values():
        schemas.validate(each, schemas.latest_version(), strict=True)
    claim, shop = ("PersistentVolumeClaim", "data"), ("Deployment", "shop")
    assert {key for key in before if before[key] != after[key]} == {claim, shop}
    assert after[claim]["spec"]["resources"]["requests"]["storage"] == "20Gi"
    [was], [one] = (
        each[shop]["spec"]["template"]["spec"]["containers"] for each in (before, after)
    )
    assert one["resources"]["requests"] == {"memory": "128Mi", "cpu": "100m"}
    added = {"name": "SERVED_THREADS", "value": "8"}
    assert sorted(map(str, one["env"])) == sorted(map(str, [*was["env"], added]))


def test_kubectl_reads_a_file_of_variables_otherwise(kubectl, tmp_path):
    """Why the manifests say `--secrets`, and not `--from-env-file`."""
    (tmp_path / ".env").write_text("A='one two'\nB=${A}!\n")
    settings = Settings(root=tmp_path, image="shop", env_file=".env")
    environment = variables.read(settings)
    ours = kubernetes.secrets(workload.workloads(settings, IMAGE, environment))
    theirs = kubectl(
        *("create", "secret", "generic", "shop-environment", "--dry-run=client"),
        *("--output=yaml", f"--from-env-file={tmp_path / '.env'}"),
    )
    values = [
        {
            k: base64.b64decode(v).decode()
            for k, v in yaml.safe_load(text)["data"].items()
        }
        for text in (ours, theirs.stdout)
    ]
    assert values == [
        {"A": "one two", "B": "one two!"},
        {"A": "'one two'", "B": "${A}!"},
    ]
