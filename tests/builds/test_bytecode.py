"""What is at a path is what runs: a compiled module is no substitute for its source."""

import json

import pytest

MODULES = ("served.settings", "flask.views", "json.decoder")
"""One of the service, of a wheel, and of the standard library."""

READ = """
import importlib, json, sys
modules = map(importlib.import_module, sys.argv[1:])
print(json.dumps([[m.__file__, open(m.__file__).read()] for m in modules]))
"""
SHOW = """
import importlib, sys
print(*(getattr(importlib.import_module(n), 'MARK', 'packed') for n in sys.argv[1:]))
"""


@pytest.fixture
def python(using, project, built):
    """Run a script in the image, or in another, and return what it prints."""

    def python(script, *arguments, options=(), reference=built.references[0]):
        answer = using.run(
            "run", "--rm", f"--label={project.label}", "--network=none", *options,
            "--entrypoint=python3", reference, "-c", script, *arguments,
        )  # fmt: skip
        return answer.stdout

    return python


@pytest.fixture
def marked(python, tmp_path):
    """Each module's path in the image, and a file like it with one line more."""
    found = {}
    for number, (path, text) in enumerate(json.loads(python(READ, *MODULES))):
        copy = tmp_path / f"{number}.py"
        copy.write_text(text + "\nMARK = 'changed'\n")
        found[path] = copy
    return found


def test_a_mounted_module_runs(python, marked):
    options = [f"--volume={copy}:{path}:ro" for path, copy in marked.items()]
    assert python(SHOW, *MODULES).split() == ["packed"] * 3
    assert python(SHOW, *MODULES, options=options).split() == ["changed"] * 3


def test_a_module_copied_over_the_image_runs(
    python, marked, using, project, built, tmp_path
):
    lines = [f"COPY {copy.name} {path}" for path, copy in marked.items()]
    text = "\n".join([f"FROM {built.references[0]}", *lines, ""])
    (tmp_path / "Dockerfile").write_text(text)
    name = f"{project.image}:copied"
    using.run("build", "--network=none", f"--tag={name}", str(tmp_path))
    assert python(SHOW, *MODULES, reference=name).split() == ["changed"] * 3


def test_a_mounted_directory_is_all_there_is(python, tmp_path):
    """A module that it lacks is gone; one that is a package now is that package."""
    package = tmp_path / "served" / "settings"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("MARK = 'package'\n")
    (package.parent / "__init__.py").write_text("MARK = 'directory'\n")
    gone = "\ntry: import served.logs\nexcept ImportError as error: print(error)"
    options = [f"--volume={tmp_path / 'served'}:/usr/local/lib/served/served:ro"]
    found = python(SHOW + gone, "served", "served.settings", options=options)
    assert found.splitlines() == ["directory package", "No module named 'served.logs'"]
