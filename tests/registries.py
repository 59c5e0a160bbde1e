"""Registries of the tests: Debian's docker-registry on loopback, and faults before it.

The registry is the real one; `Faults` is a proxy that spoils single requests to it, and
`TokenServer` gives the tokens that it was told to trust.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import taking_turns, unused_port
from tests.unit.conftest import pack

USER, PASSWORD = "someone", "p:ss wörd"


def require(program: str, package: str) -> str:
    """The path of a program, whose Debian package is installed if it is missing."""
    with taking_turns():
        if not shutil.which(program):
            root = [] if os.geteuid() == 0 else ["sudo"]
            install = ["apt-get", "install", "-qq", "--yes", package]
            subprocess.run([*root, *install], check=True, stdin=subprocess.DEVNULL)
    return shutil.which(program) or program


class Registry:
    """A docker-registry with its data in `root`, at an address on a port of its own."""

    def __init__(self, root: Path, address: str = "127.0.0.1", **settings: Any) -> None:
        self.root = root
        self.address, self.port = address, unused_port()
        self.host = f"{address}:{self.port}"
        self.command = [require("docker-registry", "docker-registry"), "serve"]
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        # With a secret of its own, uploads outlive a restart.
        http = {"addr": self.host, "secret": "secret of a test"}
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(root / "data")},
                **settings.pop("storage", {}),
            },
            "http": http | settings.pop("http", {}),
            **settings,
        }
        (root / "config.yml").write_text(json.dumps(config))  # JSON is YAML too

    def start(self, before: Sequence[str] = ()) -> Registry:
        """Start it; `before` is what its command is put behind."""
        # Its settings are variables that begin so, as Podman's REGISTRY_AUTH_FILE does.
        own = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*before, *self.command, str(self.root / "config.yml")],
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, self.port), 1).close()
                return self
            time.sleep(0.02)
        raise AssertionError((self.root / "log").read_text())

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def blobs(self) -> set[str]:
        """The digests of all that it stores, whatever refers to it."""
        top = self.root / "data/docker/registry/v2/blobs/sha256"
        return {f"sha256:{path.name}" for path in top.glob("*/*")}

    def linked(self, name: str) -> set[str]:
        """The digests of the blobs of a repository."""
        top = self.root / "data/docker/registry/v2/repositories" / name
        return {f"sha256:{path.name}" for path in top.glob("_layers/sha256/*")}

    def tag(self, name: str, tag: str) -> str:
        """The digest that a tag points to, as it is on the disk; or nothing."""
        top = self.root / "data/docker/registry/v2/repositories" / name
        try:
            return (top / f"_manifests/tags/{tag}/current/link").read_text()
        except FileNotFoundError:
            return ""


@contextlib.contextmanager
def registry(**settings: Any) -> Iterator[Registry]:
    """A registry that goes, with all that it stores, when the context ends."""
    with tempfile.TemporaryDirectory() as directory:
        made = Registry(Path(directory), **settings)
        made.start()
        try:
            yield made
        finally:
            made.kill()


def htpasswd(file: Path, user: str = USER, password: str = PASSWORD) -> dict[str, Any]:
    """What a registry's configuration says of a password file, which is written."""
    program = require("htpasswd", "apache2-utils")
    done = subprocess.run(
        [program, "-niB", user],
        input=password.encode(),
        capture_output=True,
        check=True,
    )
    file.write_bytes(done.stdout)
    return {"htpasswd": {"realm": "a realm", "path": str(file)}}


class Request:
    """A request to the proxy of faults, before it is passed on."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.method, self.path = handler.command, handler.path
        self.headers = {key.lower(): value for key, value in handler.headers.items()}
        self.handler = handler

    @property
    def size(self) -> int:
        return int(self.headers.get("content-length") or 0)

    def is_(self, method: str, pattern: str = "") -> bool:
        return self.method == method and bool(re.search(pattern, self.path))


Fault = Callable[[Request], Any]
"""Spoils a request: returns what `Faults` knows to do, or None to let it pass."""


class Faults(http.server.ThreadingHTTPServer):
    """A proxy before a registry, which does to requests what `fault` says.

    `fault` returns a dictionary: `status`, and `headers`, is answered in the registry's
    place; of the body, `cut` bytes are passed on before all connections end, some time
    later or when `then` has been called; `alter` is
    what is done to the body's bytes; `answer` is done to the registry's answer (status,
    headers, content), of which `ends` bytes are sent; with `lost`, none.
    """

    daemon_threads = True

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Proxy)
        self.behind = port
        self.host = f"{address}:{self.server_port}"
        self.requests: list[Request] = []
        self.fault: Fault = lambda request: None

    def count(self, method: str, pattern: str = "") -> int:
        return sum(request.is_(method, pattern) for request in self.requests)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is cut is part of the tests."""


class _Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faults

    def do(self) -> None:
        request = Request(self)
        self.server.requests.append(request)
        how = self.server.fault(request) or {}
        if "status" in how:
            self.rfile.read(request.size)
            self._answer(how["status"], how.get("headers", {}), how.get("content", b""))
            return
        onward = http.client.HTTPConnection("127.0.0.1", self.server.behind, 30)
        try:
            self._pass(request, how, onward)
        finally:
            onward.close()

    def _pass(
        self, request: Request, how: dict[str, Any], onward: http.client.HTTPConnection
    ) -> None:
        onward.putrequest(
            request.method, self.path, skip_host=True, skip_accept_encoding=True
        )
        for key, value in self.headers.items():
            onward.putheader(key, value)
        onward.endheaders()
        left = request.size
        cut = how.get("cut")
        while left:
            data = self.rfile.read(min(left, 1 << 16, cut or 1 << 16))
            if not data:
                self.close_connection = True
                return
            left -= len(data)
            onward.send(how.get("alter", lambda data: data)(data))
            if cut is not None:
                cut -= len(data)
                if cut <= 0:
                    # What has been passed on is written when the registry says so.
                    how.get("then", lambda: time.sleep(0.2))()
                    self.close_connection = True
                    return
        response = onward.getresponse()
        content = response.read()
        status, headers = response.status, dict(response.getheaders())
        if "answer" in how:
            status, headers, content = how["answer"](status, headers, content)
        if how.get("lost"):
            self.close_connection = True
            return
        self._answer(status, headers, content, how.get("ends"))

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        content: bytes,
        ends: int | None = None,
    ) -> None:
        self.send_response_only(status)
        kept = {key.title(): value for key, value in headers.items()}
        kept.pop("Transfer-Encoding", None)
        if self.command != "HEAD" or "Content-Length" not in kept:
            kept["Content-Length"] = str(len(content))
        for key, value in kept.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:ends])
        if ends is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Resuming(Faults):
    """As `Faults`, with uploads that can be resumed, as the spec has it.

    Debian's registry forgets an upload whose connection was cut.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.RequestHandlerClass = _Uploads
        self.uploads: dict[str, bytearray] = {}


class _Uploads(_Proxy):
    server: Resuming

    def do(self) -> None:
        match = re.fullmatch(
            r"(/v2/.*/blobs/uploads/)(\d*)(?:\?digest=(.*))?", self.path
        )
        if not match:
            super().do()
            return
        request = Request(self)
        self.server.requests.append(request)
        how = self.server.fault(request) or {}
        start, number, digest = match.groups()
        number = number or str(len(self.server.uploads))
        held = self.server.uploads.setdefault(number, bytearray())
        headers = {"Location": start + number, "Range": f"0-{max(0, len(held) - 1)}"}
        status = {"POST": 202, "GET": 204, "PATCH": 202}.get(self.command, 201)
        if self.command == "PATCH":
            begins = request.headers.get("content-range", "0-").partition("-")[0]
            if int(begins) != len(held):
                self.rfile.read(request.size)
                self._answer(416, headers, b"")
                return
            held += self.rfile.read(min(request.size, how.get("cut", request.size)))
            if "cut" in how:
                self.close_connection = True
                return
        if self.command == "PUT":
            onward = http.client.HTTPConnection("127.0.0.1", self.server.behind, 30)
            onward.request("POST", start)
            answer = onward.getresponse()
            answer.read()
            where = f"{answer.headers['Location']}&digest={digest}"
            onward.request("PUT", where, bytes(held))
            status = onward.getresponse().status
            onward.close()
        self._answer(status, headers, b"")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do  # noqa: N815


class Referring(Faults):
    """As `Faults`, with the referrers API, which Debian's registry has not."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.RequestHandlerClass = _Referrers
        self.entries: dict[str, list[dict[str, Any]]] = {}


class _Referrers(_Proxy):
    server: Referring

    def do(self) -> None:
        entries = self.server.entries
        listing = re.fullmatch(r"/v2/.*/referrers/(sha256:\w+)", self.path)
        if listing:
            index = "application/vnd.oci.image.index.v1+json"
            content = {
                "schemaVersion": 2,
                "mediaType": index,
                "manifests": entries.get(listing[1], []),
            }
            self._answer(200, {"Content-Type": index}, json.dumps(content).encode())
            return
        if self.command == "PUT" and "/manifests/" in self.path:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.rfile = io.BytesIO(data)
            manifest = json.loads(data)
            if subject := manifest.get("subject", {}).get("digest"):
                entry = {
                    "mediaType": self.headers["Content-Type"],
                    "digest": digest(data),
                    "size": len(data),
                    "artifactType": manifest["artifactType"],
                }
                entries.setdefault(subject, []).append(entry)
                rfile, subject_header = self.rfile, {"OCI-Subject": subject}
                self.server.fault = lambda request: {
                    "answer": lambda status, headers, content: (
                        status,
                        headers | subject_header,
                        content,
                    )
                }
                self.rfile = rfile
        super().do()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do  # noqa: N815


@contextlib.contextmanager
def serving(server: http.server.ThreadingHTTPServer) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def once(when: Callable[[Request], bool], how: dict[str, Any], times: int = 1) -> Fault:
    """A fault of the first `times` requests for which `when` is true."""
    left = [times]
    lock = threading.Lock()

    def fault(request: Request) -> dict[str, Any] | None:
        with lock:
            if left[0] and when(request):
                left[0] -= 1
                return how
        return None

    return fault


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["openssl", *arguments], input=stdin, capture_output=True, check=False
    )
    assert not done.returncode, done.stderr.decode()
    return done.stdout


def certificate(
    directory: Path, name: str, *, start: str = "20200101000000Z"
) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1, its own CA, valid from `start` on."""
    directory.mkdir(parents=True, exist_ok=True)
    key, made = directory / f"{name}.key", directory / f"{name}.pem"
    request, config = directory / f"{name}.csr", directory / f"{name}.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=own\n[own]\nnew_certs_dir={directory}\n"
        f"database={directory / name}.db\nserial={directory / name}.srl\n"
        "default_md=sha256\npolicy=any\nx509_extensions=ext\n"
        "[any]\ncommonName=supplied\n"
        "[ext]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n"
        "basicConstraints=critical,CA:true\n"
        "[req]\ndistinguished_name=dn\n[dn]\n"
    )
    (directory / f"{name}.db").touch()
    (directory / f"{name}.srl").write_text("01\n")
    openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key)),
        *("-out", str(request), "-subj", f"/CN={name}", "-config", str(config)),
    )
    openssl(
        *("ca", "-batch", "-selfsign", "-config", str(config), "-keyfile", str(key)),
        *("-in", str(request), "-out", str(made), "-notext"),
        *("-startdate", start, "-enddate", "20990101000000Z"),
    )
    return key, made


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives tokens (distribution, "Token Authentication Implementation").

    `claims` changes what the next tokens say; `lifetime` is what it says of them.
    """

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Tokens)
        self.key, self.certificate = certificate(directory, "tokens")
        self.url = f"http://127.0.0.1:{self.server_port}/token"
        self.asked: list[dict[str, list[str]]] = []
        self.claims: Callable[[int], dict[str, Any]] = lambda number: {}
        self.lifetime: float | None = 300
        self.identity = "an-identity-token"
        self.public = False
        """Whether who says no name may pull."""

    def auth(self) -> dict[str, Any]:
        """What a registry's configuration says of it."""
        return {
            "token": {
                "realm": self.url,
                "service": "tests",
                "issuer": "tests",
                "rootcertbundle": str(self.certificate),
            }
        }

    def token(self, scopes: Sequence[str]) -> str:
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        der = openssl("x509", "-in", str(self.certificate), "-outform", "DER")
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        body = {
            "iss": "tests", "sub": USER, "aud": "tests", "iat": now, "nbf": now - 1,
            "exp": now + 300, "jti": str(len(self.asked)), "access": access,
        } | self.claims(len(self.asked))  # fmt: skip
        text = ".".join(_url64(json.dumps(part).encode()) for part in (head, body))
        signature = openssl(
            "dgst", "-sha256", "-sign", str(self.key), stdin=text.encode()
        )
        return f"{text}.{_url64(signature)}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Tokens(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = self.headers.get("Authorization") == f"Basic {basic}"
        public = self.server.public and not self.headers.get("Authorization")
        if public:
            asked["scope"] = [s.replace(",push", "") for s in asked.get("scope", [])]
        self._give(asked, known or public)

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = urllib.parse.parse_qs(form)
        known = asked.get("refresh_token") == [self.server.identity]
        asked["scope"] = " ".join(asked.get("scope", [])).split()
        self._give(asked, known and asked["grant_type"] == ["refresh_token"])

    def _give(self, asked: dict[str, list[str]], known: bool) -> None:
        self.server.asked.append(asked)
        if not known:
            # A server that says back what it was told.
            said = self.headers.get("Authorization", "") + str(asked)
            self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": said}]})
            return
        answer: dict[str, Any] = {"token": self.server.token(asked.get("scope", []))}
        if self.server.lifetime is not None:
            answer["expires_in"] = self.server.lifetime
        self._answer(200, answer)

    def _answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layout(
    path: Path, *architectures: str, size: int = 3_000_000, seed: str = ""
) -> Path:
    """An OCI layout in a tar, of an image or, for several architectures, an index.

    Its first layer has `size` bytes, and `seed` decides which.
    """
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    made = []

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        files[f"blobs/{digest(content).replace(':', '/')}"] = content
        media_type = f"application/vnd.oci.image.{kind}"
        return {
            "mediaType": media_type,
            "digest": digest(content),
            "size": len(content),
        }

    for name in architectures or ("amd64",):
        block = hashlib.shake_256(f"{name}{seed}".encode()).digest(size)
        tars = [
            pack((tarfile.TarInfo("big"), block)),
            pack((tarfile.TarInfo("small"), f"{name}{seed}".encode())),
        ]
        layers = [blob(data, "layer.v1.tar") for data in tars]
        config = {
            "architecture": name,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in tars]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": layers,
        }
        descriptor = blob(json.dumps(manifest).encode(), "manifest.v1+json")
        made.append(descriptor | {"platform": {"architecture": name, "os": "linux"}})
    if len(made) > 1:
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": made,
        }
        made = [blob(json.dumps(index).encode(), "index.v1+json")]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": made}).encode()
    path.write_bytes(pack(*((tarfile.TarInfo(n), files[n]) for n in files)))
    return path
