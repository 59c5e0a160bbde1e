"""apt resolves base.in: with real apt, on an archive on the loopback."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from containerize.errors import Problem
from containerize.lock import base
from containerize.lock.base import Wanted
from containerize.settings import Settings

HELLO = Wanted(("hello",), ("script-runner",))


def test_resolves_for_both_architectures_with_the_date_of_the_suite(
    sample: Settings,
) -> None:
    found = base.resolve(sample, HELLO)
    time, packages = found.time, found.packages
    date = datetime.datetime(2024, 6, 1, 10, 20, 30, tzinfo=datetime.UTC)
    assert time == date.timestamp()
    assert [(p.name, p.version, p.architecture, p.path) for p in packages] == [
        (name, version, architecture, path.format(architecture))
        for architecture in ("amd64", "arm64")
        for name, version, path in (
            ("hello", "1:2.0-1", "pool/main/h/hello/hello_2.0-1_{}.deb"),
            ("hello-data", "2.0-1", "pool/main/h/hello/hello-data_2.0-1_all.deb"),
            (
                "libhello",
                "1.0-1+deb13u1",
                "pool/updates/main/h/hello/libhello_1.0-1+deb13u1_{}.deb",
            ),
        )
    ]


def test_takes_the_updates_suite_in(sample: Settings) -> None:
    packages = base.resolve(sample, Wanted(("tz",), ())).packages
    assert {p.version for p in packages} == {"2024a"}


def test_what_counts_as_provided_is_left_out(sample: Settings) -> None:
    packages = base.resolve(sample, dataclasses.replace(HELLO, provided=())).packages
    assert "script-runner" in {p.name for p in packages}


def test_a_dead_mirror_is_passed_over(sample: Settings) -> None:
    several = ("http://localhost:1/debian", *sample.mirrors)
    packages = base.resolve(
        dataclasses.replace(sample, mirrors=several), HELLO
    ).packages
    assert packages


def test_needs_no_root(sample: Settings) -> None:
    # The repository may be where nobody else can read.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        keyring = shutil.copy(sample.keyring, directory)
        assert _resolved_by_nobody(dataclasses.replace(sample, keyring=keyring))


def _resolved_by_nobody(sample: Settings) -> bool:
    """Whether a user without rights can resolve; this one, unless it is root."""
    child = os.fork()  # not a new process: the Python may be root's own, too
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            packages = base.resolve(sample, HELLO).packages
            os._exit(0 if packages else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_wrong_key_is_refused(sample: Settings) -> None:
    other = dataclasses.replace(sample, keyring=base.KEYRING)
    with pytest.raises(Problem, match=r"suite trixie cannot be read.*[Ss]ign"):
        base.resolve(other, HELLO)


@pytest.mark.parametrize("file", ["InRelease", "main/binary-amd64/Packages"])
def test_a_changed_index_is_refused(
    sample: Settings, debian: object, tmp_path: Path, file: str
) -> None:
    path = tmp_path / "debian/dists/trixie" / file
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    with pytest.raises(Problem, match="suite trixie cannot be read"):
        base.resolve(sample, HELLO)


def test_a_mirror_of_apt_must_be_fresh_and_one_of_the_settings_may_be_a_snapshot(
    sample: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.resolve(sample, HELLO)
    url = sample.mirrors[0]
    found = base.mirrors.Mirrors((url,), (url,))
    monkeypatch.setattr(base.mirrors, "find", lambda _: found)
    with pytest.raises(Problem, match="expired"):
        base.resolve(dataclasses.replace(sample, mirrors=()), HELLO)


def test_an_unknown_package_is_named(sample: Settings) -> None:
    with pytest.raises(Problem, match=r"base\.in .*locate package hullo"):
        base.resolve(sample, Wanted(("hullo",), ()))


def test_an_unmet_dependency_is_named(sample: Settings) -> None:
    with pytest.raises(Problem, match="unmet : Depends: nowhere-to-be-had"):
        base.resolve(sample, Wanted(("unmet",), ()))


def test_an_unreachable_mirror_is_named(sample: Settings) -> None:
    dead = dataclasses.replace(sample, mirrors=("http://localhost:1/debian",))
    with pytest.raises(Problem, match=r"localhost:1.*refused"):
        base.resolve(dead, HELLO)


def test_an_unknown_suite_is_named(sample: Settings) -> None:
    with pytest.raises(Problem, match="suite trixy cannot be read"):
        base.resolve(dataclasses.replace(sample, suite="trixy"), HELLO)


def test_without_apt_and_engine_it_names_both_ways_out(
    sample: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Problem) as info:
        base.resolve(sample, HELLO)
    assert "this host's apt lacks mirrors of Debian" in str(info.value)
    assert "on Debian add what apt lacks" in str(info.value)
    assert "CONTAINERIZE_DEBIAN_IMAGE" in str(info.value)
    assert "\n" not in str(info.value)


def test_without_a_keyring_it_says_what_to_install(sample: Settings) -> None:
    other = dataclasses.replace(sample, keyring="/nonexistent.gpg")
    with pytest.raises(
        Problem, match="debian-archive-keyring or set CONTAINERIZE_KEYRING"
    ):
        base.resolve(other, HELLO)


def test_reads_no_configuration_of_the_host_that_weakens_signatures(
    sample: Settings, apt_conf: Callable[..., None]
) -> None:
    apt_conf(
        'Acquire::AllowInsecureRepositories "true";',
        'APT::Get::AllowUnauthenticated "1";',
    )
    with pytest.raises(Problem, match=r"[Ss]ign"):
        base.resolve(dataclasses.replace(sample, keyring=base.KEYRING), HELLO)
