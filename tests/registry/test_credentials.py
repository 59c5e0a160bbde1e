"""Who pushes: Basic and tokens, files and helpers, and what no message gives away."""

import base64
import json
import os
import re
import stat
import subprocess
import urllib.parse

import pytest

from containerize.errors import Problem
from containerize.publish import credentials
from containerize.publish.reference import parse
from containerize.publish.registry import Repository
from tests import registries
from tests.registries import PASSWORD, USER

AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
IDENTITY = "an-identity-token"


@pytest.fixture
def guarded(tmp_path):
    """A registry that wants a password."""
    with registries.registry(auth=registries.htpasswd(tmp_path / "htpasswd")) as made:
        yield made


@pytest.fixture
def tokens(tmp_path):
    with registries.serving(registries.TokenServer(tmp_path / "pki")) as made:
        yield made


@pytest.fixture
def bearer(tokens):
    """A registry that wants a token of `tokens`."""
    with registries.registry(auth=tokens.auth()) as made:
        yield made


@pytest.fixture
def docker(home):
    """Writes Docker's config.json."""

    def write(**config):
        file = home / ".docker/config.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(config))
        return file

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Puts a credential helper on the PATH, of which `script` is the shell's part."""

    def write(script):
        directory = tmp_path / "bin"
        directory.mkdir(exist_ok=True)
        file = directory / "docker-credential-test"
        file.write_text(f"#!/bin/sh\n[ $1 = get ] || exit 2\nread -r asked\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        return directory

    return write


def refusal(push, target):
    """The one line, which has no secret in it."""
    with pytest.raises(Problem) as caught:
        push(target)
    shown = [caught.value, caught.value.__cause__, *push.progress.notes]
    for text in map(repr, shown):
        for secret in (PASSWORD, AUTH, IDENTITY, "eyJ"):
            assert secret not in text
            assert urllib.parse.quote(secret) not in text
    text = str(caught.value)
    assert "\n" not in text
    return text


def entry(user=USER, password=PASSWORD):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_as_docker_login_leaves_it(guarded, push, docker):
    docker(auths={guarded.host: entry()})
    done = push(f"{guarded.host}/sample")
    assert guarded.tag("sample", "latest") == done.reference.digest


def test_as_podman_login_leaves_it(guarded, push, home):
    """By skopeo, which has the same code."""
    (home / "run").mkdir()
    made = subprocess.run(
        [
            *(registries.require("skopeo", "skopeo"), "login", "--tls-verify=false"),
            *("--username", USER, "--password-stdin", guarded.host),
        ],
        input=PASSWORD.encode(),
        capture_output=True,
        check=False,
    )
    assert not made.returncode, made.stderr.decode()
    assert (home / "run/containers/auth.json").exists()
    done = push(f"{guarded.host}/sample")
    assert guarded.tag("sample", "latest") == done.reference.digest


@pytest.mark.parametrize(
    "place",
    [
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "DOCKER_AUTH_CONFIG",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
    ],
)
def test_each_place(guarded, push, tmp_path, monkeypatch, place):
    config = json.dumps({"auths": {guarded.host: entry()}})
    below = {"DOCKER_CONFIG": "config.json", "REGISTRY_AUTH_FILE": ""}
    file = tmp_path / "place" / below.get(place, "containers/auth.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    if place == "DOCKER_AUTH_CONFIG":
        monkeypatch.setenv(place, config)
    else:
        target = tmp_path / "place" if place != "REGISTRY_AUTH_FILE" else file / "a"
        target.parent.mkdir(parents=True, exist_ok=True)
        (target if place == "REGISTRY_AUTH_FILE" else file).write_text(config)
        monkeypatch.setenv(place, str(target))
    push(f"{guarded.host}/sample")
    assert guarded.tag("sample", "latest")


def test_the_longest_part_of_a_name_counts(docker, home):
    docker(
        auths={
            "https://host.invalid/v1/": entry("old"),
            "host.invalid/team": entry("team"),
            "host.invalid/team/app": entry("app"),
            "host.invalid/te": entry("none"),
            "host.invalid:5000": entry("port"),
        }
    )

    def user(registry, name):
        found = credentials.find(registry, name)
        return found and found.user

    assert user("host.invalid", "other") == "old"
    assert user("host.invalid", "team/other") == "team"
    assert user("host.invalid", "team/app") == "app"
    assert user("host.invalid", "team/application") == "team"
    assert user("host.invalid:5000", "team") == "port"
    assert user("other.invalid", "team") is None


def test_nobody_has_logged_in(guarded, push, home):
    said = refusal(push, f"{guarded.host}/sample")
    assert f"{guarded.host} wants credentials" in said
    assert str(home / ".docker/config.json") in said
    assert said.endswith(f"run `docker login {guarded.host}`")


def test_a_wrong_password(guarded, push, docker):
    file = docker(auths={guarded.host: entry(password="wrong")})
    said = refusal(push, f"{guarded.host}/sample")
    assert f"refuses the credentials of {file}: run `docker login" in said
    assert not guarded.blobs()


def test_a_registry_that_asks_nobody_reads_no_file(registry, push, docker):
    docker(credsStore="missing")
    assert push(f"{registry.host}/sample").sent


@pytest.mark.parametrize(
    "config",
    [
        lambda host: {"credsStore": "test"},
        lambda host: {"credsStore": "test", "auths": {host: {}}},
        lambda host: {"credHelpers": {host: "test"}, "credsStore": "missing"},
    ],
)
def test_a_helper(guarded, push, docker, helper, config):
    docker(**config(guarded.host))
    answer = json.dumps({"ServerURL": "", "Username": USER, "Secret": PASSWORD})
    helper(f"[ \"$asked\" = {guarded.host} ] && cat <<'END'\n{answer}\nEND")
    push(f"{guarded.host}/sample")
    assert guarded.tag("sample", "latest")


def test_a_helper_that_has_nothing(guarded, push, docker, helper):
    docker(credsStore="test", auths={guarded.host: entry()})
    helper("echo 'credentials not found in native keychain'; exit 1")
    push(f"{guarded.host}/sample")
    assert guarded.tag("sample", "latest")


def test_a_helper_that_is_missing(guarded, push, docker):
    file = docker(credHelpers={guarded.host: "missing"})
    said = refusal(push, f"{guarded.host}/sample")
    assert f"{file} names the credential helper docker-credential-missing" in said
    assert "install it" in said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'the keyring is locked'; exit 1", "fails: the keyring is locked"),
        ("echo 'the keyring is locked' >&2; exit 1", "fails: the keyring is locked"),
        ("exit 3", "docker-credential-test of .* fails: mend that"),
        (f'echo \'{{"Secret":"{PASSWORD}\'; exit 1', "fails: mend that"),
        (f"echo '{PASSWORD}'", "answers no credentials"),
        (f"echo '[\"{PASSWORD}\"]'", "answers no credentials"),
    ],
)
def test_a_helper_that_fails(guarded, push, docker, helper, script, said):
    docker(credsStore="test")
    helper(script)
    assert re.search(said, refusal(push, f"{guarded.host}/sample"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"auths": []}',
        f'{{"auths": {{"x": "{PASSWORD}"',
        f'{{"auths": "{PASSWORD}"}}',
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_not_shown(guarded, push, docker, text):
    file = docker()
    file.write_text(text)
    said = refusal(push, f"{guarded.host}/sample")
    assert f"{file} has no credentials as `docker login` writes them" in said


@pytest.mark.parametrize("auth", ["?", "bm9jb2xvbg==", "/w=="])
def test_an_entry_that_cannot_be_read(guarded, push, docker, auth):
    file = docker(auths={guarded.host: {"auth": auth}})
    said = refusal(push, f"{guarded.host}/sample")
    assert f"{file}: what stands there for {guarded.host} cannot be read" in said


def test_a_token_for_a_password(bearer, tokens, push, docker):
    docker(auths={bearer.host: entry()})
    done = push(f"{bearer.host}/sample")
    assert bearer.tag("sample", "latest") == done.reference.digest
    scopes = [scope for asked in tokens.asked for scope in asked["scope"]]
    assert scopes == ["repository:sample:pull", "repository:sample:pull,push"]


def test_a_token_for_an_identity_token(bearer, tokens, push, docker):
    docker(auths={bearer.host: {"auth": "", "identitytoken": IDENTITY}})
    push(f"{bearer.host}/sample")
    assert bearer.tag("sample", "latest")


def test_an_identity_token_of_a_helper(bearer, tokens, push, docker, helper):
    docker(credsStore="test")
    answer = json.dumps({"Username": "<token>", "Secret": IDENTITY})
    helper(f"cat <<'END'\n{answer}\nEND")
    push(f"{bearer.host}/sample")
    assert bearer.tag("sample", "latest")


def test_a_mount_asks_for_both_repositories(bearer, tokens, push, docker):
    docker(auths={bearer.host: entry()})
    push(f"{bearer.host}/first")
    tokens.asked.clear()
    assert push(f"{bearer.host}/second").sent == 0
    both = ["repository:second:pull,push", "repository:first:pull"]
    assert both in [asked["scope"] for asked in tokens.asked]


def test_where_the_other_repository_may_not_be_read_blobs_are_sent(
    bearer, tokens, push, docker
):
    docker(auths={bearer.host: entry()})
    push(f"{bearer.host}/first")

    def without_first(number):
        scopes = tokens.asked[-1].get("scope", [])
        if not any("first" in scope for scope in scopes):
            return {}
        return {"access": []}

    tokens.claims = without_first
    assert push(f"{bearer.host}/second").sent
    assert bearer.tag("second", "latest")


def test_a_token_that_ends_during_the_push_is_got_anew(bearer, tokens, push, docker):
    docker(auths={bearer.host: entry()})
    tokens.lifetime = 0.001
    push(f"{bearer.host}/sample")
    assert len(tokens.asked) > 4  # two, if none ends
    assert bearer.tag("sample", "latest")


def test_a_token_that_is_refused_is_got_anew(bearer, tokens, push, docker):
    """Ended before the time that was said, or revoked."""
    docker(auths={bearer.host: entry()})
    # One: threads that push at once might each get another bad one, twice in a row.
    tokens.claims = lambda number: {"exp": 1} if number == 1 else {}
    push(f"{bearer.host}/sample")
    assert bearer.tag("sample", "latest")
    assert len(tokens.asked) >= 2


def test_a_token_that_says_nothing_of_its_end(bearer, tokens, push, docker):
    docker(auths={bearer.host: entry()})
    tokens.lifetime = None
    push(f"{bearer.host}/sample")
    assert len(tokens.asked) == 2


def test_a_token_that_is_not_valid_yet(bearer, tokens, push, docker):
    """The clocks of registry and token server differ."""
    docker(auths={bearer.host: entry()})
    tokens.claims = lambda number: {"nbf": 4_000_000_000, "exp": 4_000_000_300}
    said = refusal(push, f"{bearer.host}/sample")
    assert "does not take the token that its token server has just given" in said
    assert "do the clocks of both agree?" in said


def test_a_token_server_that_refuses(bearer, tokens, push, docker):
    file = docker(auths={bearer.host: entry(password="wrong")})
    said = refusal(push, f"{bearer.host}/sample")
    assert f"refuses the credentials of {file}: run `docker login" in said


def test_an_identity_token_that_has_ended(bearer, tokens, push, docker):
    file = docker(auths={bearer.host: {"identitytoken": "old"}})
    said = refusal(push, f"{bearer.host}/sample")
    assert f"refuses the credentials of {file}: run `docker login" in said


def test_who_may_only_read(bearer, tokens, push, docker):
    docker(auths={bearer.host: entry()})
    tokens.claims = lambda number: {
        "access": [{"type": "repository", "name": "sample", "actions": ["pull"]}]
    }
    said = refusal(push, f"{bearer.host}/sample")
    assert "denies sample to who writes with the credentials of" in said


def test_what_is_public_is_read_without_a_name(bearer, tokens, push, docker):
    file = docker(auths={bearer.host: entry()})
    done = push(f"{bearer.host}/sample")
    file.unlink()
    tokens.public = True
    repository = Repository.at(parse(f"{bearer.host}/sample"))
    assert repository.find_manifest("latest") == done.reference.digest
    said = refusal(push, f"{bearer.host}/sample:other")
    assert "without credentials" in said


def test_a_token_server_without_tls_elsewhere_gets_no_password(
    registry, faults, push, docker
):
    docker(auths={faults.host: entry()})
    realm = {"WWW-Authenticate": 'Bearer realm="http://host.invalid/token"'}
    faults.fault = lambda request: {"status": 401, "headers": realm}
    said = refusal(push, f"{faults.host}/sample")
    assert "leads to host.invalid without TLS" in said


def test_where_a_registry_redirects_to_gets_no_password(guarded, push, docker):
    """As registries do whose blobs are in a store of their own."""
    with registries.serving(registries.Faults(guarded.port)) as faults:
        docker(auths={faults.host: entry()})
        done = push(f"{faults.host}/sample")
        with registries.serving(registries.Faults(guarded.port)) as store:
            moved = {"Location": f"http://{store.host}/elsewhere"}
            faults.fault = lambda r: (
                {"status": 307, "headers": moved} if r.is_("GET", "blobs") else None
            )
            store.fault = lambda r: {"status": 200, "content": b"content"}
            digest = registries.digest(b"content")
            repository = Repository.at(done.reference)
            assert b"".join(repository.read_blob(digest, 7)) == b"content"
            (request,) = store.requests
            assert "authorization" not in request.headers
            assert any("authorization" in r.headers for r in faults.requests)


def test_a_registry_that_says_back_what_it_was_told(registry, faults, push, docker):
    docker(auths={faults.host: entry()})
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}

    def echo(request):
        if request.is_("HEAD"):
            return None
        if "authorization" not in request.headers:
            return {"status": 401, "headers": challenge}
        said = f"{request.headers['authorization']} {PASSWORD} is not good"
        content = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
        return {"status": 403, "content": content}

    faults.fault = echo
    assert "is not good" in refusal(push, f"{faults.host}/sample")
