"""What decides bytes is what this tool was made with."""

from pathlib import Path

import pytest

from containerize import build
from containerize.errors import Problem


def installed(top: Path, name: str, version: str, *requires: str) -> None:
    info = top / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    text = "\n".join(["Metadata-Version: 2.1", *lines, ""])
    (info / "METADATA").write_text(text)


def test_a_package_that_decides_bytes_and_floats_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    needs = ("deflatex==0.9.0", "free>=3", "windows==1; sys_platform == 'win32'")
    installed(tmp_path, "flask_containerize", "1.0", *needs)
    installed(tmp_path, "deflatex", "0.9.0")
    build.check_pins()
    (tmp_path / "deflatex-0.9.0.dist-info").rename(tmp_path / "gone")
    with pytest.raises(Problem, match=r"deflatex 0\.9\.0 .*, and none is installed"):
        build.check_pins()
    installed(tmp_path, "deflatex", "0.9.1")
    with pytest.raises(Problem, match=r"0\.9\.1 is installed: pipx reinstall flask-c"):
        build.check_pins()
