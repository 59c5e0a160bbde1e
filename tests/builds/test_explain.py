"""Defects that a real build makes: each is found in the image, and its cause named."""

import dataclasses
import json
import os

import pytest

from containerize import build
from containerize.image import canonical
from containerize.verify import explain


def run(code):
    return "RUN " + json.dumps(["python3", "-c", code])


DOCKERFILE = f"""
FROM BASE
USER 0:0
COPY copied /defects/umask
{run("import time; open('/defects/date', 'w').write('built: ' + time.ctime())")}
{run("import os; open('/defects/host', 'w').write('host: ' + os.uname().nodename)")}
{
    run(
        "import os, py_compile as p; open('/tmp/m.py', 'w').write('x = 1');"
        "p.compile('/tmp/m.py', '/defects/m.pyc',"
        "invalidation_mode=p.PycInvalidationMode.TIMESTAMP)"
    )
}
{run("open('/defects/fresh', 'w')")}
"""

CAUSES = {
    "/defects/umask": ("mode", "umask leak"),
    "/defects/date": ("bytes", "date of the build"),
    "/defects/host": ("bytes", "host name"),
    "/defects/m.pyc": ("bytes", ".pyc with a time stamp"),
}


@pytest.fixture
def twice(built, using, project, tmp_path):
    """Two builds of DOCKERFILE: what the engine saved, and its canonical form."""
    text = DOCKERFILE.replace("BASE", built.references[0])
    made = []
    for number, umask in enumerate((0o022, 0o077)):
        here = tmp_path / f"build{number}"
        here.mkdir()
        (here / "Dockerfile").write_text(text)
        before = os.umask(umask)
        try:
            (here / "copied").touch()
        finally:
            os.umask(before)
        name, saved = f"{project.image}:defects{number}", here / "saved.tar"
        copied = dataclasses.replace(project, root=here)
        build_it = build.build_command(copied, using.kind, [name], cache=False)
        # BuildKit names its containers all alike; the others make up a name for each.
        sandbox = f"BUILDKIT_SANDBOX_HOSTNAME=host{number}"
        using.run(*build_it[:-1], "--build-arg", sandbox, ".", cwd=here)
        using.run(*build.save_command(using.kind, name, saved))
        canonical.canonicalize(
            saved, here / "image.tar", time=0, labels={}, references=[]
        )
        made.append((saved, here / "image.tar"))
        using.run("rmi", "--force", name)
    return made


def test_the_cause_of_each_defect_is_named(twice):
    (saved, plain), (again, other) = twice
    found = {d.path: d for d in explain.compare(plain, other)}
    assert {path: each.field for path, each in found.items()} == {
        path: field for path, (field, _) in CAUSES.items()
    }
    for path, (_, cause) in CAUSES.items():
        assert cause in found[path].cause
    # An empty file made anew is no difference to a canonical archive.
    raw = {(d.path, d.field): d for d in explain.compare(saved, again, verbose=True)}
    assert "fresh mtime" in raw["/defects/fresh", "mtime"].cause
