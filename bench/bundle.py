"""A bundle written and restored, beside tar and cp of the same files."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, interleaved, seconds
from containerize.publish import bundle
from containerize.settings import find_root, load
from tests.conftest import Quiet, copied


def main() -> Iterator[Row]:
    """Print how fast bundles are written and restored, all inputs being cached."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        settings = copied(load(find_root(Path(__file__).parent), {}), top / "checkout")
        commit(settings.root)
        written = bundle.write(settings, top / "bundle.tar", progress=Quiet())
        plain = top / "plain"
        plain.mkdir()
        subprocess.run(["tar", "-xf", written.path, "-C", plain], check=True)
        away = dataclasses.replace(settings, cache=str(top / "cache"))

        def restore() -> float:
            shutil.rmtree(away.cache_dir, ignore_errors=True)
            return seconds(lambda: bundle.restore(away, written.path, progress=Quiet()))

        def peer() -> float:
            shutil.rmtree(top / "copy", ignore_errors=True)
            return command("cp", "-r", str(plain), str(top / "copy"))

        found = interleaved(
            {
                "bundle": lambda: seconds(
                    lambda: bundle.write(settings, written.path, progress=Quiet())
                ),
                "tar": lambda: command(
                    "tar", "-cf", str(top / "peer.tar"), "-C", str(plain), "."
                ),
                "restore": restore,
                "cp": peer,
            }
        )
        size = written.size
        yield row("bundle", found["bundle"], "`tar -c`", found["tar"], size)
        yield row("restore", found["restore"], "`cp -r`", found["cp"], size)


def row(name: str, ours: list[float], peer: str, theirs: list[float], size: int) -> Row:
    mine, other = statistics.median(ours), statistics.median(theirs)
    return Row(
        f"{name} of {size / 1e6:.0f} MB, cached",
        f"{size / 1e6 / mine:.0f} MB/s",
        f"{peer} of the same files: {size / 1e6 / other:.0f} MB/s",
        f"{mine / other:.2f}",
        "print",
    )


def command(*words: str) -> float:
    """The seconds that a program takes."""
    return seconds(lambda: subprocess.run(words, check=True))


def commit(root: Path) -> None:
    """Make a repository of a directory, with one commit of all its files."""
    identity = ("-c", "user.name=x", "-c", "user.email=x")
    for words in (
        ("init", "--quiet"),
        ("add", "--all"),
        ("commit", "--quiet", "--message=all"),
    ):
        subprocess.run(["git", *identity, *words], cwd=root, check=True)
