"""The app's files are those that git would take, with git and without."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from containerize import build, settings, tasks, verbs
from containerize.errors import Problem
from containerize.image import record
from containerize.image.canonical import ImageDigests
from containerize.pack import layers, project, selection, sources
from containerize.verify import rebuild

ROOT = settings.find_root(Path(__file__).parent)
POINTER = f"""version https://git-lfs.github.com/spec/v1
oid sha256:{"a" * 64}
size 12345
"""


def git(root, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments],
        cwd=root,
        env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        check=True,
        capture_output=True,
    )
    return done.stdout


def put(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def repository(root, files):
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "--quiet")
    put(root, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n', **files})
    git(root, "add", "--force", ".")
    git(root, "commit", "--quiet", "--message", "x")
    return root


def clone(root, target, *options):
    flags = [part for option in options for part in ("--config", option)]
    git(root, "clone", "--quiet", *flags, str(root), str(target))
    return target


def app(root, **overrides):
    return selection.app(dataclasses.replace(settings.load(root, {}), **overrides))


def names(root):
    return [file.path for file in app(root).files]


@pytest.fixture
def no_git(tmp_path, monkeypatch):
    """A host that has no git."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


# --- Names -----------------------------------------------------------------------


def test_the_index_and_the_deepest_gitignore_decide(tmp_path):
    root = repository(
        tmp_path,
        {
            ".gitignore": b"\xef\xbb\xbf*.txt\n# f\xfcr uns\n*.dat\n",
            "app/main.py": "",
            "app/forced.txt": "git tracks it, though it is ignored",
            "app/gone.py": "",
            "app/data/.gitignore": "!table.dat\r\n",
        },
    )
    put(root, {"app/secret.txt": "", "app/data/table.dat": "", "app/x.dat": ""})
    (root / "app/gone.py").unlink()
    (root / ".git/info/exclude").write_text("main.py\nnew.py\n")
    git(root, "config", "core.excludesFile", str(tmp_path / ".mine"))
    put(root, {".mine": "*.py\n", "app/new.py": ""})
    assert names(root) == [
        "app/data/table.dat",
        "app/forced.txt",
        "app/main.py",
        "app/new.py",
    ]


@pytest.mark.usefixtures("no_git")
def test_without_git_the_same_patterns_hold(tmp_path):
    put(
        tmp_path,
        {
            "pyproject.toml": '[tool.containerize]\nimage = "demo"\n',
            ".gitignore": b"\xef\xbb\xbf*.txt\n# f\xfcr uns\n*.dat\n",
            "app/main.py": "",
            "app/secret.txt": "",
            "app/x.dat": "",
            "app/data/.gitignore": "!table.dat\r\n",
            "app/data/table.dat": "",
        },
    )
    assert names(tmp_path) == ["app/data/table.dat", "app/main.py"]


def test_names_that_are_no_text(tmp_path):
    odd = [b"a\nb.py", b"f\xfcr.py", b"qu\"o'te.py", "ünï.py".encode(), b":(x"]
    (tmp_path / "app").mkdir()
    for name in odd:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"app", name))).touch()
    put(tmp_path, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n'})
    without = app(tmp_path)
    repository(tmp_path, {})
    assert app(tmp_path) == without
    found = {f.path.encode("utf-8", "surrogateescape") for f in without.files}
    assert found == {b"app/" + name for name in odd}


def test_variables_of_git_change_nothing(tmp_path, monkeypatch):
    root = repository(tmp_path / "one", {"app/main.py": "", "app/x.py": ""})
    other = repository(tmp_path / "two", {"app/other.py": ""})
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_CEILING_DIRECTORIES": root.parent,
        "GIT_LITERAL_PATHSPECS": "0",
        "GIT_PREFIX": "x/",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert names(root) == ["app/main.py", "app/x.py"]


def test_a_project_inside_a_larger_repository(tmp_path):
    repository(tmp_path, {".gitignore": "*.log\n", "other/x.py": ""})
    root = tmp_path / "services" / "shop"
    put(root, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n'})
    put(root, {"app/main.py": "", "app/debug.log": ""})
    assert names(root) == ["app/main.py"]
    git(tmp_path, "add", ".")
    assert names(root) == ["app/main.py"]
    # Without git too, the .gitignore above counts.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        assert names(root) == ["app/main.py"]


def test_a_repository_around_that_ignores_the_project_is_not_its_own(tmp_path):
    """As where a home directory is a repository that ignores all by default."""
    repository(tmp_path, {".gitignore": "*\n"})
    root = tmp_path / "shop"
    put(root, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n'})
    put(root, {".gitignore": "*.log\n", "app/main.py": "", "app/debug.log": ""})
    assert names(root) == ["app/main.py"]


def test_a_worktree_of_git(tmp_path):
    root = repository(tmp_path / "main", {"app/main.py": ""})
    git(root, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    assert names(tmp_path / "tree") == ["app/main.py"]
    (tmp_path / "main").rename(tmp_path / "moved")
    with pytest.raises(Problem, match="git cannot read the checkout"):
        names(tmp_path / "tree")


def test_what_was_a_directory_is_a_link_now(tmp_path):
    root = repository(
        tmp_path, {"app/data/x.py": "", "app/main.py": "", "lib/x.py": ""}
    )
    (root / "app/data/x.py").unlink()
    (root / "app/data").rmdir()
    (root / "app/data").symlink_to("../lib")
    (root / "app/main.py").unlink()
    put(root, {"app/main.py/sub.py": ""})
    assert names(root) == ["app/data", "app/main.py/sub.py", "lib/x.py"]


def test_a_link_out_of_the_repository_is_one_line(tmp_path):
    root = repository(tmp_path / "root", {"main.py": "", "lib/x.py": ""})
    (root / "lib/up").symlink_to("../main.py")
    (root / "lib/data").symlink_to("/data/x")
    (root / "lib/gone").symlink_to("../tests/x")
    (root / "all").symlink_to("lib")
    (root / "inner").symlink_to("all/x.py")
    assert app(root).notes == (
        "lib/data is a link to /data/x, which only the image can have",
        "lib/gone is a link to ../tests/x, which is not packed",
    )
    (root / "lib/out").symlink_to("../../other")
    with pytest.raises(Problem, match=r"lib/out is a link out .* to \.\./\.\./other"):
        app(root)


# --- What git names and nobody can read ------------------------------------------


def test_a_submodule_and_a_repository_inside_are_one_line(tmp_path, monkeypatch):
    part = repository(tmp_path / "part", {"x.py": ""})
    root = repository(tmp_path / "root", {"app/main.py": ""})
    clone(part, root / "app" / "vendor")
    with pytest.raises(Problem, match="app/vendor is a repository of its own"):
        app(root)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(Problem, match="app/vendor is a repository of its own"):
            app(root)
    git(root, "add", "app/vendor")
    with pytest.raises(Problem, match="app/vendor is a repository of its own"):
        app(root)
    # Where nothing of it is packed, it is nobody's trouble.
    git(root, "mv", "app/vendor", "docs")
    assert names(root) == ["app/main.py"]


def test_a_pointer_of_lfs_is_one_line(tmp_path):
    root = repository(tmp_path, {"app/main.py": "", "app/model.bin": POINTER})
    with pytest.raises(Problem, match=r"app/model\.bin is a pointer of Git LFS"):
        app(root)


def test_a_sparse_checkout_is_one_line(tmp_path):
    root = repository(tmp_path, {"app/main.py": "", "app/data/x.py": "", "docs/x": ""})
    git(root, "sparse-checkout", "set", "--no-cone", "/*", "!/app/data")
    with pytest.raises(Problem, match=r"app/data/x\.py is not in this sparse checkout"):
        app(root)
    git(root, "sparse-checkout", "set", "--no-cone", "/*", "!/docs")
    assert names(root) == ["app/data/x.py", "app/main.py"]


def test_a_merge_conflict_is_one_line(tmp_path):
    root = repository(tmp_path, {"app/main.py": "0"})
    git(root, "checkout", "--quiet", "-b", "mine")
    git(root, "branch", "other")
    for branch, text in (("other", "1"), ("mine", "2")):
        git(root, "checkout", "--quiet", branch)
        put(root, {"app/main.py": text})
        git(root, "commit", "--quiet", "--all", "--message", text)
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "merge", "other")
    with pytest.raises(Problem, match=r"app/main\.py has a merge conflict[^(]*$"):
        app(root)
    git(root, "add", "app/main.py")
    assert names(root) == ["app/main.py"]


def test_a_checkout_of_another_user_is_one_line(tmp_path, monkeypatch):
    """Never read by the other rule in silence; `sudo ./dev …` is let in by git."""
    root = repository(tmp_path, {".gitignore": "*.py\n", "app/main.py": ""})
    monkeypatch.setenv("HOME", str(tmp_path))
    # git's own switch for its own tests: no second user is needed.
    run = subprocess.run

    def foreign(command, **options):
        options["env"] |= {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
        return run(command, **options)

    monkeypatch.setattr(sources.subprocess, "run", foreign)
    with pytest.raises(Problem, match=r"belongs to another user.*safe\.directory"):
        app(root)
    git(root, "config", "--global", "safe.directory", str(root))
    assert names(root) == ["app/main.py"]


# --- Contents and modes ----------------------------------------------------------

TEXTS = {
    "app/plain.py": "a\nb\n",
    "app/crlf.txt": "a\r\nb\r\n",
    "app/mixed.txt": "a\r\nb\n",
    "app/image.bin": b"\0\r\n\r\n\n",
    "app/lone.txt": b"a\rb\n",
    "app/forced.bat": "a\r\nb\r\n",
}


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "* text=auto\n",
        "* text=auto eol=lf\n",
        "* text=auto eol=crlf\n",
        "*.py text eol=crlf\n*.bat text eol=crlf\n*.txt -text\n",
        "*.bat binary\n*.txt text\n",
        "* -crlf\n",
    ],
)
def test_line_ends_of_a_checkout_do_not_count(tmp_path, attributes):
    root = repository(tmp_path / "x", {".gitattributes": attributes, **TEXTS})
    expected = None
    for config in ("core.autocrlf=false", "core.autocrlf=true", "core.autocrlf=input"):
        copy = clone(root, tmp_path / config, config)
        found = {file.path: file.content for file in app(copy).files}
        for name in TEXTS:  # git looks again at files whose time is another
            os.utime(copy / name, (1, 1))
        git(copy, "add", ".")
        assert found == {name: git(copy, "show", f":{name}") for name in TEXTS}, config
        expected = expected or found
        assert found == expected, config


def test_an_edit_with_crlf_is_stored_as_git_would(tmp_path):
    root = repository(tmp_path, {"app/a.py": "a\n"})
    git(root, "config", "core.autocrlf", "true")
    put(root, {"app/a.py": "a\r\nb\r\n", "app/new.py": "n\r\n", "app/b": b"\0\r\n"})
    assert [f.content for f in app(root).files] == [b"a\nb\n", b"\0\r\n", b"n\n"]
    git(root, "config", "core.autocrlf", "false")
    assert app(root).files[0].content == b"a\r\nb\r\n"


def test_modes_and_links_that_the_file_system_cannot_tell(tmp_path):
    origin = repository(tmp_path / "origin", {"app/run": "#!/bin/sh\n", "app/x.py": ""})
    (origin / "app/run").chmod(0o755)
    (origin / "app/link").symlink_to("x.py")
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "--message", "modes")
    expected = app(origin)
    copy = clone(
        origin, tmp_path / "copy", "core.fileMode=false", "core.symlinks=false"
    )
    assert (copy / "app/link").is_file()
    for path in (copy / "app").iterdir():
        path.chmod(0o755)
    assert app(copy) == expected
    put(copy, {"app/new.py": ""})
    (copy / "app/new.py").chmod(0o755)
    assert not {f.path: f for f in app(copy).files}["app/new.py"].executable
    # Where the file system tells, the working tree counts.
    (origin / "app/x.py").chmod(0o755)
    assert {f.path: f for f in app(origin).files}["app/x.py"].executable


def test_a_file_system_without_modes_is_one_line(tmp_path, monkeypatch):
    put(tmp_path, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n'})
    put(tmp_path, {"app/a.py": "", "app/b.py": ""})
    assert len(app(tmp_path).files) == 2
    for path in (tmp_path / "app").iterdir():
        path.chmod(0o755)
    assert all(f.executable for f in app(tmp_path).files)
    # As vfat has it, where chmod changes nothing.
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with pytest.raises(Problem, match="keeps no modes"):
        app(tmp_path)


def test_this_repository_is_the_same_with_crlf(tmp_path):
    """Committed or not: git would store the same files."""
    here = repository(tmp_path / "here", {})
    for file in sources.read(ROOT).files:
        (here / file.path).unlink(missing_ok=True)
        file.write(here)
    git(here, "add", "--all")
    git(here, "commit", "--quiet", "--message", "here")
    crlf = clone(here, tmp_path / "crlf", "core.autocrlf=true")
    # Without our .gitattributes the lines end otherwise, and still nothing changes.
    (here / ".gitattributes").unlink()
    git(here, "commit", "--quiet", "--all", "--message", "no attributes")
    bare = clone(here, tmp_path / "bare", "core.autocrlf=true")
    assert b"\r\n" not in b"".join(
        f.read_bytes() for f in crlf.glob("[a-zD]*[!y]") if f.is_file()
    )
    assert b"\r\n" in (bare / "base.lock").read_bytes()
    expected = record.inputs(settings.load(ROOT, {}))
    assert record.inputs(settings.load(crlf, {})) == expected
    assert record.inputs(settings.load(bare, {})) == expected
    done = subprocess.run(
        [crlf / "dev", "no-such-command"],
        env=os.environ | {"PYTHON": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no Python 3.11" in done.stderr


def test_a_record_names_the_commit_of_its_own_repository(tmp_path, monkeypatch):
    other = repository(tmp_path / "other", {})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    root = repository(tmp_path / "root", {"app/x.py": ""})
    commit = git(root, "rev-parse", "HEAD").decode().strip()
    assert record._git(settings.load(root, {}), "rev-parse", "HEAD") == commit


# --- What our own rules leave out ------------------------------------------------


def test_what_is_left_out_is_named(tmp_path):
    root = repository(
        tmp_path,
        {
            ".gitignore": "*.log\n",
            "app/main.py": "",
            "app/.env": "",
            "app/tests/a.py": "",
            "app/tests/b.py": "",
            "app/sub/tls.pem": "",
            "app/sub/a\nb.key": "",
        },
    )
    put(root, {"app/x.log": ""})
    found = app(root)
    assert [f.path for f in found.files] == ["app/main.py"]
    assert found.left_out == (
        "app/.env",
        "app/sub/a\\nb.key",
        "app/sub/tls.pem",
        "app/tests/",
        ".gitignore",
        "pyproject.toml",
    )


def test_no_file_of_variables_is_packed(tmp_path):
    names = ("prod.env", "config/settings.txt", "config/other.txt")
    root = repository(tmp_path, {"main.py": "", **dict.fromkeys(names, "A=secret\n")})
    for name in ("config/settings.txt", "./config/settings.txt"):
        found = app(root, env_file=name)
        assert [f.path for f in found.files] == ["config/other.txt", "main.py"]
        assert {"config/settings.txt", "prod.env"} <= set(found.left_out)
    assert "config/settings.txt" in [f.path for f in app(root).files]


def test_a_file_of_variables_that_a_flag_names_is_told_if_it_is_packed(
    tmp_path, monkeypatch, capsys
):
    names = ("main.py", "prod.cfg", ".env", "with.env", "config/x", "y")
    root = repository(tmp_path, dict.fromkeys(names, ""))
    (root / "link").symlink_to("prod.cfg")
    monkeypatch.chdir(root / "config")
    own = {"env_file": "config/x", "exclude": ("y",)}
    session = verbs.Session()
    session.settings = dataclasses.replace(settings.load(root, {}), **own)
    for name in ("../prod.cfg", f"{root}/link", "../.env", "../with.env", "x", "../y"):
        session.warn_of_packed(name)
    told = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert told == ["../prod.cfg", f"{root}/link"]


def test_no_secret_is_packed_by_whatever_name(tmp_path):
    names = ("main.py", "data/db-password", "data/other", "db-password")
    root = repository(tmp_path, dict.fromkeys(names, "hunter2\n"))
    os.symlink("db-password", root / "data/link")
    os.link(root / "data/db-password", root / "data/again")
    git(root, "add", "--all")
    options = {"include": ("data/db-password", "data/", "*")}
    everything = {f.path for f in app(root, **options).files}
    assert {"data/db-password", "data/link", "data/again"} <= everything
    for name in ("data/db-password", "./data/link", f"{root}/data/again"):
        found = app(root, secrets={"db-password": name}, **options)
        packed = {f.path for f in found.files}
        assert {"main.py", "data/other", "db-password"} <= packed
        left = {"data/db-password", "data/link", "data/again"}
        assert packed.isdisjoint(left)
        assert left <= set(found.left_out)
    # What a backend reads at the top is none either.
    named = {"db-password": "db-password"}
    own = dataclasses.replace(settings.load(root, {}), secrets=named)
    assert "db-password" not in {f.path for f in project.reads(own)}


def test_nothing_of_a_directory_is_packed_that_is_named_as_a_secret(tmp_path):
    root = repository(tmp_path, dict.fromkeys(("main.py", "data/a/b", "data.py"), ""))
    os.symlink("data/a", root / "link")
    git(root, "add", "--all")
    for named in ({"secrets": {"a": "data"}}, {"env_file": "./link/.."}):
        found = app(root, include=("data/a/b",), **named)
        assert {f.path for f in found.files} == {"data.py", "link", "main.py"}


def test_nobody_is_told_to_include_a_secret(tmp_path):
    root = repository(tmp_path, {".gitignore": "secrets/a\ndata\n", "main.py": ""})
    put(root, {"secrets/a": "hunter2\n", "data": ""})
    own = settings.load(root, {})
    assert set(selection.ignored(own)) == {"data", "secrets/a"}
    own = dataclasses.replace(own, secrets={"a": "secrets/a"})
    assert selection.ignored(own) == ("data",)


def test_build_prints_what_is_left_out_in_a_few_lines(tmp_path, capsys):
    left_out = tuple(f"app/{name}" for name in (".env", "tests/", *"123456789ab"))
    built = build.Image(
        references=("demo:latest",),
        archive=tmp_path,
        digests=ImageDigests("sha256:1", "sha256:2", ()),
        packed=layers.Packed(layers=(), locked=None, left_out=left_out, notes=("x",)),
        ignored=("a.mo",),
    )
    tasks.describe(built)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        f"left out  {', '.join(left_out[:12])} and 1 more",
        "ignored   a.mo",
        "          .gitignore names these: the setting include packs what you need",
        "note      x",
    ]


def test_a_rebuild_finds_this_package_from_anywhere(tmp_path):
    script = "import containerize.verify.rebuild as r; print(r.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=rebuild._environment(tmp_path, varied=False),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == rebuild.__file__, done.stderr


def test_the_copy_that_verify_rebuilds_has_the_same_files(tmp_path):
    """It is no checkout, and has the tracked files that a .gitignore names too."""
    root = repository(
        tmp_path / "root",
        {".gitignore": "*.dat\n", "app/x.dat": "", "app/run": "", "app/a.py": "a\r\n"},
    )
    (root / "app/run").chmod(0o755)
    (root / "app/link").symlink_to("x.dat")
    (root / "app/new.dat").touch()
    for varied in (False, True):
        rebuild._copy(settings.load(root, {}), tmp_path / f"copy {varied}", varied)
        assert app(tmp_path / f"copy {varied}").files == app(root).files


def test_locale_does_not_change_names(tmp_path):
    put(tmp_path, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n'})
    put(tmp_path, {"app/naïve.py": "", ".gitignore": "nä*\n", "app/näh.py": ""})
    code = (
        "import pathlib, sys; from containerize import settings;"
        "from containerize.pack import selection;"
        "print([f.path.encode('utf-8', 'surrogateescape') for f in"
        " selection.app(settings.load(pathlib.Path(sys.argv[1]), {})).files])"
    )
    for flags in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}):
        out = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **flags},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        assert out == f"{['app/naïve.py'.encode()]}\n"


# --- Our reader against git ------------------------------------------------------

PATHS = (
    *(
        f"{a}{b}"
        for a in ("", "d/", "d/e/", "d e/")
        for b in ("a", "b.txt", "c ", "ab")
    ),
    *("[x]", "!a", "#a", "d/*", "d/-", "d/e/a\\", "d/e/ü", "abc/x/y/z", "a.d/a/a.txt"),
    *("d/e/]", "t\t", "d/ a", "x^", "9"),
)
PIECES = st.sampled_from(
    [
        *("a", "b", "c", "d", "e", "x", "y", ".txt", "ü", "9", " ", "\t", "-", "^"),
        *("*", "?", "/", "/**/", "**/", "/**", "\\", "\\ ", "\\*", "\\[", "#", "!"),
        *("[ab]", "[!a]", "[^a]", "[a-c]", "[c-a]", "[]-]", "[!]]", "[\\]]", "["),
        *("[[:alpha:]]", "[[:digit:][:space:]]", "[[:none:]]", "[a-", "[[:", "[a\\-c]"),
    ]
)
# Of `a**/b` git's manual says that these are regular asterisks; many releases read
# `a` and then `**/b`: there is no one answer to compare with.
LINES = (
    st.tuples(
        st.sampled_from(["", "", "", "!", "/", "!/", "#", "\\!", "\\#", " "]),
        st.lists(PIECES, min_size=1, max_size=4).map("".join),
        st.sampled_from(["", "", "", "/", " ", "  ", "\t", "\\", "\r", "/ "]),
    )
    .map("".join)
    .filter(lambda line: not re.search(r"[^/*]\*\*", line.removeprefix("!")))
)
FILES = st.tuples(
    st.lists(LINES, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
).map(lambda t: t[2] + t[1].join(t[0]) + (t[1] if t[3] else ""))
IGNORES = st.dictionaries(
    st.sampled_from(["", "d/", "d/e/", "abc/"]), FILES, min_size=1
)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp("generated")
    git(root, "init", "--quiet")
    put(root, dict.fromkeys(PATHS, ""))
    return root


@given(ignores=IGNORES)
@given_settings(max_examples=300)
def test_our_reader_and_git_agree(generated, ignores):
    for old in generated.rglob(".gitignore"):
        old.unlink()
    put(generated, {f"{where}.gitignore": text for where, text in ignores.items()})
    listed = git(
        generated, "ls-files", "-coz", "--exclude-per-directory=.gitignore"
    ).split(b"\0")[:-1]
    ours = [name.path for name in sources._in_directory(generated, [])]
    assert sorted(ours) == sorted(listed)


# --- The settings include and exclude --------------------------------------------


def chosen(root, **table):
    return selection.app(dataclasses.replace(settings.load(root, {}), **table))


INCLUDED = {
    ".gitignore": "*.mo\n/assets/\n/secret/\nnode_modules/\n.venv/\n",
    "main.py": "",
    "tr/de.mo": "",
    ".venv/pyvenv.cfg": "",
    ".venv/lib/x.mo": "",
    "env/pyvenv.cfg": "",
    "env/lib/x.mo": "",
    "node_modules/x/de.mo": "",
    "assets/a.css": "",
    "assets/.env": "",
    "assets/sub/tls.key": "",
    ".well-known/security.txt": "",
    ".well-known/.swp": "",
    "secret/tls.pem": "",
    "docs/a.md": "",
    "docs/tests/x.py": "",
}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), []),
        (("*.mo",), (), ["tr/de.mo"]),
        (("assets/",), (), ["assets/a.css"]),
        (("/assets/*",), (), ["assets/a.css"]),
        (("assets/*.css",), (), ["assets/a.css"]),
        (("assets/", "!assets/a.css"), (), []),
        (("assets/**", "/assets/.env"), (), ["assets/.env", "assets/a.css"]),
        ((".well-known/",), (), [".well-known/security.txt"]),
        (("secret/tls.pem",), (), ["secret/tls.pem"]),
        (("secret/*.pem",), (), ["secret/tls.pem"]),
        (("secret/",), (), []),
        (("docs/",), (), ["docs/a.md"]),
        (("docs/",), ("*.md",), []),
        (("docs/tests/",), (), ["docs/tests/x.py"]),
        (("node_modules/x/",), (), ["node_modules/x/de.mo"]),
    ],
)
@pytest.mark.parametrize("has_git", [True, False])
def test_include_goes_over_gitignore_and_our_rules(
    tmp_path, monkeypatch, include, exclude, expected, has_git
):
    put(tmp_path, INCLUDED)
    put(tmp_path, {"pyproject.toml": '[tool.containerize]\nimage = "demo"\n'})
    if has_git:
        git(tmp_path, "init", "--quiet")
    else:
        monkeypatch.setenv("PATH", str(tmp_path / "docs"))
    found = chosen(tmp_path, include=include, exclude=(*exclude, "/env/"))
    assert [f.path for f in found.files] == sorted([*expected, "main.py"])


def test_ignored_files_are_named_but_for_those_of_tools(tmp_path):
    root = repository(tmp_path, {".gitignore": INCLUDED[".gitignore"] + "/build/\n"})
    put(root, INCLUDED)
    put(root, {"build/x": "", "lib/x.pyc": ""})
    expected = ("assets/", "secret/", "tr/de.mo")
    loaded = settings.load(root, {})
    assert selection.ignored(loaded) == expected
    only = dataclasses.replace(loaded, include=("*.mo",), exclude=("/secret/",))
    assert selection.ignored(only) == ("assets/",)


def test_a_pattern_that_names_nothing_is_told(tmp_path):
    root = repository(tmp_path, {"main.py": "", "a.mo": ""})
    assert chosen(root, include=("*.mo", "/static/")).notes == (
        "include: nothing is named by '/static/'",
    )


def test_a_task_queue_is_the_apps(tmp_path):
    root = repository(tmp_path, {"tasks.py": "import celery\n"})
    assert names(root) == ["tasks.py"]
    put(root, {"main.py": "", "tasks.py": "from containerize.tasks import namespace\n"})
    assert names(root) == ["main.py"]


def test_what_a_build_makes_is_never_packed(tmp_path):
    root = repository(tmp_path, {"main.py": ""})
    put(root, {"dist/site.css": "", "dist/demo.tar": "", "build/context/build/x": ""})
    put(root, {"build/app.tar": "", "build/app.js": ""})
    found = chosen(root, include=("/dist/", "/build/"))
    assert [f.path for f in found.files] == ["build/app.js", "dist/site.css", "main.py"]


def test_a_name_that_deletes_in_images_is_one_line(tmp_path):
    root = repository(tmp_path, {"main.py": "", "data/.wh.x": ""})
    assert names(root) == ["main.py"]
    with pytest.raises(Problem, match=r"data/\.wh\.x: \.wh\. deletes"):
        chosen(root, include=(".wh.*",))


def test_node_modules_are_told(tmp_path):
    root = repository(tmp_path, {"main.py": "", "node_modules/a.js": "x" * 200_000})
    assert "node_modules is packed, 0.2 MB" in app(root).notes[0]
