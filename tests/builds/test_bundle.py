"""A bundle is all that a machine without a network needs to give the same digest."""

import re
import socket
import subprocess
import sys

import pytest

from containerize import settings
from containerize.publish import bundle
from tests.conftest import Quiet, copied, in_no_network

# A datagram socket connects to whatever there is a route to.
REACHES = """
import socket, sys
found = []
for address in ("192.0.2.1", "2001:db8::1", "127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if address == "127.0.0.1" else socket.SOCK_DGRAM
    try:
        socket.socket(family, kind).connect((address, int(sys.argv[1])))
        found.append(address)
    except OSError:
        pass
print(*found)
"""
OFFLINE = """
set -eu
tar -xf "$1" wheels source.tar
mkdir source
tar -xf source.tar -C source
cd source
PIP_NO_INDEX=1 PIP_FIND_LINKS=../wheels ./dev invoke fetch --from "$1"
./dev invoke build --all --no-cache
./dev invoke digest
"""


def git(root, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True)


@pytest.fixture
def committed(project, tmp_path):
    """A commit of the files as they are."""
    made = copied(project, tmp_path / "checkout")
    git(made.root, "init", "--quiet")
    git(made.root, "add", "--all")
    git(made.root, "commit", "--quiet", "--message=all")
    return made


def said(command):
    return subprocess.check_output(command, text=True).strip()


def test_a_machine_without_a_network_gives_the_same_digest(
    using, built, committed, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = (sys.executable, "-c", REACHES, str(server.getsockname()[1]))
        assert "127.0.0.1" in said(probe)
        assert said(in_no_network(*probe)) == ""
    made = bundle.write(committed, tmp_path / "bundle.tar", progress=Quiet())
    away = tmp_path / "away"
    away.mkdir()
    given = {
        "HOME": str(away),  # no cache of ours, of pip's or of another tool
        "XDG_CACHE_HOME": str(away / "cache"),
        f"{settings.PREFIX}IMAGE": committed.image,
        f"{settings.PREFIX}TAGS": "test",
        f"{settings.PREFIX}ENGINE": using.command[0],
    }
    done = subprocess.run(
        in_no_network("env", *(f"{key}={value}" for key, value in given.items()),
                      "sh", "-c", OFFLINE, "sh", str(made.path)),
        cwd=away, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0
    found = re.findall(r"^manifest  (\S+)$", done.stdout, re.M)
    assert built.digests.manifest in found
    assert len(found) == len(committed.image_architectures)
