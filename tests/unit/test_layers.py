"""The layers: from packages, wheels and the app's files to trees."""

import dataclasses
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from containerize import build, settings
from containerize.errors import Problem
from containerize.pack import LAYERS, layers, selection, sonames, tree
from tests.conftest import ROOT

TIME = 1_763_856_000


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.containerize]\nimage = "demo"\n')
    (tmp_path / "app").mkdir()
    return settings.load(tmp_path, {})


def application(settings):
    return layers.application(settings, selection.app(settings).files)


def deb(path, name, files, control="", scripts=None):
    """Write a Debian package: an ar archive of two tars (deb(5))."""

    def member(label, data):
        header = f"{label:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
        return header.encode() + data + b"\n" * (len(data) % 2)

    def packed(entries):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:xz") as tar:
            for info, content in entries:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def plain(label, content, mode=0o644):
        info = tarfile.TarInfo(f"./{label}")
        info.mode, info.mtime = mode, 12345
        return info, content

    text = f"Package: {name}\nVersion: 1\nArchitecture: all\n{control}".encode()
    data = [
        item if isinstance(item, tuple) else plain(item, b"content of " + item.encode())
        for item in files
    ]
    about = [plain(file, body.encode()) for file, body in (scripts or {}).items()]
    path.write_bytes(
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar.xz", packed([plain("control", text), *about]))
        + member("data.tar.xz", packed(data))
    )
    return path


def special(name, kind, target="", mode=0o777):
    info = tarfile.TarInfo(f"./{name}")
    info.type, info.linkname, info.mode = kind, target, mode
    return info, b""


def wheel(directory, name, files, scripts=""):
    """Write a wheel with a RECORD that holds."""
    info = f"{name}-1.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
        f"{info}/entry_points.txt": scripts,
    }
    record = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD"))
    path = directory / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(inner, text)
    return path.name, path


def test_rootfs_merges_packages_in_any_order(tmp_path):
    first = deb(
        tmp_path / "b.deb",
        "base-files",
        [special("lib", tarfile.SYMTYPE, "usr/lib"), "etc/os-release"],
    )
    second = deb(
        tmp_path / "a.deb", "tool", ["lib/tool.so", "usr/share/doc/tool/copyright"]
    )
    one = layers.rootfs([first, second], "3.13")
    other = layers.rootfs([second, first], "3.13")
    assert one.entries == other.entries
    # what is installed below a link of the merged /usr lands behind the link
    assert one.entries["usr/lib/tool.so"].content == b"content of lib/tool.so"
    assert one.entries["lib"].target == "usr/lib"


def test_a_hard_link_across_the_merged_usr_leads_behind_it(tmp_path):
    made = layers.rootfs(
        [
            deb(
                tmp_path / "b.deb",
                "base-files",
                [special("lib", tarfile.SYMTYPE, "usr/lib")],
            ),
            deb(
                tmp_path / "a.deb",
                "tool",
                ["lib/a", special("usr/lib/b", tarfile.LNKTYPE, "./lib/a")],
            ),
        ],
        "3.13",
    )
    assert made.entries["usr/lib/b"].target == "usr/lib/a"
    made.write(io.BytesIO(), TIME)


def real_libraries():
    """By name, what this host's `ldconfig -p` says, but for links for compilers."""
    said = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True
    ).stdout
    every = re.findall(r"^\s+(\S+) \(libc6,.*\) => /(lib/\S+gnu/\S+)$", said, re.M)
    return {name: path for name, path in every if not name.endswith(".so")}


def test_libraries_that_are_alternatives_are_linked_and_found(tmp_path):
    """As those of libblas3 and libopenblas0-pthread; these are copies of libz."""
    name, path = "libz.so.1", real_libraries()["libz.so.1"]
    content, top = Path(f"/{path}").read_bytes(), Path(f"usr/{path}").parent
    made = []
    for package, priority in (("slow", 10), ("fast", 100)):
        library = f"{top}/{package}/{name}"
        script = (
            f"#!/bin/sh\nset -e\nupdate-alternatives --install /{top}/{name} \\\n"
            f"    {name}-here /{library} {priority}\nexit 0\n"
        )
        item = tarfile.TarInfo(f"./{library}"), content
        made.append(
            deb(
                tmp_path / f"{package}.deb",
                package,
                [item],
                scripts={"postinst": script},
            )
        )
    root = layers.rootfs(made, "3.13")
    assert root.warnings == []
    assert root.entries[f"{top}/{name}"].target == f"/etc/alternatives/{name}-here"
    assert root.entries[f"etc/alternatives/{name}-here"].target == (
        f"/{top}/fast/{name}"
    )
    libraries = sonames.libraries(root)
    assert [lib.path for lib in libraries] == [f"/{top}/{name}"]
    assert root.entries["etc/ld.so.cache"].content == sonames.cache(libraries)


def test_what_scripts_would_make_is_told(tmp_path):
    package = deb(
        tmp_path / "a.deb",
        "libgvc6",
        ["usr/sbin/libgvc6-config-update"],
        scripts={"postinst": "#!/bin/sh\nlibgvc6-config-update -c\n"},
    )
    [line] = layers.rootfs([package], "3.13").warnings
    assert line.startswith("libgvc6: its script postinst, which no build runs, would")
    assert line.endswith(
        "the list of Graphviz's plugins, config6a (libgvc6-config-update)"
    )


def test_warnings_stay_with_a_layer_that_is_not_made_anew(project):
    project.build_dir.mkdir()

    def make():
        made = tree.Tree()
        made.warnings.append("tool: something is missing")
        return made

    first = layers._packed(project, "rootfs", TIME, make, ["same"])
    again = layers._packed(project, "rootfs", TIME, lambda: 1 / 0, ["same"])
    assert first == again
    assert again.warnings == ("tool: something is missing",)


def test_a_layer_that_is_as_it_was_is_left_alone_and_an_edited_one_is_not(project):
    """A file's time says nothing: it is put back after the edit."""
    project.build_dir.mkdir()

    def pack(made_from):
        made = tree.Tree()
        made.add("a", tree.file(b"content"))
        return layers._packed(project, "app", TIME, lambda: made, made_from)

    for made_from in (None, ["same"]):
        first = pack(made_from)
        data, before = first.path.read_bytes(), first.path.stat()
        assert first.sha256 == hashlib.sha256(data).hexdigest()
        assert (pack(made_from), first.size) == (first, len(data))
        now = first.path.stat()
        assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        first.path.write_bytes(data.replace(b"content", b"CONTENT"))
        os.utime(first.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert pack(made_from) == first
        assert first.path.read_bytes() == data


def test_rootfs_leaves_out_what_slim_images_do(tmp_path):
    made = layers.rootfs(
        [
            deb(
                tmp_path / "a.deb",
                "tool",
                [
                    "usr/share/doc/tool/README",
                    "usr/share/doc/tool/copyright",
                    "usr/share/man/man1/tool.1.gz",
                    "usr/share/manual.txt",
                ],
            )
        ],
        "3.13",
    )
    assert "usr/share/doc/tool/copyright" in made.entries
    assert "usr/share/manual.txt" in made.entries
    assert "usr/share/doc/tool/README" not in made.entries
    assert "usr/share/man/man1/tool.1.gz" not in made.entries


def test_rootfs_does_what_maintainer_scripts_would(tmp_path):
    made = layers.rootfs(
        [
            deb(
                tmp_path / "a.deb",
                "ca-certificates",
                [
                    "usr/share/ca-certificates/mozilla/B.crt",
                    "usr/share/ca-certificates/mozilla/A.crt",
                    "usr/share/ca-certificates/mozilla/notes.txt",
                ],
            )
        ],
        "3.13",
    ).entries
    bundle = made["etc/ssl/certs/ca-certificates.crt"].content.splitlines()
    assert [line[-5:] for line in bundle] == [b"A.crt", b"B.crt"]
    assert b"nonroot:x:65532:65532:" in made["etc/passwd"].content
    assert made["tmp"].mode == 0o1777
    assert made["usr/bin/python"].target == "python3.13"
    assert made["usr/bin/python3"].target == "python3.13"
    assert made["var/lib/dpkg/status.d/ca-certificates"].content.startswith(b"Package:")


def test_packages_that_disagree_are_named(tmp_path):
    one = deb(tmp_path / "a.deb", "one", ["etc/x"])
    item = tarfile.TarInfo("./etc/x"), b"other"
    two = deb(tmp_path / "b.deb", "two", [item])
    with pytest.raises(Problem, match=r"package two: 'etc/x' comes twice"):
        layers.rootfs([one, two], "3.13")


def test_devices_in_packages_are_refused(tmp_path):
    package = deb(tmp_path / "a.deb", "odd", [special("dev/null", tarfile.CHRTYPE)])
    with pytest.raises(Problem, match="odd: /dev/null is a device"):
        layers.rootfs([package], "3.13")


@pytest.fixture(scope="module")
def real_root(tmp_path_factory):
    """This host's libraries as a tree, and as files below a directory."""
    root, top = tree.Tree(), tmp_path_factory.mktemp("root")
    for path in real_libraries().values():
        root.replace(f"usr/{path}", tree.file(Path(f"/{path}").read_bytes()))
    # Names that try the order of the cache, in a directory that a package names.
    content = root.entries[f"usr/{real_libraries()['libz.so.1']}"].content
    for name in ("lib1.so.1", "libA.so.9", "lib-.so.1", "liba.so.9", "lib.so.10"):
        own = content.replace(b"\0libz.so.1\0", b"\0%s\0" % name.encode())
        root.replace(f"opt/own/{name}", tree.file(own))
    root.add("etc/ld.so.conf.d/own.conf", tree.file(b"# a note\n/opt/own # here\n"))
    root.add("etc/ld.so.conf", tree.file(b"include /etc/ld.so.conf.d/*.conf\n"))
    for path, entry in root.entries.items():
        if entry.kind == tarfile.REGTYPE:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_bytes(entry.content)
    return root, top


def listed(*options):
    said = subprocess.run(
        ["/sbin/ldconfig", "-p", *options], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^\s+(\S+) \(libc6,.*\) => (\S+)$", said, re.M)


def test_the_loaders_cache_is_as_ldconfig_makes_it(real_root, tmp_path):
    root, top = real_root
    ours = tmp_path / "ld.so.cache"
    ours.write_bytes(sonames.cache(sonames.libraries(root)))
    command = ["/sbin/ldconfig", "-X", "-r", top, "-C", "/cache"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    real = listed("-C", str(top / "cache"))
    assert ("liba.so.9", "/opt/own/liba.so.9") in real
    assert listed("-C", str(ours)) == real


def test_libraries_are_found_by_name_as_ldconfig_finds_them(real_root):
    libraries = sonames.libraries(real_root[0])
    text = sonames.script(libraries, "3.13").partition(b"\n")[2]
    out = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True
    ).stdout
    ours = dict(re.findall(r"^\s+(\S+) \(libc6,.*\) => /usr/(\S+)$", out, re.M))
    assert ours
    assert ours == real_libraries()


def test_what_is_no_library_has_no_name():
    for data in (b"", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01" + b"\xff" * 90):
        assert sonames.soname(data) is None


def test_no_packages_make_an_empty_layer():
    assert layers.rootfs([], "3.13").entries == {}


def test_scripts_name_the_images_interpreter(tmp_path, project):
    source = {"demo/__init__.py": "x = 1\n"}
    made = layers.dependencies(
        project, [wheel(tmp_path, "demo", source, "[console_scripts]\ndemo = demo:x\n")]
    ).entries
    script = made["usr/local/bin/demo"]
    assert script.content.startswith(b"#!/usr/bin/python3.13\n")
    assert script.mode == 0o755
    site = "usr/local/lib/python3.13/site-packages"
    assert made[f"{site}/demo/__init__.py"].content == b"x = 1\n"
    assert f"{site}/demo-1.dist-info/INSTALLER" in made
    assert not any(str(tmp_path).encode() in entry.content for entry in made.values())


def test_wheels_that_disagree_or_are_broken_are_named(tmp_path, project):
    one = wheel(tmp_path, "one", {"same.py": "1"})
    two = wheel(tmp_path, "two", {"same.py": "2"})
    site = "/usr/local/lib/python3.13/site-packages"
    both = rf"^one-1-py3-none-any\.whl and two-1-\S+ both have {site}/same.py, with"
    with pytest.raises(Problem, match=both):
        layers.dependencies(project, [one, two])
    below = wheel(tmp_path, "three", {"same.py/below": ""})
    with pytest.raises(
        Problem, match=rf"^one-1-\S+ and three-1-\S+ both have {site}/same.py,"
    ):
        layers.dependencies(project, [one, below])
    one[1].write_bytes(b"no zip")
    with pytest.raises(Problem, match=r"one-1-py3-none-any\.whl cannot be unpacked"):
        layers.dependencies(project, [one])


def test_app_takes_what_git_would(project):
    keep = {
        ".gitignore": "*.log\n/local/\n",
        "app/__init__.py": "",
        "app/data/table.csv": "1\n",
        "app/data/.gitignore": "big.*\n!big.keep\n",
        "app/data/big.keep": "",
    }
    drop = [
        "app/__pycache__/x.cpython-313.pyc",
        "app/debug.log",
        "app/data/big.bin",
        "app/.env",
        "app/tls.key",
        "app/tests/test_x.py",
        "app/old.py~",
        "app/.git/config",
        "tests/x.py",
        "build/rootfs.tar",
    ]
    for name, content in {**keep, **dict.fromkeys(drop, "")}.items():
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    files = {
        path
        for path, entry in application(project).entries.items()
        if entry.kind == tarfile.REGTYPE
    }
    assert files == {
        "srv/app/__init__.py",
        "srv/app/data/table.csv",
        "srv/app/data/big.keep",
    }


def test_app_has_the_modes_git_knows(project):
    for name, mode in (("run.py", 0o700), ("data.txt", 0o666), ("own.txt", 0o600)):
        path = project.root / "app" / name
        path.write_text("")
        path.chmod(mode)
    (project.root / "app" / "link").symlink_to("data.txt")
    made = application(project).entries
    modes = {Path(p).name: e.mode for p, e in made.items() if e.kind != tarfile.DIRTYPE}
    assert modes == {
        "run.py": 0o755,
        "data.txt": 0o644,
        "own.txt": 0o644,
        "link": 0o777,
    }
    assert made["srv/app/link"].target == "data.txt"
    assert all((e.uid, e.gid) == (0, 0) for e in made.values())


def test_nothing_to_pack_is_one_line(project):
    with pytest.raises(Problem, match="nothing to pack"):
        application(project)


def test_volumes_are_the_users_in_the_image(project):
    (project.root / "instance").mkdir()
    (project.root / "instance" / "seed.db").write_text("")
    (project.root / "app" / "main.py").write_text("")
    volumes = (
        "xx:/data",
        "yy:/var/lib/shop/",
        "zz:/srv/instance:rw",
        "./here:/data/sub",
    )
    loaded = dataclasses.replace(project, volumes=volumes)
    made = application(loaded).entries
    owned = {path: oct(e.mode) for path, e in made.items() if e.uid == e.gid == 65532}
    assert owned == {
        "data": "0o755",
        "data/sub": "0o755",
        "var/lib/shop": "0o755",
        "srv/instance": "0o755",
        "srv/instance/seed.db": "0o644",
    }


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/srv", "own: use one like /data"),
        ("/tmp/x", "own: use one like /data"),
        ("/lib/x", "own: use one like /data"),
        ("/var//tmp", "own: use one like /data"),
        ("/srv/app", "would hide the code"),
        ("/srv/readme", "no directory"),
    ],
)
def test_volumes_that_would_hide_what_is_needed_are_one_line(project, path, match):
    (project.root / "app" / "main.py").write_text("")
    (project.root / "readme").write_text("")
    with pytest.raises(Problem, match=match):
        application(dataclasses.replace(project, volumes=(f"xx:{path}",)))


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("shop", True),
        ("shop:create_app('a:b')", True),
        ("shop.web:app", True),
        ("shop/web.py:app", True),
        ("shop/web", True),
        ("plain.app", True),
        ("ours.web", True),
        ("shop.nothing", False),
        ("web", False),
        ("shops", False),
    ],
)
def test_an_app_that_nothing_holds_is_one_line(tmp_path, project, name, there):
    for file in ("shop/__init__.py", "shop/web.py", "plain/app.py"):
        (project.root / file).parent.mkdir(exist_ok=True)
        (project.root / file).write_text("")
    files = selection.app(project).files
    _, found = wheel(tmp_path, "ours", {"ours/web.py": ""})
    loaded = dataclasses.replace(project, app=name)
    if there:
        layers.check_app(loaded, files, [found])
    else:
        with pytest.raises(Problem, match=f"there is no module {name}"):
            layers.check_app(loaded, files, [found])


@pytest.mark.parametrize("links", [True, False])
def test_the_context_is_what_was_packed(project, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_, **__: os.stat("/nowhere"))
    (project.root / ".dockerignore").write_text("*\n")
    (project.root / "mine").write_text("FROM scratch\n")
    names = [*(f"{name}.tar" for name in LAYERS), "compile_modules.py"]
    project.build_dir.mkdir()
    loaded = dataclasses.replace(project, dockerfile="mine")
    for turn in ("first", "second"):
        for name in names:
            (project.build_dir / name).unlink(missing_ok=True)
            (project.build_dir / name).write_text(turn + name)
        context = layers.stage(loaded)
        files = [path for path in context.rglob("*") if path.is_file()]
        assert {str(f.relative_to(context)): f.read_text() for f in files} == {
            "Dockerfile": "FROM scratch\n",
            **{f"build/{name}": turn + name for name in names},
        }
    (project.build_dir / "app.tar").unlink()
    with pytest.raises(Problem, match=r"cannot stage .*app\.tar: No such file"):
        layers.stage(loaded)


def test_a_dockerfile_that_adds_a_part_of_the_app_is_refused(project):
    project.build_dir.mkdir()
    for name in (*(f"{name}.tar" for name in LAYERS), "compile_modules.py"):
        (project.build_dir / name).write_text("")
    file = project.root / project.dockerfile
    file.write_text("FROM scratch\nADD build/app.tar /\n")
    with pytest.raises(Problem, match=r"^Dockerfile leaves out the app's large files"):
        layers.stage(project)
    file.write_text("FROM scratch\nADD build/large.tar /\nADD build/app.tar /\n")
    layers.stage(project)


def test_the_dockerfile_adds_each_layer_in_its_order():
    text = (ROOT / "Dockerfile").read_text("utf-8")
    added = re.findall(r"^ADD build/(\w+)\.tar /$", text, re.MULTILINE)
    # The service comes with its compiled modules from where these are made.
    assert added == [name for name in LAYERS if name != "service"]
    assert {*re.findall(r"build/(\w+)\.tar", text)} == {*LAYERS}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[-3:] == ["*", "!build/*.tar", f"!build/{layers.COMPILE.name}"]


def test_large_files_lie_below_the_app(project):
    big, less = "x" * layers.LARGE, "x" * (layers.LARGE - 1)
    files = {
        "app/__init__.py": big,
        "app/static/big.png": big,
        "app/static/less.png": less,
        "data/seed.csv": big,
        "none/x": "",
    }
    for name, content in files.items():
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text(content)
    loaded = dataclasses.replace(project, volumes=("data:/srv/data",))
    whole = layers.application(loaded, selection.app(loaded).files)
    large, small = layers.split(whole)
    assert [*large.entries] == [
        *("srv", "srv/app", "srv/app/static", "srv/app/static/big.png"),
        *("srv/data", "srv/data/seed.csv"),
    ]
    # A directory is what it is in both; a volume belongs to the image's user.
    assert large.entries["srv/data"].uid == small.entries["srv/data"].uid == layers.USER
    assert large.entries["srv/data/seed.csv"].uid == layers.USER
    assert large.entries | small.entries == whole.entries
    assert {*large.entries} & {*small.entries} == {
        path for path in large.entries if whole.entries[path].kind == tarfile.DIRTYPE
    }


def test_no_packed_tar_is_empty(project):
    """Builders copy a tar that holds nothing, as a file, into the image."""
    project.build_dir.mkdir()
    made = layers._packed(project, "rootfs", 1, lambda: layers.rootfs([], "3.13"))
    with tarfile.open(made.path) as tar:
        assert tar.getnames() == [layers.APP]


def test_a_pipe_in_the_app_is_named(project):
    os.mkfifo(project.root / "app" / "pipe")
    with pytest.raises(Problem, match="pipe is no file"):
        application(project)


PACK = """
import hashlib, io, os, pathlib, sys
from containerize import settings
from containerize.pack import layers, selection
os.umask(int(sys.argv[2], 8))
loaded = settings.load(pathlib.Path(sys.argv[1]), {})
wheels = [(p.name, p) for p in sorted(loaded.root.glob("*.whl"))]
debs = sorted(loaded.root.glob("*.deb"), reverse="PYTHONHASHSEED" in os.environ)
for made in (
    layers.rootfs(debs, "3.13"),
    layers.dependencies(loaded, wheels),
    layers.application(loaded, selection.app(loaded).files),
):
    out = io.BytesIO()
    made.write(out, 1763856000)
    print(hashlib.sha256(out.getvalue()).hexdigest())
"""


def test_layers_do_not_depend_on_the_surroundings(tmp_path):
    """Another path, file order, mtime, umask, locale, time zone, hash seed, user."""

    def layout(root, backwards):
        (root / "app" / "templates").mkdir(parents=True)
        (root / "pyproject.toml").write_text('[tool.containerize]\nimage = "demo"\n')
        names = [f"app/m{n}.py" for n in range(9)] + ["app/templates/naïve.html"]
        for name in reversed(names) if backwards else names:
            (root / name).write_text(name)
            os.utime(root / name, (time.time(), 5 if backwards else 10**9))
        deb(root / "a.deb", "a", ["usr/a", "usr/lib/ü.so"])
        deb(root / "b.deb", "b", ["usr/b"])
        source = {f"demo/m{n}.py": "x" for n in range(5)}
        wheel(root, "demo", source, "[console_scripts]\ndemo = demo:x\n")
        for package in root.glob("*.whl"):
            os.utime(package, (1, 1))

    def pack(root, umask, **environment):
        root.chmod(0o755)
        command = [sys.executable, "-c", PACK, str(root), umask]
        return subprocess.run(
            command,
            env={"PYTHONPATH": str(Path(layers.__file__).parents[2]), **environment},
            cwd=root if environment else "/",
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    one, other = tmp_path / "one", tmp_path / "elsewhere" / "much deeper" / "ünïcode"
    layout(one, backwards=False)
    layout(other, backwards=True)
    first = pack(one, "022", PATH="/usr/bin")
    second = pack(
        other, "077", PYTHONHASHSEED="77", LC_ALL="C", TZ="Asia/Tokyo", HOME="/nowhere"
    )
    assert first == second
    assert len(first.split()) == 3


def test_the_canonical_form_is_fixed(project):
    """The bytes are the product: a change of theirs is a change of every digest."""
    (project.root / "app" / "main.py").write_text("print()\n")
    out = io.BytesIO()
    application(project).write(out, TIME)
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    assert digest == "d02c71544f0a38763f7d334513c8b74d1c013207ebb778f953125f3b2f6d6dd3"


def test_the_service_has_a_directory_of_its_own():
    made = layers.service().entries
    files = {path: entry for path, entry in made.items() if entry.kind != b"5"}
    top = "usr/local/lib/served/served"
    own = sorted((ROOT / "served").glob("*.py"))
    assert sorted(files) == [f"{top}/{file.name}" for file in own]
    assert (
        files[f"{top}/healthcheck.py"].content
        == (ROOT / "served" / "healthcheck.py").read_bytes()
    )
    assert {entry.mode for entry in files.values()} == {0o644}


def test_what_is_packed_is_what_is_served(project):
    """B07: with another setting `app` the image looked for `app` all the same."""
    for name in ("app", "web"):
        named = dataclasses.replace(project, app=name)
        made = build.build_command(named, "docker", ["x:y"])
        given = [part for part in made if part.startswith("APP=")]
        assert given == [f"APP={name}"]
    assert "ENV FLASK_APP=${APP}" in (ROOT / "Dockerfile").read_text()
