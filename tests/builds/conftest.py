"""How the tests are shared out: those of containers and those of images, by engine."""

import re

from tests.conftest import engine_of, scheduler


def pytest_xdist_make_scheduler(config, log):
    """Let the waits for an engine's containers be the time for building its images."""

    def group(nodeid):
        engine = engine_of(nodeid)
        containers = re.search(r"test_(container|dev|launch)\.py", nodeid)
        return f"{engine} {bool(containers)}" if engine else nodeid

    return scheduler(config, log, group)
