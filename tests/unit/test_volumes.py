"""What containers mount: the settings, as options of the engine."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from containerize import settings
from containerize.engines import volumes
from containerize.errors import Problem


@pytest.fixture
def project(tmp_path):
    return settings.Settings(
        root=tmp_path,
        image="shop",
        volumes=("data:/data", "./conf:/conf:rw,Z", "late:/data/"),
    )


def test_the_last_at_a_path_stands_and_directories_are_absolute(project, tmp_path):
    assert [mount.option for mount in volumes.mounts(project)] == [
        "--volume=late:/data/",
        f"--volume={tmp_path}/conf:/conf:rw,Z",
    ]


def test_a_test_has_volumes_apart_and_writes_no_directory(project, tmp_path):
    assert volumes.apart(project, "x") == (
        "late-x:/data/",
        f"{tmp_path}/conf:/conf:Z,ro",
    )


def test_secrets_are_files_below_the_top_or_where_they_are(project, tmp_path):
    files = {"db": "secrets/db", "key": "/etc/shop/key", "mine": "~/mine"}
    given = dataclasses.replace(project, secrets=files)
    home = os.path.expanduser("~")
    assert [secret.option for secret in volumes.secrets(given)] == [
        f"--mount=type=bind,source={source},target=/run/secrets/{name},readonly"
        for name, source in (
            ("db", f"{tmp_path}/secrets/db"),
            ("key", "/etc/shop/key"),
            ("mine", f"{home}/mine"),
        )
    ]


@pytest.mark.parametrize("character", ',"\n')
def test_a_top_that_engines_cannot_mount_from_is_one_line(project, character):
    top = project.root / f"a{character}b"
    given = dataclasses.replace(project, root=top, secrets={"db": "db"})
    with pytest.raises(Problem, match=r"engines cannot mount .*: move it") as caught:
        [secret.option for secret in volumes.secrets(given)]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("user", "said"),
    [(0, "`chown 65532:65532 '/a b'`"), (1000, "`chmod a\\+r '/a b'`, in a directory")],
)
def test_who_is_told_to_give_a_secret_can_do_it(monkeypatch, user, said):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    secret = volumes.Secret("db", Path("/a b"))
    assert re.search(said, volumes._unreadable(secret, 0, 65532, 65532))
