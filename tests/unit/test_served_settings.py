"""The service's settings, as a user of `python -m served` meets them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from served import settings
from served.settings import SettingsError
from tests.conftest import PATIENCE, ROOT


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m served`, which must end by itself."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("SERVED_", "FLASK_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "served", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("port", "80", 80),
        ("host", "::1", "::1"),
        ("grace_period", "2.5", 2.5),
        ("max_body", "64k", 65536),
        ("max_body", "1g", 1 << 30),
        ("log_query", "true", True),
        ("ready_path", "", ""),
        ("ready_path", "/up?full=1", "/up?full=1"),
        ("trusted_proxies", "", ()),
    ],
)
def test_value(name: str, text: str, wanted: object) -> None:
    assert getattr(settings.load({f"SERVED_{name.upper()}": text}), name) == wanted


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SERVED_PORT", "http"),
        ("SERVED_PORT", "65536"),
        ("SERVED_PORT", ""),
        ("SERVED_THREADS", "0"),
        ("SERVED_THREADS", "4.5"),
        ("SERVED_HOST", "localhost"),
        ("SERVED_HOST", "::1%lo"),
        ("SERVED_GRACE_PERIOD", "nan"),
        ("SERVED_GRACE_PERIOD", "-1"),
        ("SERVED_MAX_BODY", "1 MB"),
        ("SERVED_MAX_BODY", "0"),
        ("SERVED_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("SERVED_TRUSTED_PROXIES", "proxy"),
        ("SERVED_LOG_FORMAT", "xml"),
        ("SERVED_LOG_QUERY", "yes"),
        ("SERVED_READY_PATH", "ready"),
    ],
)
def test_bad_value(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings.load({variable: text})
    message = str(raised.value)
    assert message.startswith(f"{variable} must be ")
    assert message.endswith(f", not {text!r}")
    assert "\n" not in message


def test_drain_delay_within_the_grace_period() -> None:
    environ = {"SERVED_DRAIN_DELAY": "5", "SERVED_GRACE_PERIOD": "5"}
    with pytest.raises(SettingsError, match="SERVED_DRAIN_DELAY must be less than"):
        settings.load(environ)


def test_help() -> None:
    answer = run("--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    text = " ".join(answer.stdout.split())
    rows = list(settings.rows())
    assert len(rows) == len(dataclasses.fields(settings.Settings)) > 15
    for row in rows:
        assert f" {row.variable}={row.default}".rstrip() in text
        assert f"{row.text}; {row.wanted}" in text


def test_argument() -> None:
    answer = run("serve")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("usage: python -m served\n")


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (
            {"SERVED_PORT": "x"},
            "served: SERVED_PORT must be a whole number from 1 to 65535, not 'x'",
        ),
        (
            {"SERVED_TRUSTED_PROXIES": "proxy"},
            "served: SERVED_TRUSTED_PROXIES must be IP addresses or networks, "
            "separated by commas, not 'proxy'",
        ),
        (
            {"FLASK_APP": "nowhere:create_app"},
            "served: FLASK_APP=nowhere:create_app: Could not import 'nowhere'.",
        ),
    ],
)
def test_bad_value_ends_the_start(environ: dict[str, str], text: str) -> None:
    answer = run(**environ)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith(text)


def test_probable_typos() -> None:
    environ = {
        "SERVED_PORT": "80",
        "SERVED_MAX_BODYS": "1m",
        "SERVED_PROT": "80",
        "SERVED_XYZ": "",
        "PATH": "/usr/bin",
    }
    assert list(settings.notes(environ)) == [
        "SERVED_MAX_BODYS is no setting: did you mean SERVED_MAX_BODY?",
        "SERVED_PROT is no setting: did you mean SERVED_PORT?",
        "SERVED_XYZ is no setting: python -m served --help lists them",
    ]


LINKS = {
    # What Kubernetes sets beside a service called `served`, and Docker for --link.
    "SERVED_PORT": "tcp://10.96.0.7:80",
    "SERVED_PORT_80_TCP": "tcp://10.96.0.7:80",
    "SERVED_PORT_80_TCP_ADDR": "10.96.0.7",
    "SERVED_PORT_80_TCP_PORT": "80",
    "SERVED_PORT_80_TCP_PROTO": "tcp",
    "SERVED_SERVICE_HOST": "10.96.0.7",
    "SERVED_SERVICE_PORT": "80",
    "SERVED_SERVICE_PORT_HTTP": "80",
    "SERVED_NAME": "/web/served",
    "SERVED_ENV_PATH": "/usr/bin",
}


def test_service_links_are_no_settings() -> None:
    assert settings.load(LINKS) == settings.load({})
    (line,) = settings.notes(LINKS)
    assert line.startswith("SERVED_PORT=tcp://10.96.0.7:80 is a link to a service")
    assert "enableServiceLinks" in line
    # Without a link in sight the same names are mistakes.
    (line,) = settings.notes({"SERVED_SERVICE_PORT": "80"})
    assert "is no setting" in line


def test_no_prefix_is_a_service_that_people_have() -> None:
    """Nor one that Flask reads settings of the app from (`from_prefixed_env`)."""
    likely = ("APP", "WEB", "FLASK", "SERVICE", "SERVER", "API", "BACKEND", "HTTP")
    assert settings.PREFIX.removesuffix("_") not in likely


def test_mapped_networks_are_those_of_ipv4() -> None:
    loaded = settings.load({"SERVED_TRUSTED_PROXIES": "::ffff:10.0.0.0/104, ::1"})
    assert [str(network) for network in loaded.trusted_proxies] == [
        "10.0.0.0/8",
        "::1/128",
    ]
