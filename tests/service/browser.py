"""A real browser, driven by the WebDriver protocol.

https://www.w3.org/TR/webdriver2/
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.conftest import taking_turns

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-quic", "--no-first-run", "--no-proxy-server", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


class Browser:
    """A browser without a window, with a profile of its own in `profile`."""

    def __init__(self, profile: Path) -> None:
        with taking_turns():
            if not shutil.which("chromedriver"):
                _install()
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self._driver.stdout
        said = next(x for x in self._driver.stdout if "successfully on port" in x)
        # No proxy of the caller's lies between the tests and the driver.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._url = f"http://127.0.0.1:{said.split()[-1].rstrip('.')}/session"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        try:
            self._url += f"/{self._ask('', capabilities=wanted)['sessionId']}"
        except BaseException:
            self._driver.kill()
            raise

    def _ask(self, path: str, method: str = "POST", **body: object) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        asked = urllib.request.Request(self._url + path, data, method=method)
        asked.add_header("Content-Type", "application/json")
        with self._opener.open(asked, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._ask("/url", url=url)

    def reload(self) -> None:
        self._ask("/refresh")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of the promise that it is."""
        script = f"return {expression}"
        return self._ask("/execute/sync", script=script, args=[])

    def close(self) -> None:
        try:
            self._ask("", "DELETE")
        finally:
            self._driver.terminate()
            self._driver.communicate()


def _install() -> None:
    root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    apt += ["-o", "DPkg::Lock::Timeout=120"]
    install = [*apt, "install", "--yes", "--no-install-recommends"]
    install.append("chromium-driver")
    if subprocess.run(install, check=False).returncode:
        # The package lists are missing, as on a new machine, or out of date.
        subprocess.run([*apt, "update"], check=True)
        subprocess.run(install, check=True)
