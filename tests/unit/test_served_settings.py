"""The service's settings, as a user of `python -m app` meets them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from app import settings
from app.settings import SettingsError
from tests.conftest import ROOT


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m app`, which must end by itself."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("APP_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=20,
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
        ("cors_origins", "", ()),
        ("cors_origins", "https://a.example , null", ("https://a.example", "null")),
        ("cors_methods", "GET,PATCH", ("GET", "PATCH")),
    ],
)
def test_value(name: str, text: str, wanted: object) -> None:
    assert getattr(settings.load({f"APP_{name.upper()}": text}), name) == wanted


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("APP_PORT", "http"),
        ("APP_PORT", "65536"),
        ("APP_PORT", ""),
        ("APP_THREADS", "0"),
        ("APP_THREADS", "4.5"),
        ("APP_HOST", "localhost"),
        ("APP_HOST", "::1%lo"),
        ("APP_GRACE_PERIOD", "nan"),
        ("APP_GRACE_PERIOD", "-1"),
        ("APP_MAX_BODY", "1 MB"),
        ("APP_MAX_BODY", "0"),
        ("APP_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("APP_TRUSTED_PROXIES", "proxy"),
        ("APP_CORS_ORIGINS", "https://a.example/"),
        ("APP_CORS_ORIGINS", "a.example"),
        ("APP_CORS_METHODS", "GET;POST"),
        ("APP_CORS_HEADERS", "X-A\r\nX-B: c"),
        ("APP_LOG_FORMAT", "xml"),
        ("APP_LOG_QUERY", "yes"),
        ("APP_FACTORY", "app"),
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
    environ = {"APP_DRAIN_DELAY": "5", "APP_GRACE_PERIOD": "5"}
    with pytest.raises(SettingsError, match="APP_DRAIN_DELAY must be less than"):
        settings.load(environ)


def test_help() -> None:
    answer = run("--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    text = " ".join(answer.stdout.split())
    rows = list(settings.rows())
    assert len(rows) == len(dataclasses.fields(settings.Settings)) > 20
    for row in rows:
        assert f" {row.variable}={row.default}".rstrip() in text
        assert f"{row.text}; {row.wanted}" in text


def test_argument() -> None:
    answer = run("serve")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("usage: python -m app\n")


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (
            {"APP_PORT": "x"},
            "app: APP_PORT must be a whole number from 1 to 65535, not 'x'",
        ),
        (
            {"APP_FACTORY": "nowhere:create_app"},
            "app: APP_FACTORY nowhere:create_app cannot be used: "
            "No module named 'nowhere'",
        ),
        (
            {"APP_CORS_ORIGINS": "example.org"},
            "app: APP_CORS_ORIGINS must be * or origins like https://example.org, "
            "separated by commas, not 'example.org'",
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
        "APP_PORT": "80",
        "APP_MAX_BODYS": "1m",
        "APP_PROT": "80",
        "APP_XYZ": "",
        "PATH": "/usr/bin",
    }
    assert list(settings.unknown(environ)) == [
        "APP_MAX_BODYS is no setting: did you mean APP_MAX_BODY?",
        "APP_PROT is no setting: did you mean APP_PORT?",
        "APP_XYZ is no setting: python -m app --help lists them",
    ]
