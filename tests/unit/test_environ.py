"""What of the caller's environment reaches the tools, and how `dev` stands it."""

import base64
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nox
import pytest
from pip._internal.commands import create_command

from containerize import environ, settings

ROOT = settings.find_root(Path(__file__).parent)

# docker(1) and https://docs.docker.com/build/building/variables/, podman(1),
# buildah-build(1): what would change the image or break a call.
HELD_BACK = """
DOCKER_CONTENT_TRUST DOCKER_CONTENT_TRUST_SERVER DOCKER_DEFAULT_PLATFORM
DOCKER_HIDE_LEGACY_COMMANDS BUILDKIT_HOST BUILDX_BAKE_FILE BUILDX_BAKE_GIT_SSH
BUILDX_CPU_PROFILE BUILDX_EXPERIMENTAL BUILDX_GIT_CHECK_DIRTY BUILDX_GIT_INFO
BUILDX_GIT_LABELS BUILDX_MEM_PROFILE BUILDX_METADATA_PROVENANCE
BUILDX_METADATA_WARNINGS BUILDX_NO_DEFAULT_ATTESTATIONS BUILDX_NO_DEFAULT_LOAD
EXPERIMENTAL_BUILDKIT_SOURCE_POLICY BUILDAH_FORMAT BUILDAH_HISTORY BUILDAH_LAYERS
BUILDAH_NOPIVOT BUILDAH_RUNTIME PODMAN_USERNS SOURCE_DATE_EPOCH
"""
PASSES = """
DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG DOCKER_CERT_PATH DOCKER_TLS_VERIFY
DOCKER_BUILDKIT BUILDX_BUILDER BUILDKIT_PROGRESS CONTAINER_HOST CONTAINERS_CONF
REGISTRY_AUTH_FILE STORAGE_DRIVER STORAGE_OPTS TMPDIR HOME PATH LANG SSH_AUTH_SOCK
HTTP_PROXY https_proxy no_proxy XDG_CONFIG_HOME SSL_CERT_FILE
"""


def test_an_engine_gets_what_is_a_users_and_nothing_else():
    given = dict.fromkeys((HELD_BACK + PASSES).split(), "1")
    assert environ.engine(given) == dict.fromkeys(PASSES.split(), "1")


def test_apt_speaks_english_and_keeps_its_configuration():
    given = {"APT_CONFIG": "/a", "LANGUAGE": "tr", "LC_ALL": "tr_TR", "DPKG_ROOT": "/x"}
    assert environ.system(given) == {"APT_CONFIG": "/a", "LC_ALL": "C.UTF-8"}


def hostile():
    """Each of pip's options that does not pass, as a variable."""
    names = {
        name[2:]
        for command in ("install", "download", "config")
        for option in create_command(command).parser.option_list_all
        for name in option._long_opts
    }
    assert len(names) > 40
    return {
        f"PIP_{name.upper().replace('-', '_')}": "1" for name in names - environ.PIP
    }


def test_pip_is_told_how_to_get_packages_and_nothing_else(index, monkeypatch, tmp_path):
    index.add("demo", "1.0")
    url = os.environ["PIP_INDEX_URL"]
    monkeypatch.delenv("PIP_INDEX_URL")
    file = tmp_path / "pip.conf"
    file.write_text(
        f"[global]\nindex-url = {url}\nuser = true\nconstraint = /none\n"
        "no-binary = :all:\ntimeout = 7\n[install]\ntarget = /none\ntimeout = 8\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    for name, value in hostile().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONHOME", "/none")
    found = environ.pip(os.environ)
    assert found["PIP_INDEX_URL"] == url
    assert found["PIP_TIMEOUT"] == "8"
    command = [sys.executable, "-m", "pip", "download", "--dest", tmp_path, "demo"]
    done = subprocess.run(command, env=found, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("demo-1.0*.whl"))


# Where `1` is nothing that nox(1) allows, or changes nothing.
NOX = {
    "NOX_DEFAULT_VENV_BACKEND": "uv",
    "NOX_DOWNLOAD_PYTHON": "always",
    "NOX_SCRIPT_MODE": "fresh",
    "NOX_SCRIPT_VENV_BACKEND": "conda",
    "NOX_SCRIPT_DOWNLOAD_PYTHON": "always",
    "NOX_PARALLEL": "auto",
    "NOXEXTRAPYTHON": "3.99",
    "NOXFORCEPYTHON": "3.99",
}


@pytest.mark.parametrize(
    "noxfile", ["noxfile.py", "containerize/templates/noxfile.py.in"]
)
@pytest.mark.parametrize("backend", ["uv", "conda", "virtualenv"])
def test_no_variable_of_nox_chooses_other_tools(tmp_path, noxfile, backend):
    # B20: without `dev`, too. Which sessions, a user may choose.
    package = Path(nox.__file__).parent
    texts = (path.read_text("utf-8") for path in package.glob("*.py"))
    names = {name for text in texts for name in re.findall(r'"(NOX_?[A-Z_]+)"', text)}
    names -= {"NOXSESSION", "NOXPYTHON", "NOX_OUTER_PYTHONPATH"}
    assert names >= NOX.keys()
    shutil.copy(ROOT / noxfile, tmp_path / "noxfile.py")
    (tmp_path / "tests/smoke").mkdir(parents=True)
    (tmp_path / "tests/smoke/test_one.py").write_text("def test_one(): pass\n")
    variables = dict.fromkeys(names, "1") | NOX | {"NOX_DEFAULT_VENV_BACKEND": backend}
    command = [sys.executable, "-m", "nox", "--session", "smoke"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 passed" in done.stdout
    assert not list(tmp_path.glob(".nox/*/bin"))


SLOW = """
import time
import pytest
@pytest.fixture
def started():
    open("started", "w").close()
    yield
    time.sleep(1)
    open("removed", "w").close()
def test_one(started):
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "noxfile", ["noxfile.py", "containerize/templates/noxfile.py.in"]
)
def test_ctrl_c_leaves_tests_the_time_to_clean_up(tmp_path, noxfile):
    shutil.copy(ROOT / noxfile, tmp_path / "noxfile.py")
    (tmp_path / "tests/smoke").mkdir(parents=True)
    (tmp_path / "tests/smoke/test_one.py").write_text(SLOW)
    command = [sys.executable, "-m", "nox", "--session", "smoke"]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.returncode != 0
    assert (tmp_path / "removed").exists()


def test_settings_that_pip_cannot_read_are_one_line(monkeypatch, tmp_path):
    file = tmp_path / "pip.conf"
    file.write_text("no section\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    with pytest.raises(ValueError, match=r"^pip cannot read its settings: .+$"):
        environ.pip(os.environ)


def wheel():
    """A wheel with a command `invoke` that says where it is."""
    code = "import sys\ndef main():\n    print('here', *sys.argv[1:])\n"
    info = "invoke-9.0.dist-info"
    files = {
        "invoke_demo.py": code,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: invoke\nVersion: 9.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ninvoke = invoke_demo:main\n",
    }
    record = ""
    for name, text in files.items():
        digest = hashlib.sha256(text.encode()).digest()
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        record += f"{name},sha256={encoded},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    ["repo (1)", "R&D", 'q"t', "$(touch x) `touch y`", "it's", "a\nb", "l" * 150],
)
def test_dev_works_in_any_directory_and_environment(index, tmp_path, name):
    top = tmp_path / name
    (top / "containerize").mkdir(parents=True)
    shutil.copy(ROOT / "dev", top)
    shutil.copy(ROOT / "containerize" / "environ.py", top / "containerize")
    digest = index.publish("invoke", "invoke-9.0-py3-none-any.whl", wheel())
    (top / "tools.txt").write_text(f"invoke==9.0 --hash=sha256:{digest}\n")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "invoke_demo.py").write_text("raise SystemExit('a foreign module ran')")
    settings = hostile() | {"PYTHONPATH": str(foreign), "PYTHONOPTIMIZE": "x"}
    settings |= {"PYTHONWARNINGS": "error", "PYTHON": sys.executable}
    for _ in range(2):
        done = subprocess.run(
            ["./dev", "invoke", "a b"],
            cwd=top,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "here a b\n"), done.stderr
        # As an earlier failure leaves it: stamped, but without its tools.
        (top / ".venv" / "bin" / "invoke").unlink()
    assert not list(top.glob("[xy]"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_terminals(closed):
    script = "from containerize import tasks as t; t.agreed('?'); t.Meter(); t.say('x')"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "{script}" {closed}', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_words_that_an_encoding_lacks_are_written_otherwise(encoding):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from containerize import tasks; tasks.report(['a 1 \\u2192 2'])",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    expected = "→".encode(encoding, "backslashreplace")
    assert done.returncode == 0, done.stderr
    assert b"a 1 " + expected + b" 2" in done.stdout


def test_a_user_without_a_home_is_told_which_setting_helps(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    loaded = settings.load(ROOT, {})
    with pytest.raises(settings.Problem, match="CONTAINERIZE_CACHE"):
        _ = loaded.cache_dir
