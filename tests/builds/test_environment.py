"""What a caller's environment says to the tools does not change the image.

Each variable here has a value that its own documentation allows.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.unit.test_environ import hostile

# docker(1), https://docs.docker.com/reference/cli/docker/ and
# https://docs.docker.com/build/building/variables/
DOCKER = {
    "DOCKER_CONTENT_TRUST": "1",
    "DOCKER_CONTENT_TRUST_SERVER": "https://127.0.0.1:9",
    "DOCKER_DEFAULT_PLATFORM": "linux/arm64",
    "DOCKER_HIDE_LEGACY_COMMANDS": "1",
    "DOCKER_CUSTOM_HEADERS": "X-One=1",
    "BUILDKIT_HOST": "tcp://127.0.0.1:9",
    "BUILDX_BAKE_FILE": "/none.hcl",
    "BUILDX_BAKE_GIT_AUTH_TOKEN": "none",
    "BUILDX_CPU_PROFILE": "/none/cpu",
    "BUILDX_EXPERIMENTAL": "1",
    "BUILDX_GIT_CHECK_DIRTY": "1",
    "BUILDX_GIT_INFO": "1",
    "BUILDX_GIT_LABELS": "full",
    "BUILDX_MEM_PROFILE": "/none/memory",
    "BUILDX_METADATA_PROVENANCE": "max",
    "BUILDX_METADATA_WARNINGS": "1",
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "0",
    "BUILDX_NO_DEFAULT_LOAD": "1",
    "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": "/none.json",
    # https://reproducible-builds.org/specs/source-date-epoch/
    "SOURCE_DATE_EPOCH": "86400",
}
# podman(1), podman-build(1), podman-run(1), buildah-build(1)
PODMAN = {
    "BUILDAH_FORMAT": "oci",
    "BUILDAH_HISTORY": "true",
    "BUILDAH_LAYERS": "false",
    "BUILDAH_NOPIVOT": "true",
    "BUILDAH_RUNTIME": "/none",
    "PODMAN_USERNS": "keep-id",
    "CONTAINERS_NAME_OVERRIDE": "none",
}
# apt-get(8), dpkg(1), debconf(7), deb-version of dpkg-architecture(1)
APT = {
    "APT_LISTCHANGES_FRONTEND": "pager",
    "DEBCONF_DEBUG": ".*",
    "DEBIAN_FRONTEND": "editor",
    "DEBIAN_PRIORITY": "low",
    "DEB_HOST_ARCH": "s390x",
    "DPKG_ADMINDIR": "/none",
    "DPKG_COLORS": "always",
    "DPKG_FORCE": "all",
    "DPKG_ROOT": "/none",
}
# git(1), which says what the files are; tar(1), gzip(1), zstd(1); sh(1)
OTHERS = {
    "GIT_DIR": "/none",
    "GIT_WORK_TREE": "/none",
    "GIT_INDEX_FILE": "/none",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fileMode",
    "GIT_CONFIG_VALUE_0": "false",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_TRACE": "1",
    "TAR_OPTIONS": "--owner=7 --mtime=@7",
    "GZIP": "-1",
    "ZSTD_CLEVEL": "19",
    "CDPATH": "/",
    "ENV": "/none",
    "POSIXLY_CORRECT": "1",
    "LC_ALL": "C",
    "LANGUAGE": "tr",
    "TZ": "Pacific/Kiritimati",
    "COLUMNS": "1",
    "NO_COLOR": "1",
    "CI": "1",
}
# The app's own, which is to get them when it runs, and not in a build.
APP = {
    "FLASK_APP": "none:none",
    "FLASK_DEBUG": "1",
    "FLASK_ENV": "development",
    "FLASK_RUN_PORT": "1",
    "SERVED_PORT": "tcp://10.0.0.1:80",
    "SERVED_THREADS": "x",
    "APP_PORT": "tcp://10.0.0.1:80",
    "APP_FACTORY": "none:none",
    "APP_LOG_FORMAT": "none",
}
# Where `1` is nothing that `python --help-env` allows, or harmless.
PYTHON = {
    "PYTHONHOME": "/none",
    "PYTHONPLATLIBDIR": "none",
    "PYTHONIOENCODING": "utf-16",
    "PYTHONHASHSEED": "7",
    "PYTHONINTMAXSTRDIGITS": "640",
    "PYTHONMALLOC": "debug",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONPYCACHEPREFIX": "",
}


def python(foreign):
    """Each variable that this Python's own help names."""
    command = [sys.executable, "-E", "--help-env"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = set(re.findall(r"^PYTHON[A-Z0-9_]+", done.stdout, re.MULTILINE))
    assert len(names) > 20
    assert not PYTHON.keys() - names
    foreign.mkdir()
    (foreign / "sitecustomize.py").write_text("raise SystemExit('a foreign module')")
    return dict.fromkeys(names, "1") | PYTHON | {"PYTHONPATH": str(foreign)}


@pytest.fixture
def built_under(using, clone):
    """What `build` says the digest is, under those variables."""
    shutil.rmtree(clone.build_dir, ignore_errors=True)  # they pack the layers too
    (clone.root / ".venv").symlink_to(sys.prefix)
    subprocess.run(["git", "init", "-q"], cwd=clone.root, check=True)
    subprocess.run(["git", "add", "--all"], cwd=clone.root, check=True)
    ours = {
        "CONTAINERIZE_ENGINE": shutil.which(using.command[0]),
        "CONTAINERIZE_IMAGE": clone.image,
        "CONTAINERIZE_TAGS": "environment",
    }

    def run(variables):
        done = subprocess.run(
            ["./dev", "invoke", "build", "--no-cache"],
            cwd=clone.root,
            env=os.environ | ours | variables,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        found = re.search(r"^digest +(\S+)$", done.stdout, re.MULTILINE)
        return found[1] if found else (done.stdout + done.stderr)[-2000:]

    return run


def culprit(variables, fails):
    """One variable that fails by itself, or the few that do so together."""
    names = sorted(variables)
    while len(names) > 1:
        half = len(names) // 2
        for some in (names[:half], names[half:]):
            if fails({name: variables[name] for name in some}):
                names = some
                break
        else:
            break
    return {name: variables[name] for name in names}


def test_no_variable_of_the_tools_changes_the_image(built, built_under, tmp_path):
    # B03, B15, B20, B21, B23
    variables = hostile() | python(tmp_path / "foreign")
    variables |= DOCKER | PODMAN | APT | OTHERS | APP
    digest = built.digests.manifest
    said = built_under(variables)
    assert said == digest, culprit(variables, lambda some: built_under(some) != digest)
