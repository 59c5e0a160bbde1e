"""What a maintainer script would run: a reader of shell scripts that runs nothing.

It knows the commands of a first installation as far as they follow from the packages:
variables with plain values, loops over plain lists, functions, tests of the arguments
and of files. Of the rest it says that it does not know (POSIX.1-2024, "Shell Command
Language"; Debian Policy, section 6.5).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Sequence

from containerize.pack import tree

Truth = bool | None
"""None where it is not known."""

_MOST = 20_000
"""Commands after which a script counts as not understood."""

_HERE = re.compile(
    r"<<-?[ ]*(['\"]?)(\w+)\1([^\n]*\n)(?:.*?\n)??\t*\2(?=\n|\Z)", re.DOTALL
)
_INNER = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"
_QUOTED = rf'"(?:\\.|\$\({_INNER}\)|`[^`]*`|[^"\\])*"'
_WORD = (
    rf"(?:\\.|'[^']*'|{_QUOTED}|\$\({_INNER}\)|`[^`]*`|\$\{{[^}}]*\}}"
    r"|[^\s;&|()<>'\"`\\])+"
)
_TOKEN = re.compile(
    rf"(?P<space>(?:[ \t]|\\\n)+|\#[^\n]*)"
    rf"|(?P<operator>;;|&&|\|\||[0-9]*(?:>>|>\||[<>]&|[<>])|[;&|()\n])|(?P<word>{_WORD})",
    re.DOTALL,
)
_PIECE = re.compile(
    rf"\\(?P<escaped>.)|'(?P<plain>[^']*)'|(?P<quoted>{_QUOTED})"
    rf"|(?P<ran>\$\({_INNER}\)|`[^`]*`)"
    r"|\$\{(?P<braced>\w+)(?::?-(?P<default>[^}$]*))?\}|(?P<other>\$\{[^}]*\})"
    r"|\$(?P<name>\w+|[@*#?$!-])|(?P<text>[^\\'\"$`]+|\$)",
    re.DOTALL,
)
_ASSIGNED = re.compile(r"(\w+)=(.*)", re.DOTALL)
_LOCAL = ("export", "local", "readonly")


class Unclear(Exception):
    """The script is no shell's, or has a form that is not known here."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A command that the script runs, or may run where `sure` is not true."""

    sure: bool
    words: tuple[str | None, ...]
    """None for a word that is not known."""


def calls(
    script: str, arguments: Sequence[str], root: tree.Tree, package: str
) -> list[Call]:
    """The commands that `script` of `package` runs on the file system `root`.

    A file that it writes to is a call of `>`. Raises Unclear.
    """
    first = script.partition("\n")[0]
    if not re.match(r"#!\s*\S*/(sh|bash|dash)\b", first):
        raise Unclear("it is no shell script")
    shell = _Shell(_tokens(script), arguments, root, package)
    try:
        shell.list(True)
    except (_Exit, _Return):
        return shell.calls
    except IndexError:
        raise Unclear("it ends too early") from None
    if shell.at < len(shell.tokens):
        raise Unclear(f"{shell.peek()!r} comes unexpected")
    return shell.calls


def _tokens(script: str) -> list[str]:
    script = _HERE.sub(r"\3", script)
    found, at = [], 0
    while at < len(script):
        match = _TOKEN.match(script, at)
        if not match:
            raise Unclear(f"line {script.count(chr(10), 0, at) + 1} cannot be read")
        if match.lastgroup != "space":
            found.append(match[0])
        at = match.end()
    return found


class _Exit(Exception):
    """The script has surely ended."""


class _Shell:
    """Walks over the tokens; `run` says of each step whether it is reached."""

    def __init__(
        self,
        tokens: Sequence[str],
        arguments: Sequence[str],
        root: tree.Tree,
        package: str,
    ) -> None:
        self.tokens, self.root, self.at = tokens, root, 0
        self.calls: list[Call] = []
        self.steps = self.depth = 0
        self.functions: dict[str, int] = {}
        self.variables: dict[str, str | None] = {
            **{str(n): text for n, text in enumerate(arguments, 1)},
            "DPKG_ROOT": "",
            "DPKG_MAINTSCRIPT_PACKAGE": package,
        }

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, *tokens: str) -> bool:
        found = self.peek() in tokens
        self.at += found
        return found

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise Unclear(f"there is no {token!r} where one belongs")

    def list(self, run: Truth, *ends: str) -> Truth:
        """Commands up to one of `ends`; the status of the last, true for success."""
        status: Truth = True
        while self.peek() and self.peek() not in ends:
            if not self.accept("\n", ";", "&"):
                status = self.chain(run)
        return status

    def chain(self, run: Truth) -> Truth:
        status = self.pipeline(run)
        while self.peek() in ("&&", "||"):
            both = self.next() == "&&"
            self.newlines()
            right = self.pipeline(_and(run, status if both else _not(status)))
            status = _and(status, right) if both else _or(status, right)
        return status

    def pipeline(self, run: Truth) -> Truth:
        negated = self.accept("!")
        status = self.command(run)
        while self.accept("|"):
            self.newlines()
            self.command(run)
            status = None
        return _not(status) if negated else status

    def newlines(self) -> None:
        while self.accept("\n"):
            pass

    def command(self, run: Truth) -> Truth:
        self.steps += 1
        if self.steps > _MOST or self.depth > 20:
            raise Unclear("it is too long")
        word = self.peek()
        compound = {
            "if": self.if_,
            "for": self.for_,
            "while": self.while_,
            "until": self.while_,
            "case": self.case,
        }.get(word)
        if compound:
            self.at += 1
            status = compound(run)
        elif word in ("{", "("):
            self.at += 1
            end = "}" if word == "{" else ")"
            status = self.list(run, end)
            self.expect(end)
        elif self.tokens[self.at + 1 : self.at + 3] == ["(", ")"]:
            self.at += 3
            self.newlines()
            self.functions[word] = self.at
            return self.command(False)
        else:
            return self.simple(run)
        while self.redirected(run):
            pass
        return status

    def if_(self, run: Truth) -> Truth:
        open_, status = run, None
        while True:
            condition = self.list(open_, "then")
            self.expect("then")
            self.list(_and(open_, condition), "elif", "else", "fi")
            open_ = _and(open_, _not(condition))
            if not self.accept("elif"):
                break
        if self.accept("else"):
            self.list(open_, "fi")
        self.expect("fi")
        return status

    def for_(self, run: Truth) -> Truth:
        name, values = self.next(), None
        self.newlines()
        if self.accept("in"):
            words = []
            while self.peek() not in ("\n", ";"):
                words.append(self.next())
            values = self.fields(words)
        while self.accept("\n", ";"):
            pass
        self.expect("do")
        start = self.at
        each: Sequence[str | None] = values or [None]
        for value in each:
            self.at = start
            self.variables[name] = value
            self.list(None if values is None else run if values else False, "done")
        self.expect("done")
        return None

    def fields(self, words: Sequence[str]) -> Sequence[str] | None:
        """What a loop goes through; None where it is not known."""
        found: list[str] = []
        for word in words:
            value = self.expand(word)
            if value is None or re.search(r"[*?\[]", word):
                return None
            found += [value] if word[0] in "'\"" else value.split()
        return found

    def while_(self, run: Truth) -> Truth:
        self.list(_and(run, None), "do")
        self.expect("do")
        self.list(_and(run, None), "done")
        self.expect("done")
        return None

    def case(self, run: Truth) -> Truth:
        subject, open_ = self.expand(self.next()), run
        self.newlines()
        self.expect("in")
        self.newlines()
        while not self.accept("esac"):
            self.accept("(")
            matches: Truth = False
            while True:
                pattern = self.expand(self.next())
                if subject is None or pattern is None:
                    matches = _or(matches, True if pattern == "*" else None)
                else:
                    matches = _or(matches, fnmatch.fnmatchcase(subject, pattern))
                if not self.accept("|"):
                    break
            self.expect(")")
            self.list(_and(open_, matches), ";;", "esac")
            open_ = _and(open_, _not(matches))
            self.accept(";;")
            self.newlines()
        return None

    def redirected(self, run: Truth) -> bool:
        operator = self.peek()
        if not re.fullmatch(r"[0-9]*(>>|>\||[<>]&|[<>])", operator):
            return False
        self.at += 1
        target = self.next()
        if ">" in operator and "&" not in operator and target != "/dev/null":
            self.note(run, [">", self.expand(target)])
        return True

    def simple(self, run: Truth) -> Truth:
        raw: list[str] = []
        while (token := self.peek()) and (
            self.redirected(run) or not re.fullmatch(r";;|&&|\|\||[;&|()\n]", token)
        ):
            if not re.fullmatch(r"[0-9]*(>>|>\||[<>]&|[<>])", token):
                raw.append(self.next())
        if not raw:
            if token in ("(", ")", "|", "&&", "||", ";;"):
                raise Unclear(f"{token!r} comes unexpected")
            return True
        start = int(raw[0] in _LOCAL)
        while start < len(raw) and (found := _ASSIGNED.fullmatch(raw[start])):
            self.assign(run, found[1], self.expand(found[2]))
            start += 1
        if start == len(raw) or raw[0] in _LOCAL:
            return None if "$(" in raw[-1] or "`" in raw[-1] else True
        return self.status(run, [self.expand(word) for word in raw[start:]])

    def assign(self, run: Truth, name: str, value: str | None) -> None:
        if run is None and value != self.variables.get(name):
            value = None
        if run is not False:
            self.variables[name] = value

    def status(self, run: Truth, words: Sequence[str | None]) -> Truth:
        """Note the command; whether it succeeds."""
        name = words[0]
        if name in self.functions:
            return self.function(run, name, words[1:])
        if name in ("exit", "return") and run:
            raise _Exit if name == "exit" else _Return
        if name in ("[", "test"):
            return self.test([word for word in words[1:] if word != "]"])
        if name in (":", "true", "set", "echo"):
            return True
        if name == "false":
            return False
        if name in ("which", "type") or (name == "command" and words[1:2] == ["-v"]):
            return self.has_command(words[-1])
        if name == "dpkg" and words[1:3] == ["--compare-versions", ""]:
            # No old version: the forms that end in -nl take it for the latest.
            return False if (words[3] or "") in ("lt-nl", "le-nl") else None
        self.note(run, words)
        return True if name == "update-alternatives" else None

    def function(self, run: Truth, name: str, words: Sequence[str | None]) -> Truth:
        if run is False:
            return None
        at, variables = self.at, self.variables
        numbered = {str(n): word for n, word in enumerate(words, 1)}
        self.variables = {**variables, "2": "", "3": "", **numbered}
        self.at, self.depth = self.functions[name], self.depth + 1
        try:
            self.command(run)
        except _Return:
            pass
        finally:
            changed = {k: v for k, v in self.variables.items() if not k.isdigit()}
            self.at, self.depth = at, self.depth - 1
            self.variables = {**variables, **changed}
        return None

    def note(self, run: Truth, words: Sequence[str | None]) -> None:
        if run is not False:
            self.calls.append(Call(run is True, tuple(words)))

    def has_command(self, name: str | None) -> Truth:
        if name is None:
            return None
        paths = (
            [name] if name.startswith("/") else [f"usr/bin/{name}", f"usr/sbin/{name}"]
        )
        return any(self.root.real(path) for path in paths)

    def test(self, words: Sequence[str | None]) -> Truth:
        for operator, join in (("-o", _or), ("-a", _and)):
            if operator in words[1:-1]:
                at = words.index(operator, 1)
                return join(self.test(words[:at]), self.test(words[at + 1 :]))
        if words[:1] == ["!"]:
            return _not(self.test(words[1:]))
        if None in words:
            return None
        match words:
            case ["-z", text]:
                return not text
            case ["-n", text] | [text]:
                return bool(text)
            case [left, "=" | "==", right]:
                return left == right
            case [left, "!=", right]:
                return left != right
            case ["-e" | "-f" | "-d" | "-x" | "-r" | "-s", str(path)]:
                return self.exists(path)
            case ["-L" | "-h", str(path)]:
                return None if self.exists(path) else False
        return None

    def exists(self, path: str) -> Truth:
        """Whether `path` is there; what no package has can still come of a script."""
        if self.root.real(path) is not None:
            return True
        if path.startswith(("/run/", "/proc/", "/sys/", "/dev/")):
            return None
        made = any(path in call.words for call in self.calls)
        return None if made else False

    def expand(self, word: str) -> str | None:
        """The value of a word as it is written; None where it is not known."""
        found = ""
        for piece in _PIECE.finditer(word):
            value: str | None
            match piece.lastgroup:
                case "quoted":
                    value = self.expand_quoted(piece["quoted"][1:-1])
                case "braced" | "default":
                    value = self.variables.get(piece["braced"], piece["default"])
                    value = value or piece["default"] if piece["default"] else value
                case "name":
                    value = self.variables.get(piece["name"])
                case "ran" | "other":
                    value = None
                case kind:
                    value = piece[kind or 0]
            if value is None:
                return None
            found += value
        return found

    def expand_quoted(self, text: str) -> str | None:
        # A single quote and a blank mean themselves between double quotes.
        return self.expand(
            re.sub(r"\\([^$`\"\\\n])", r"\\\\\1", text).replace("'", r"\'")
        )


class _Return(Exception):
    """The function has surely ended."""


def _not(one: Truth) -> Truth:
    return None if one is None else not one


def _and(one: Truth, other: Truth) -> Truth:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _or(one: Truth, other: Truth) -> Truth:
    return _not(_and(_not(one), _not(other)))
