"""What Debian's maintainer scripts make, which nobody runs for an image (issue 8, B17).

The links of alternatives follow from the packages alone and are made here. Of all else
that a script would make, one line tells.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from containerize.pack import shell, tree

_MADE_ELSEWHERE = re.compile(
    r"base-files|ca-certificates|libc6|netbase|readline-common|tzdata"
    r"|(lib)?python3\.[0-9]+(-minimal|-stdlib)?"
)
"""Packages whose scripts make what an image has from elsewhere, or does not need."""

_MISSING = {
    "adduser": "users and groups",
    "addgroup": "users and groups",
    "useradd": "users and groups",
    "groupadd": "users and groups",
    "systemd-sysusers": "users and groups",
    "systemd-tmpfiles": "files of tmpfiles.d",
    "update-mime-database": "the cache of MIME types, mime.cache",
    "gdk-pixbuf-query-loaders": "the list of image loaders, loaders.cache",
    "fc-cache": "the cache of fonts",
    "glib-compile-schemas": "compiled settings, gschemas.compiled",
    "gio-querymodules": "the cache of GIO's modules, giomodule.cache",
    "gtk-update-icon-cache": "the cache of icons",
    "update-icon-caches": "the cache of icons",
    "gtk-query-immodules-3.0": "the list of input methods, immodules.cache",
    "update-desktop-database": "the cache of desktop files",
    "keytool": "Java's certificates, /etc/ssl/certs/java/cacerts",
    "locale-gen": "locales",
    "localedef": "locales",
    "libgvc6-config-update": "the list of Graphviz's plugins, config6a",
    "odbcinst": "the registration of ODBC drivers",
    "update-catalog": "catalogs of SGML",
    "update-xmlcatalog": "catalogs of XML",
    "aspell-autobuildhash": "the dictionaries of aspell",
    "update-gsfonts": "the list of Ghostscript's fonts",
    "dpkg-divert": "diverted files",
    "dpkg-statoverride": "owners and modes of files",
    "setcap": "capabilities of files",
    "pam-auth-update": "the configuration of PAM",
    "ucf": "configuration files by ucf",
}
"""By command: what is missing in an image where nobody has run it."""

_NEEDED = {
    "fc-cache": "/share/fonts/",
    "gdk-pixbuf-query-loaders": "/loaders/libpixbufloader",
    "gio-querymodules": "/gio/modules/lib",
    "glib-compile-schemas": ".gschema.xml",
    "gtk-update-icon-cache": "/share/icons/",
    "gtk-query-immodules-3.0": "/immodules/im-",
}
"""By command: what is in a path of its input, without which it makes nothing."""

_HARMLESS = re.compile(
    r"[.:\[]|alias|awk|basename|break|cat|cd|chgrp|chmod|chown|cmp|command|continue|"
    r"cut|deb-systemd-helper|deb-systemd-invoke|debconf-show|diff|dirname|dpkg|"
    r"dpkg-architecture|dpkg-maintscript-helper|dpkg-query|dpkg-trigger|egrep|env|"
    r"eval|exec|exit|expr|fgrep|find|getent|grep|head|id|invoke-rc.d|ischroot|kill|"
    r"ldconfig|ls|md5sum|pidof|printf|ps|pwd|py3clean|py3compile|pypy3compile|read|"
    r"readlink|realpath|restorecon|return|rm|rmdir|sed|set|sha256sum|shift|sleep|"
    r"sort|stat|systemctl|tail|test|touch|tr|trap|type|udevadm|umask|uname|uniq|"
    r"unset|update-binfmts|update-initramfs|update-rc.d|wc|which|xargs"
    r"|db_\w+"
)
"""Commands that only look, take away, or serve a running system."""

_NO_DIVERSION = re.compile(
    r"--remove|--truename|--list|--listpackage|.*\.usr-is-merged"
)
"""Words of dpkg-divert where it only asks, or guards the move to the merged /usr."""

_QUIET_OPTIONS = (
    "--remove",
    "--remove-all",
    "--query",
    "--display",
    "--list",
    "--auto",
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to fill a group of alternatives, as update-alternatives(1) is told."""

    priority: int
    paths: Mapping[str, tuple[str, str]]
    """By name, the group's own first: the link, and the path that it shall lead to."""


class Scripts:
    """Reads the scripts of packages, one after the other, and then makes the links."""

    def __init__(self, left_out: Iterable[str]) -> None:
        self._left_out = tuple(f"/{top}/" for top in left_out)
        self._groups: dict[str, list[Choice]] = {}

    def read(self, root: tree.Tree, package: str, files: Mapping[str, str]) -> None:
        """Read a package's control files; `root` has the files of all packages."""
        if _MADE_ELSEWHERE.fullmatch(package):
            return
        interests = re.findall(
            r"^\s*interest\S*\s+(\S+)", files.get("triggers", ""), re.M
        )
        for file, arguments in (
            ("preinst", [("install", "")]),
            ("postinst", [("configure", ""), ("triggered", " ".join(interests))]),
        ):
            if file not in files:
                continue
            unmade, unknown = dict[str, None](), dict[str, None]()
            try:
                for given in arguments[: None if interests else 1]:
                    for call in shell.calls(files[file], given, root, package):
                        self._judge(call, root, unmade, unknown)
            except shell.Unclear as problem:
                unmade[f"what nobody can tell ({problem})"] = None
            if unmade:  # which writes the files
                unknown.pop("writing to files", None)
            if unknown:
                unmade[f"what it does by {', '.join(unknown)}"] = None
            if unmade:
                root.warnings.append(
                    f"{package}: its script {file}, which no build runs, would make: "
                    f"{'; '.join(unmade)}"
                )

    def _judge(
        self,
        call: shell.Call,
        root: tree.Tree,
        unmade: dict[str, None],
        unknown: dict[str, None],
    ) -> None:
        name = (call.words[0] or "a command with a variable name").rpartition("/")[2]
        if name == "update-alternatives":
            if any(option in call.words for option in _QUIET_OPTIONS):
                return
            found = _choice(call.words) if call.sure else None
            if found:
                self._groups.setdefault(next(iter(found.paths)), []).append(found)
            else:
                unmade["links of alternatives, in a way that is not understood"] = None
        elif name == "dpkg-divert" and any(
            _NO_DIVERSION.fullmatch(word or "") for word in call.words
        ):
            return
        elif name in _MISSING:
            if any(_NEEDED.get(name, "") in path for path in root.entries):
                unmade[f"{_MISSING[name]} ({name})"] = None
        elif not _HARMLESS.fullmatch(name):
            unknown["writing to files" if name == ">" else name] = None

    def link(self, root: tree.Tree) -> None:
        """Make the links of each group's best choice, as update-alternatives does.

        The highest priority wins; of equal ones that which was there first.
        """
        for name, given in sorted(self._groups.items()):
            known: dict[str, Choice] = {}
            best = ""
            for choice in given:
                path = choice.paths[name][1]
                if root.real(path):
                    known[path] = choice
                    best = min(known, key=lambda p: (-known[p].priority, p != best, p))
                elif not path.startswith(self._left_out):
                    root.warnings.append(f"the alternative {name} has no file {path}")
            if not best:
                continue
            for inner, (link, path) in known[best].paths.items():
                if root.real(path):
                    _link(root, f"/etc/alternatives/{inner}", path)
                    _link(root, link, f"/etc/alternatives/{inner}")


def _link(root: tree.Tree, path: str, target: str) -> None:
    """A link to `target`; what a package has at `path` stands, as with dpkg."""
    directory, _, name = path.lstrip("/").rpartition("/")
    place = f"{root.real(directory) or directory}/{name}"
    if place not in root.entries:
        root.add(place, tree.symlink(target))


def _choice(words: Sequence[str | None]) -> Choice | None:
    """What `update-alternatives --install …` says; None where it is not understood."""
    paths: dict[str, tuple[str, str]] = {}
    priority = None
    todo = [*words[1:]]
    while todo:
        option = todo.pop(0)
        if option in ("--quiet", "--force", "--verbose"):
            continue
        count = {"--install": 4, "--slave": 3}.get(option or "")
        known = [word for word in todo[:count] if word]
        if count is None or len(known) != count or (option == "--slave") != bool(paths):
            return None
        link, name, path = known[:3]
        if not (link.startswith("/") and path.startswith("/")) or "/" in name:
            return None
        paths[name] = (link, path)
        if option == "--install":
            if not re.fullmatch(r"-?[0-9]+", known[3]):
                return None
            priority = int(known[3])
        del todo[:count]
    return None if priority is None else Choice(priority, paths)
