"""A Debian archive and a package index on the loopback; archives of images."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import tarfile
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from containerize.fetch import mirrors
from containerize.settings import Settings

DEBIAN = Path(__file__).parent / "debian"

# No test fails for a busy machine.
hypothesis.settings.register_profile(
    "untimed",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("untimed")


class Web(http.server.ThreadingHTTPServer):
    """A web server for the files below `root`, with faults on request."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str]] = []
        """Method and path of each."""
        self.breaks: dict[str, list[int]] = {}
        """By path: after how many bytes the next answers end too early."""
        self.status: dict[str, int] = {}
        """By path: the status of all answers, where it is an error."""
        self.types: dict[str, str] = {}
        """By path: the content type, where it is not the usual one."""
        self.moved: dict[str, str] = {}
        """By path: the URL that all answers lead to."""
        self.stalls = threading.Event()
        """While set, an answer stops half-way."""

    def paths(self, method: str = "GET") -> list[str]:
        return [path for found, path in self.requests if found == method]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: Web

    def do_GET(self) -> None:
        # A proxy gets the whole URL.
        path = re.sub(r"^http://[^/]+", "", self.path)
        self.server.requests.append((self.command, self.path))
        if path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[path])
            self.end_headers()
            return
        file = self.server.root / urllib.parse.unquote(path).lstrip("/")
        if file.is_dir():
            file /= "index.html"
        if not file.is_file():
            self.send_error(404)
            return
        if path in self.server.status:
            self.send_error(self.server.status[path])
            return
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        html = "text/html" if file.suffix == ".html" else "application/octet-stream"
        self.send_header("Content-Type", self.server.types.get(path, html))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.breaks.get(path):
            data = data[: self.server.breaks[path].pop(0)]
        if self.server.stalls.is_set():
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            while self.server.stalls.is_set():
                time.sleep(0.02)
            return
        self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Web]]:
    """Starts servers, each for a new directory of the given name."""
    running = []

    def start(name: str) -> Web:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        web = Web(root)
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        running.append((web, thread))
        return web

    yield start
    for web, thread in running:
        web.stalls.clear()
        web.shutdown()
        web.server_close()
        thread.join()


@pytest.fixture
def debian(serve: Callable[[str], Web]) -> Web:
    """A mirror of the archive in tests/unit/debian, its pool included."""
    web = serve("debian")
    shutil.copytree(DEBIAN / "dists", web.root / "dists")
    for index in web.root.glob("dists/*/main/*/Packages"):
        for name in re.findall(r"^Filename: (.+)$", index.read_text(), re.M):
            file = web.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(file.name)
    return web


@dataclasses.dataclass
class Index:
    """A package index (PEP 503) that projects can be added to."""

    web: Web

    def add(
        self,
        name: str,
        version: str,
        *,
        tag: str = "py3-none-any",
        requires: Sequence[str] = (),
        python: str = "",
        content: str = "",
    ) -> str:
        """Publish a wheel; returns its SHA-256."""
        info = f"{name}-{version}.dist-info"
        tags = "".join(f"Tag: {one}\n" for one in _expand(tag))
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
        metadata += f"Requires-Python: {python}\n" if python else ""
        files = {
            f"{name}.py": f"# {tag} {content}\n",
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{tags}",
        }
        record = []
        for path, text in files.items():
            digest = hashlib.sha256(text.encode()).digest()
            encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            record.append(f"{path},sha256={encoded},{len(text)}\n")
        files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path, text in files.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        return self.publish(
            name, f"{name}-{version}-{tag}.whl", buffer.getvalue(), python
        )

    def publish(self, name: str, file: str, data: bytes, python: str = "") -> str:
        """Publish a file; returns its SHA-256."""
        digest = hashlib.sha256(data).hexdigest()
        normalized = re.sub(r"[-_.]+", "-", name).lower()  # PEP 503
        page = self.web.root / "simple" / normalized / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        (page.parent / file).write_bytes(data)
        old = page.read_text() if page.exists() else ""
        old = re.sub(rf"<a href={re.escape(file)}#.*\n", "", old)
        needs = f' data-requires-python="{python.replace(">", "&gt;")}"'
        page.write_text(
            f"{old}<a href={file}#sha256={digest}{needs if python else ''}>{file}</a>\n"
        )
        return digest


def _expand(tag: str) -> list[str]:
    python, abi, platforms = tag.split("-")
    return [f"{python}-{abi}-{platform}" for platform in platforms.split(".")]


@pytest.fixture
def index(
    serve: Callable[[str], Web], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Index:
    """The only package index that pip knows of."""
    web = serve("index")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    monkeypatch.setenv("PIP_TOOLS_CACHE_DIR", str(tmp_path / "pip-tools"))
    return Index(web)


@pytest.fixture
def apt_conf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Gives the host's apt a configuration of a few lines in place of its own."""
    file = tmp_path / "apt.conf"

    def write(*lines: str) -> None:
        own = (
            'Dir::Etc::parts "/dev/null";',
            'Dir::Etc::main "/dev/null";',
            'Acquire::Retries "0";',
        )
        file.write_text("\n".join([*own, *lines, ""]))
        monkeypatch.setenv("APT_CONFIG", str(file))
        mirrors._apt_acquire.cache_clear()

    write()
    yield write
    mirrors._apt_acquire.cache_clear()


@pytest.fixture
def sample(tmp_path: Path, debian: Web, apt_conf: Callable[..., None]) -> Settings:
    """An empty project on the test archive, its cache included."""
    root = tmp_path / "project"
    root.mkdir()
    return Settings(
        root=root,
        image="sample",
        architecture="amd64",
        mirrors=(debian.url,),
        security_mirrors=(debian.url,),
        keyring=str(DEBIAN / "keyring.gpg"),
        cache=str(tmp_path / "cache"),
    )


class Record:
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.totals: list[int | None] = []
        self.ended = 0
        self.size = 0
        self.notes: list[str] = []

    def start(self, name: str, total: int | None) -> None:
        self.started.append(name)
        self.totals.append(total)

    def advance(self, size: int) -> None:
        self.size += size

    def done(self) -> None:
        self.ended += 1

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def progress() -> Iterator[Record]:
    record = Record()
    yield record
    assert record.ended == len(record.started)


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """Writes what `docker save` would of an image.

    Each layer is the bytes of a tar, or what goes into one: pairs of TarInfo and
    content.
    """

    def write(path: Path, *layers: Any, config: Any = None, **changes: Any) -> Path:
        tars = [x if isinstance(x, bytes) else pack(*x) for x in layers]
        diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]
        about = {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            **changes,
        }
        text = json.dumps(about).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        names = [f"{number}/layer.tar" for number in range(len(tars))]
        manifest = [{"Config": name, "RepoTags": ["x:y"], "Layers": names}]
        files = {name: text, **dict(zip(names, tars, strict=True))}
        files["manifest.json"] = json.dumps(manifest).encode()
        path.write_bytes(pack(*((tarfile.TarInfo(n), files[n]) for n in files)))
        return path

    return write


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
