"""The tasks' face: their words, their flags, and what bad input gets."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from invoke import Config, Context, Exit

from containerize import FORMAT, build, settings
from containerize.errors import Problem
from containerize.image import canonical, record
from containerize.init import marks
from containerize.lock import locks
from containerize.pack import layers
from containerize.tasks import describe, namespace
from containerize.verify import rebuild

ROOT = settings.find_root(Path(__file__).parent)
TASKS = namespace.tasks


def invoke(*arguments, cwd=ROOT, stdout=subprocess.PIPE, **environment):
    """Run `invoke` as a user does, where no engine answers."""
    base = {k: v for k, v in os.environ.items() if not k.startswith("CONTAINERIZE_")}
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=cwd,
        env=base | nowhere | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def refused(result):
    """The one line that a command which failed wrote."""
    assert result.returncode not in (0, -15), result
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.fixture
def clone(tmp_path):
    """A copy of what the tasks need, to be broken."""
    for name in ("containerize", "app"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("tasks.py", "pyproject.toml", "Dockerfile", ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path)
    for file in [*ROOT.glob("*.in"), *ROOT.glob("*.lock"), *ROOT.glob("*.txt")]:
        shutil.copy(file, tmp_path)
    return tmp_path


def arguments(task):
    """A task's flags; Invoke takes their help away from the task that it asks."""
    return copy.deepcopy(task).get_arguments()


FLAGS = [
    (name, argument)
    for name, task in TASKS.items()
    for argument in arguments(task)
    if argument.takes_value and argument.kind in (str, list) and not argument.positional
]


@pytest.mark.parametrize(
    ("name", "argument"), FLAGS, ids=[f"{name}-{flag.name}" for name, flag in FLAGS]
)
def test_an_empty_flag_is_not_taken_for_none(name, argument):
    # As `verify --against "$DIGEST"` has it if nobody has set DIGEST.
    task, dry = TASKS[name], Context(Config(overrides={"run": {"dry": True}}))
    flags = {a.attr_name or a.name: a.value for a in arguments(task)}
    empty = [""] if argument.kind is list else ""
    flag = argument.name.strip("_").replace("_", "-")
    with pytest.raises(Exit, match=f"^{name}: --{flag} is empty: "):
        task(dry, **flags | {argument.attr_name or argument.name: empty})


def test_build_prints_what_layers_warn_of(capsys):
    layer = layers.Layer("rootfs", Path("rootfs.tar"), "", 0, warnings=("tool: gone",))
    digests = canonical.ImageDigests("m", "c", (), ("doubtful",))
    lock = locks.BaseLock("trixie", 0, ())
    packed = layers.Packed(layers=(layer,), locked=lock, left_out=(), notes=())
    describe(
        build.Image(
            references=(),
            archive=Path("a.tar"),
            digests=digests,
            packed=packed,
            ignored=(),
        )
    )
    assert re.findall(r"^warning +(.*)$", capsys.readouterr().out, re.M) == [
        "tool: gone",
        "doubtful",
    ]


def test_the_issues_tasks_are_there():
    assert set(TASKS) >= {
        "build", "clean", "engine", "fetch", "images", "lint", "lock", "logs", "ps",
        "run", "stop", "up",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_task_and_flag_has_help(name):
    task = TASKS[name]
    assert task.__doc__
    for argument in task.get_arguments():
        assert argument.help, f"{name} --{argument.name} has no help"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_an_empty_flag_can_be_told_from_none(name):
    found = TASKS[name].get_arguments()
    assert [each.name for each in found if each.default == ""] == []


@pytest.mark.parametrize("module", ["invoke", "containerize"])
@pytest.mark.parametrize("name", [n for n in TASKS if TASKS[n].positional])
def test_help_is_no_word_for_a_verb_that_wants_one(module, name):
    command = [sys.executable, "-m", module, name, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f" {name} [--options]" in done.stdout
    assert TASKS[name].__doc__.splitlines()[0][:40] in done.stdout


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_readme_names_each_task(name):
    assert f"invoke {name}" in (ROOT / "README.md").read_text("utf-8")


def test_list_needs_neither_an_engine_nor_the_package():
    result = invoke("--list")
    assert result.returncode == 0
    assert all(f"  {name} " in result.stdout for name in TASKS)
    script = (
        "import sys, tasks; "
        "print(sorted(m for m in sys.modules if 'containerize.' in m))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert loaded.stdout.strip() == str(
        [
            f"containerize.{name}"
            for name in ("tasks", "tasks_deploy", "tasks_publish", "terminal", "verbs")
        ]
    )


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_py_shows_each_verb(name):
    assert re.search(rf"\b{name}\b", (ROOT / "tasks.py").read_text("utf-8"))


def test_tasks_are_found_from_below():
    assert invoke("--list", cwd=ROOT / "tests" / "unit").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["build"],
            "^\\$ docker build --network none .*--tag flask-introduction:building-"
            "(.|\n)*"
            "docker tag CONFIG-DIGEST flask-introduction:latest",
        ),
        (["build", "--tag=a", "--tag", "b"], ":a\n.*DIGEST flask-introduction:b"),
        (["build", "--no-cache"], "--no-cache"),
        (["build", "--engine", "podman"], "^\\$ podman build"),
        (["run", "--port", "9000"], "--publish=127.0.0.1:9000:8080"),
        (["run", "--tag", "v2", "--name", "x1"], "--name=x1 .* flask-introduction:v2"),
        (["run"], "--read-only .*--cap-drop=ALL .*no-new-privileges .*--pids-limit"),
        (
            ["up"],
            "docker build (.|\n)*docker save (.|\n)*docker load (.|\n)*docker run",
        ),
        (["run", "--env", "A=geheim"], "--env=A flask-introduction(?!(.|\n)*geheim)"),
        (["run", "--volume", "./x:/y"], "--volume=/.*/x:/y "),
        (["run", "--memory", "64m", "--network=n"], "--memory=64m .*--network=n "),
        (["up", "--env", "A=geheim"], "docker run .*--env=A (?!(.|\n)*geheim)"),
        (
            ["exec", "--env", "A=1", "--", "python3", "-c", "print('a  b')"],
            "docker run .*--env=A .*--entrypoint=python3 \\S+ -c 'print.*a  b",
        ),
        (
            ["dev", "--port", "9000", "--env", "A=geheim"],
            "docker build (.|\n)*docker create .*--env=A .*target=/srv,readonly .*"
            "\n.*docker start --attach \\S+-dev(?!(.|\n)*geheim)",
        ),
        (["clean", "--volumes"], "Would remove .* volumes"),
        (["stop"], "docker stop flask-introduction\n.*docker rm flask-introduction"),
        (["ps"], "docker ps --all --filter label="),
        (["images"], "docker images --filter label="),
        (["logs", "--follow"], "docker logs --follow flask-introduction"),
        (["clean"], "Would remove"),
        (["lock"], "Would resolve"),
        (["outdated"], "Would resolve the locks in .* and write none"),
        (["fetch"], "Would fetch what is missing into "),
        (["fetch", "--from=b.tar"], "Would take from b.tar what is missing into "),
        (["sbom"], r"Would write flask-introduction-amd64\.cdx\.json, \S+json to "),
        (["provenance"], r"Would write flask-introduction\.provenance\.json to "),
        (["bundle"], "Would write what .* to .*/dist/flask-introduction-bundle.tar"),
        (["bundle", "--output=x.tar"], "Would write what .* to x.tar"),
        (
            ["push", "host.invalid/b", "--tag", "x", "--tag", "y"],
            r"^Would push \S+\.tar to host\.invalid/b:x, host\.invalid/b:y, SBOM and "
            r"provenance beside it\.$",
        ),
    ],
)
def test_dry_shows_and_does_nothing(clone, arguments, expected):
    before = sorted(clone.rglob("*"))
    result = invoke("--dry", *arguments, cwd=clone, PYTHONDONTWRITEBYTECODE="1")
    assert result.returncode == 0, result.stderr
    assert re.search(expected, result.stdout), result.stdout
    assert sorted(clone.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--port", "0"],
            "run: port 0 is no port: use a number from 1 to 65535",
        ),
        (["run", "--port", "70000"], "port 70000 is no port"),
        (["run", "--memory", "lots"], "memory 'lots' is no size"),
        (["run", "--volume", "x"], "volume 'x' is none"),
        (["run", "--network", "host"], "network 'host' is none that a port"),
        (["run", "--env", "NOWHERE"], "--env NOWHERE: there is no such variable"),
        (["up", "--env-file", "nowhere"], "there is no file "),
        (["dev", "--port", "0"], "dev: port 0 is no port"),
        (["dev", "--volume", "x"], "volume 'x' is none"),
        (["exec"], "exec: there is no command: give it as in exec -- flask db up"),
        (["run", "--port", "abc"], "port abc is no port"),
        (["up", "--port", "abc"], "port abc is no port"),
        (["build", "--tag", "a b"], "'a b' is no tag"),
        (["build", "--tag", "Ünï"], "is no tag"),
        (["run", "--tag", ".x"], "'.x' is no tag"),
        (["run", "--name", "a b"], "no container name"),
        (["stop", "--name", "-x-"], "no container name"),
        (["run", "--detach", "--foreground"], "exclude each other"),
        (["push", "a/b"], "push: 'a/b' names no registry: put its host before"),
        (["push", "host.invalid/B"], "'B' is a name that no registry takes"),
        (["push", "host.invalid/b", "-t", "x", "-t", "x"], "tag x is given twice"),
        (["push", "host.invalid/b", "-t", f"sha256-{'0' * 64}"], "is kept for what"),
        (["push", "host.invalid/b", "-t", f"sha256-{'0' * 64}.sig"], "is kept for"),
        (["push"], "required positional arguments: 'target'"),
        (["push", ""], "push: '' names no registry"),
        (["verify", "--against", ""], "verify: --against is empty: give it a value"),
        (["fetch", "--from="], "fetch: --from is empty: give it a value"),
        (["--dry", "bundle", "--output="], "bundle: --output is empty: give it"),
        (["build", "--engine", ""], "build: --engine is empty: give it a value"),
        (["up", "--env-file", ""], "up: --env-file is empty: give it a value"),
        (["fetch", "--from", "nowhere"], "fetch: cannot read nowhere: No such file"),
    ],
)
def test_bad_flags_get_one_line(arguments, message):
    assert message in refused(invoke(*arguments))


@pytest.mark.parametrize("arguments", [["--dry", "clean"], ["--dry", "build"]])
def test_a_full_disk_behind_stdout_gets_one_line(arguments):
    with open("/dev/full", "w") as full:
        result = invoke(*arguments, stdout=full)
    assert result.returncode == 1
    assert "cannot write to stdout: No space left on device" in refused(result)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("word", ["--list", "--version", "--help"])
def test_what_is_listed_for_nobody_gets_no_traceback(word, unbuffered):
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}

    def ended(stdout):
        command = [sys.executable, "-m", "containerize", word]
        done = subprocess.run(
            command, cwd=ROOT, env=environ, stdout=stdout, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    read, write = os.pipe()
    os.close(read)
    assert ended(write) == (128 + signal.SIGPIPE, "")
    os.close(write)
    with open("/dev/full", "w") as full:
        said = "containerize: cannot write to stdout: No space left on device\n"
        assert ended(full) == (1, said)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"CONTAINERIZE_PORT": "abc"},
            "CONTAINERIZE_PORT must be a whole number, not 'abc'",
        ),
        ({"CONTAINERIZE_BASE_IMAGE": "python:3.13"}, "has no digest"),
        ({"CONTAINERIZE_ENGINE": "no-such-engine"}, "no-such-engine"),
    ],
)
def test_bad_settings_get_one_line(environment, message):
    assert message in refused(invoke("ps", **environment))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dockerfile", "there is no Dockerfile"),
        ("pyproject.toml", "pyproject.toml"),
    ],
)
def test_missing_files_get_one_line(clone, name, message):
    (clone / name).unlink()
    assert message in refused(invoke("lint", cwd=clone))


@pytest.mark.parametrize("verb", ["sbom", "provenance"])
def test_evidence_on_what_is_not_built_gets_one_line(clone, verb):
    shutil.copytree(ROOT / "served", clone / "served")
    engine = {"CONTAINERIZE_ENGINE": "no-such-engine"}
    assert "no-such-engine" in refused(invoke(verb, cwd=clone, **engine))
    assert not (clone / "dist").exists()


def test_a_dockerfile_of_an_older_format_gets_one_line(clone):
    (clone / "Dockerfile").write_text(marks.marked("FROM scratch\n", FORMAT - 1))
    facts = record.read_golden(ROOT / record.GOLDEN)
    old = {key: value | {"format": FORMAT - 1} for key, value in facts.items()}
    (clone / record.GOLDEN).write_text(json.dumps(old))
    said = f"Dockerfile is of format {FORMAT - 1} of this tool"
    assert said in refused(invoke("lint", cwd=clone))
    # Not digests.json, which `digest --save` would not save before this is mended.
    with pytest.raises(Problem, match=said):
        rebuild.verify(settings.load(clone), [])


def test_lint_reads_the_dockerfile_of_the_settings(clone):
    shutil.copy(ROOT / ".hadolint.yaml", clone)
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    shutil.move(clone / "Dockerfile", clone / "containerize.Dockerfile")
    (clone / "Dockerfile").write_text("FROM debian\n")
    named = {"CONTAINERIZE_DOCKERFILE": "containerize.Dockerfile"}
    assert invoke("lint", cwd=clone, PATH=path, **named).returncode == 0


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("FROM debian\n", "DL3006"),
        ("FROM debian:12@sha256:0\nRUN apt-get install x\n", "DL3008"),
        ("FROM debian:12@sha256:0\nRUN cd /tmp\n", "DL3003"),
        ("FROM scratch\nENTRYPOINT python3\n", "DL3025"),
        ("FROM scratch\nUSER 1\n", "DL3057"),
    ],
)
def test_every_finding_of_hadolint_fails(clone, lines, rule):
    shutil.copy(ROOT / ".hadolint.yaml", clone)
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    assert invoke("lint", cwd=clone, PATH=path).returncode == 0
    (clone / "Dockerfile").write_text(lines)
    result = invoke("lint", cwd=clone, PATH=path)
    assert result.returncode != 0
    assert rule in result.stdout
    assert "Traceback" not in result.stderr


def test_lint_reads_the_dockerfile_that_is_ours(clone):
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    (clone / "Dockerfile").rename(clone / "ours.Dockerfile")
    (clone / "Dockerfile").write_text("FROM debian\n")
    words = {"cwd": clone, "PATH": path, "CONTAINERIZE_DOCKERFILE": "ours.Dockerfile"}
    assert invoke("lint", **words).returncode == 0


def test_settings_are_found_in_one_file_only():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"[{settings.TABLE}]" in text
    loaded = settings.load(ROOT, {})
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    # formats that force a second copy of a fact
    assert f"EXPOSE {loaded.container_port}\n" in dockerfile
    assert f"ARG PROJECT={loaded.image}\n" in dockerfile
    assert f"LABEL {loaded.label.partition('=')[0]}=${{PROJECT}}\n" in dockerfile
    assert "docker build --network none -t NAME ." in dockerfile


def test_the_docstrings_fit_the_list():
    for name, task in TASKS.items():
        first = textwrap.dedent(task.__doc__).splitlines()[0]
        assert first.endswith("."), name


@pytest.mark.parametrize("tool", ["invoke", "nox"])
def test_the_tools_work_in_any_directory(tool):
    """As `./dev` made them, which runs these tests too."""
    command = [Path(sys.executable).with_name(tool), "--list"]
    result = subprocess.run(
        command, cwd=ROOT / "docs", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "smoke" in result.stdout or "build" in result.stdout
