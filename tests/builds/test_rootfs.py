"""The root file system against what mmdebstrap makes of the same packages."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from debian.debfile import DebFile

from containerize.fetch import inputs
from containerize.pack import layers
from tests.conftest import Quiet, taking_turns

# What mmdebstrap leaves for apt, dpkg and whoever boots the tree, and ours does not.
APT = ("etc/apt", "var/cache/apt", "var/lib/apt", "var/log/apt")
DPKG = ("etc/dpkg", "var/lib/dpkg")
HOST = ("dev", "etc/fstab", "etc/hostname", "etc/resolv.conf")
# What maintainer scripts would make, and ours has (`layers._finish`).
SCRIPTS = (
    "etc/group",
    "etc/ld.so.cache",
    "etc/nsswitch.conf",
    "etc/passwd",
    "etc/ssl/certs/ca-certificates.crt",
    "usr/bin/python",
    "usr/bin/python3",
    "usr/lib/ssl",
    "usr/local",
    "usr/sbin/ldconfig",  # libc-bin is not in base.lock
    "var/lib/dpkg/status.d",
)


def below(path, tops):
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def entries(path):
    """What each path of a tar is: kind, permission bits, owner, target, content."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            if member.islnk():
                # Of the names of a file either may be the link.
                origin = member.linkname.removeprefix("./")
                found[name] = found[origin]
                continue
            content = archive.extractfile(member).read() if member.isreg() else b""
            mode = 0o777 if member.issym() else member.mode & 0o7777
            owner = (member.uid, member.gid)
            found[name] = (member.type, mode, owner, member.linkname, content)
    return found


def mmdebstrap(packages, directory, architecture):
    """The tar that mmdebstrap makes of these packages and of no others."""
    with taking_turns():
        if not shutil.which("mmdebstrap"):
            root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
            subprocess.run(
                [*root, "apt-get", "install", "--yes", "--quiet", "mmdebstrap"],
                check=True,
            )
    index = []
    for package, path in packages:
        deb = directory / Path(package.path).name
        shutil.copy(path, deb)
        control = DebFile(str(path)).debcontrol()
        for field in ("Depends", "Pre-Depends"):  # base.lock has all that is wanted
            control.pop(field, None)
        control["Filename"] = f"./{deb.name}"
        control["Size"] = str(deb.stat().st_size)
        control["SHA256"] = package.sha256
        index.append(str(control))
    (directory / "Packages").write_text("\n".join(index), "utf-8")
    target = directory / "mmdebstrap.tar"
    subprocess.run(
        [
            "mmdebstrap", "--quiet", "--variant=extract",
            f"--architectures={architecture}",
            f"--include={','.join(package.name for package, _ in packages)}",
            "trixie", target, f"deb [trusted=yes] copy:{directory} ./",
        ],
        check=True,
    )  # fmt: skip
    return entries(target)


def test_the_root_file_system_is_mmdebstraps_but_for_what_is_meant(project, tmp_path):
    packages = inputs.fetch(project, progress=Quiet()).packages
    theirs = mmdebstrap(packages, tmp_path, project.image_architecture)
    ours_tar = tmp_path / "rootfs.tar"
    root = layers.rootfs([path for _, path in packages], project.python)
    assert root.warnings == []
    with ours_tar.open("wb") as file:
        root.write(file, 0)
    ours = entries(ours_tar)

    unexplained = {
        path
        for path in theirs.keys() - ours.keys() - {"", "."}
        if not below(path, (*APT, *DPKG, *HOST, *layers.LEFT_OUT))
    }
    assert unexplained == set()
    assert {p for p in ours.keys() - theirs.keys() if not below(p, SCRIPTS)} == set()
    both = ours.keys() & theirs.keys()
    assert len(both) > 1000
    changed = {path for path in both if ours[path] != theirs[path]}
    assert changed == set()
