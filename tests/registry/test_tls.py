"""TLS, and the only two ways around it."""

import contextlib
import dataclasses
import http.server
import re
import select
import socket
import ssl

import pytest

from containerize.errors import Problem
from containerize.publish import transport
from tests import registries
from tests.canary import own_address
from tests.registries import certificate


@pytest.fixture
def secure(tmp_path):
    """Starts a registry behind a certificate of its own."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            key, made = certificate(tmp_path / "pki", "registry", **options)
            tls = {"tls": {"certificate": str(made), "key": str(key)}}
            return stack.enter_context(registries.registry(http=tls)), made

        yield start


def refusal(push, target):
    with pytest.raises(Problem) as caught:
        push(target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_ca_that_is_named(secure, push, monkeypatch):
    registry, made = secure()
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    done = push(f"{registry.host}/sample")
    assert registry.tag("sample", "latest") == done.reference.digest


def test_a_ca_where_docker_has_it(secure, push, tmp_path, monkeypatch):
    registry, made = secure()
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(made.read_bytes())
    monkeypatch.setattr(transport, "CERTIFICATES", (str(tmp_path / "certs.d"),))
    push(f"{registry.host}/sample")
    assert registry.tag("sample", "latest")


def test_a_ca_that_nobody_trusts_is_refused_on_loopback_too(secure, push):
    registry, _ = secure()
    said = refusal(push, f"{registry.host}/sample")
    assert re.search(r"certificate of \S+ is not trusted .*SSL_CERT_FILE", said)
    assert not registry.blobs()


def test_a_server_that_hangs_up_on_what_is_no_tls(push, tmp_path):
    """Other than Debian's registry, which says so: the certificate is what is wrong."""
    key, made = certificate(tmp_path / "pki", "other")
    with registries.serving(
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    ) as (server):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        said = refusal(push, f"127.0.0.1:{server.server_port}/sample")
    assert "is not trusted" in said


class Silent(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_certificate_of_the_future(secure, push, monkeypatch):
    registry, made = secure(start="20980101000000Z")
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    said = refusal(push, f"{registry.host}/sample")
    assert "not yet valid" in said
    assert "is the clock of this machine right?" in said


@pytest.fixture
def elsewhere(registry, monkeypatch):
    """The registry's host by an address that is none of loopback."""
    with registries.serving(
        registries.Faults(registry.port, address=own_address())
    ) as proxy:
        yield proxy


def test_without_tls_nothing_is_sent_elsewhere(elsewhere, registry, push):
    said = refusal(push, f"{elsewhere.host}/sample")
    assert f"{elsewhere.host} does not speak TLS" in said
    assert "insecure-registries" in said
    assert not registry.blobs()
    assert not elsewhere.requests


def test_unless_a_setting_says_so(elsewhere, registry, push):
    named = dataclasses.replace(push.settings, insecure_registries=(elsewhere.host,))
    dataclasses.replace(push, settings=named)(f"{elsewhere.host}/sample")
    assert registry.tag("sample", "latest")


def test_a_setting_that_names_no_registry(push):
    wrong = dataclasses.replace(push.settings, insecure_registries=("http://x",))
    said = refusal(dataclasses.replace(push, settings=wrong), "host.invalid/sample")
    assert "'http://x' is no registry's name" in said


class Tunnel(http.server.ThreadingHTTPServer):
    """A proxy that leads what is asked for through to a port of this machine."""

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Connect)
        self.port, self.asked = port, []


class _Connect(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.server.asked.append((self.path, self.headers["Proxy-Authorization"]))
        with socket.create_connection(("127.0.0.1", self.server.port)) as onward:
            self.send_response_only(200)
            self.end_headers()
            ends = [self.connection, onward]
            while ready := select.select(ends, [], [], 10)[0]:
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    ends[ends[0] is end].sendall(data)

    def log_message(self, *_):
        pass


def test_a_proxy_leads_to_the_registry(secure, push, monkeypatch):
    """By the proxy alone the name is known."""
    registry, made = secure()
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    with registries.serving(Tunnel(registry.port)) as proxy:
        address = f"me:se%40cret@127.0.0.1:{proxy.server_port}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        said = refusal(push, "registry.invalid/sample")
        assert "certificate of registry.invalid is not trusted" in said
        assert "secret" not in said
        assert "se%40cret" not in said
        path, told = proxy.asked[0]
        assert path == "registry.invalid:443"
        assert told == "Basic bWU6c2VAY3JldA=="
    # Another one: the first may still be asked for by threads that have begun.
    with registries.serving(Tunnel(registry.port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        push(f"{registry.host}/sample")  # on loopback: not by the proxy
        monkeypatch.setenv("NO_PROXY", "registry.invalid")
        assert "no host registry.invalid is known" in refusal(
            push, "registry.invalid/sample"
        )
        assert not proxy.asked


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used(push, monkeypatch, address):
    monkeypatch.setenv("HTTPS_PROXY", address)
    assert "proxy" in refusal(push, "registry.invalid/sample")
