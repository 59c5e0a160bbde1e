"""An adopter's bundle has the tool too, and builds where there is no network."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.conftest import in_no_network

SHAPE = Path(__file__).parent / "shapes" / "wsgi"
OFFLINE = """
set -eu
tar -xf "$1" wheels source.tar
mkdir source
tar -xf source.tar -C source
cd source
python3 -m venv ../tool
../tool/bin/pip install --no-index --find-links=../wheels --requirement=tools.txt
../tool/bin/containerize fetch --from "$1"
../tool/bin/containerize build --no-cache
"""


def commit(adopter):
    identity = ("-c", "user.name=x", "-c", "user.email=x")
    adopter.run("git", "add", "--all")
    adopter.run("git", *identity, "commit", "--quiet", "--message=all")


def digest(text):
    [found] = re.findall(r"^digest +(sha256:\w+)$", text, re.M)
    return found


def test_an_adopter_builds_from_the_bundle_alone(adopter, installed, tmp_path):
    shutil.copytree(SHAPE, adopter.root, dirs_exist_ok=True)
    (adopter.root / "shape.toml").unlink()
    adopter.run("git", "init", "--quiet")
    adopter.run("containerize", "init")
    adopter.run("containerize", "lock")
    commit(adopter)
    assert "warning   this tool is not in it" in adopter.run("containerize", "bundle")
    [wheel] = installed.parent.parent.glob("flask_containerize-*.whl")
    (adopter.root / "wheels").mkdir()
    shutil.copy(wheel, adopter.root / "wheels")
    with (adopter.root / "tools.in").open("a") as file:
        file.write("flask-containerize\n")
    adopter.run("containerize", "lock")
    commit(adopter)
    said = adopter.run("containerize", "bundle", "--output", f"{tmp_path}/bundle.tar")
    assert "warning" not in said
    online = digest(adopter.run("containerize", "build"))
    away = tmp_path / "away"
    away.mkdir()
    caches = (f"HOME={away}", f"XDG_CACHE_HOME={away / 'cache'}")
    command = ("sh", "-c", OFFLINE, "sh", str(tmp_path / "bundle.tar"))
    done = subprocess.run(
        in_no_network("env", *caches, *command),
        cwd=away,
        env=adopter.environ,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0
    assert digest(done.stdout) == online
