"""What maintainer scripts make: alternatives as the real tool links them, or a line."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from containerize.pack import scripts, shell, tree

FILES = ("usr/bin/one", "usr/bin/two", "usr/bin/three", "usr/share/fonts/x")


def root(*more):
    made = tree.Tree()
    for path in (*FILES, *more):
        made.add(path, tree.file(b""))
    return made


def read(text, package="tool", file="postinst", **more):
    """The tree with the links, its warnings being in it."""
    made, found = root(), scripts.Scripts(["usr/share/man"])
    found.read(made, package, {file: text, **more})
    found.link(made)
    return made


def links(made):
    return {p: e.target for p, e in made.entries.items() if e.kind == b"2"}


INSTALL = "update-alternatives --install /usr/bin/tool tool"
ONE = f"{INSTALL} /usr/bin/one 1"
TWO = f"{INSTALL} /usr/bin/two 2"
LINKED = {
    "etc/alternatives/tool": "/usr/bin/one",
    "usr/bin/tool": "/etc/alternatives/tool",
}


@pytest.mark.parametrize(
    "body",
    [
        ONE,
        f"update-alternatives \\\n  --quiet{ONE.removeprefix('update-alternatives')}",
        "p=/usr/bin\nupdate-alternatives --install ${p}/tool 'tool' \"$p\"/one 1",
        f'if [ "$1" = configure ] || [ "$1" = abort-remove ]; then {ONE} || true; fi',
        f'case "$1" in\n  configure|x)\n {ONE} ;;\n *) exit 1 ;;\nesac',
        f"for n in one; do\n  {INSTALL} /usr/bin/$n 1\ndone",
        f"add() {{\n  {INSTALL} /usr/bin/$1 1\n}}\nadd one",
        f"[ -e /usr/bin/one ] && {{ {ONE}; }}",
        f"[ -e /usr/bin/nowhere ] || ( {ONE} )",
        f"if which one >/dev/null 2>&1; then {ONE}; fi",
        f'[ -z "$2" ] && {ONE} # "a quote',
        f"cat >/dev/null <<EOF\nit's (\nEOF\n{ONE}",
        f"{ONE}\nexit 0\n{TWO}",
        f'if [ "$1" = triggered ]; then {TWO}; fi\n{ONE}',
        f'if [ -x /usr/bin/one -a -n "$2" ]; then {TWO}; else {ONE}; fi',
    ],
)
def test_plain_ways_to_install_an_alternative_are_understood(body):
    made = read(f"#!/bin/sh\nset -e\n{body}\n")
    assert made.warnings == []
    assert links(made) == LINKED


@pytest.mark.parametrize(
    "body",
    [
        f"{INSTALL} $(ls /usr/bin) 1",
        f"{INSTALL} /usr/bin/one $priority",
        f'if [ -n "$unknown" ]; then {ONE}; fi',
        f"for n in /usr/bin/*; do {INSTALL} $n 1; done",
        f"ls | while read n; do {ONE}; done",
        f"p=one\nif grep -q x /etc/x; then p=two; fi\n{INSTALL} /usr/bin/$p 1",
        "update-alternatives --set tool /usr/bin/one",
    ],
)
def test_what_is_not_plain_is_one_line_and_no_link(body):
    made = read(f"#!/bin/sh\n{body}\n")
    assert made.warnings == [
        "tool: its script postinst, which no build runs, would make: links of "
        "alternatives, in a way that is not understood"
    ]
    assert links(made) == {}


SPELLED = [
    "update-alternatives --install {} {} {} {}{}",
    "update-alternatives \\\n --quiet --install '{}' {} \"{}\" {}{} || true",
    'if [ "$1" = "configure" ]; then\n update-alternatives --install {} {} {} {}{}\nfi',
    'case "$1" in configure)\n update-alternatives --install {} {} {} {}{};;\nesac',
    "for x in {}; do update-alternatives --install $x {} {} {}{}; done",
]
PATHS = st.sampled_from([f"/{path}" for path in FILES])
SLAVES = st.sets(st.tuples(st.sampled_from(["s", "t"]), PATHS), max_size=2)
GROUPS = st.tuples(
    st.sampled_from(SPELLED),
    st.sampled_from(["a", "b"]),
    PATHS,
    st.integers(-5, 100),
    SLAVES,
)


@hypothesis_settings(max_examples=20)
@given(st.lists(GROUPS, max_size=5))
def test_alternatives_are_linked_as_by_the_real_tool(groups):
    lines = []
    for spelling, name, path, priority, slaves in groups:
        extra = "".join(
            f" --slave /usr/lib/{name}{slave} {name}{slave} {target}"
            for slave, target in dict(sorted(slaves)).items()
        )
        link = f"/usr/bin/{name}"
        lines.append(spelling.format(link, name, path, priority, extra))
    text = "#!/bin/sh\nset -e\n" + "\n".join(lines) + "\n"
    made = read(text)
    assert made.warnings == []
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        for path in (*FILES, "usr/lib/x", "etc/alternatives/x", "var/log/x"):
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text("")
        (top / "var/lib/dpkg/alternatives").mkdir(parents=True)
        subprocess.run(
            ["sh", "-c", text, "postinst", "configure", ""],
            env=os.environ | {"DPKG_ROOT": directory},
            check=True,
            capture_output=True,
        )
        real = {
            str(path.relative_to(top)): os.readlink(path)
            for path in top.rglob("*")
            if path.is_symlink()
        }
    assert links(made) == real


def test_a_file_that_a_package_has_in_a_links_place_stands():
    made = read(f"#!/bin/sh\n{ONE}\n".replace("/tool ", "/two "))
    assert made.entries["usr/bin/two"].kind == b"0"


def test_links_follow_the_merged_usr():
    made, found = root(), scripts.Scripts([])
    made.add("bin", tree.symlink("usr/bin"))
    text = "#!/bin/sh\nupdate-alternatives --install /bin/tool tool /bin/one 1\n"
    found.read(made, "tool", {"postinst": text})
    found.link(made)
    assert made.entries["usr/bin/tool"].target == "/etc/alternatives/tool"
    assert made.entries["etc/alternatives/tool"].target == "/bin/one"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("fc-cache -s >/var/log/x", "would make: the cache of fonts (fc-cache)"),
        ("[ -x /x ] || addgroup --system x", "users and groups (addgroup)"),
        ("/usr/lib/x/update-mime-database /usr/share/mime || true", "-database)"),
        ("frobnicate; rm -f /etc/x", "what it does by frobnicate"),
        ("echo x >/etc/x", "what it does by writing to files"),
        ("$(which x) --go", "what it does by a command with a variable name"),
        ("if [ x", "what nobody can tell (it ends too early)"),
        ("echo 'x", "what nobody can tell (line 2 cannot be read)"),
        ("f() { f; }\nf", "what nobody can tell (it is too long)"),
    ],
)
def test_what_is_not_made_is_told_with_package_and_file(body, line):
    [told] = read(f"#!/bin/sh\n{body}\n").warnings
    assert told.startswith("tool: its script postinst, which no build runs, would make")
    assert told.endswith(line)
    assert "\n" not in told


def test_scripts_of_other_languages_are_told():
    [told] = read("#!/usr/bin/perl\nprint 1;\n", file="preinst").warnings
    assert told.endswith(
        "preinst, which no build runs, would make: what nobody can "
        "tell (it is no shell script)"
    )


def test_what_a_trigger_would_make_is_told():
    text = '#!/bin/sh\nif [ "$1" = triggered ]; then fc-cache; fi\n'
    assert read(text).warnings == []
    [told] = read(text, triggers="# note\ninterest-noawait /usr/share/fonts\n").warnings
    assert "fc-cache" in told


@pytest.mark.parametrize(
    "body",
    [
        "deb-systemd-helper enable x.service >/dev/null || true",
        "if command -v py3compile >/dev/null 2>&1; then py3compile -p tool; fi",
        "if which update-mime-database; then update-mime-database /usr/share/mime; fi",
        '. /usr/share/debconf/confmodule\ndb_get x/y\nx="$RET"',
        "ldconfig",
        "/usr/lib/x/glib-compile-schemas /usr/share/glib-2.0/schemas || true",
        'if [ -n "$2" ]; then frobnicate; fi',
        'dpkg --compare-versions "$2" lt-nl 1 && frobnicate',
        'dpkg-maintscript-helper rm_conffile /etc/x 1~ -- "$@"',
        "dpkg-divert --no-rename --divert /lib/x.usr-is-merged --add /lib/x",
    ],
)
def test_harmless_scripts_are_not_told(body):
    assert read(f"#!/bin/sh\nset -e\n{body}\n").warnings == []


@given(st.text("if then fi;do&|(){}$'\"`\\\n#<>x=", max_size=60))
def test_no_script_breaks_the_reader(text):
    with contextlib.suppress(shell.Unclear):
        shell.calls(f"#!/bin/sh\n{text}", ("configure", ""), root(), "tool")
