"""The containers of the setting `commands`, of an engine that is slow to answer."""

import pytest

from containerize.engines import container
from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.settings import Settings

# It says once, and late, that the command runs, which has ended by then.
PODMAN = """#!/bin/sh
case "$1 $*" in
    run\\ *) touch "$0.started" ;;
    *.State.Status*)
        [ -e "$0.started" ] || { echo 'no such container' >&2; exit 125; }
        status=exited
        [ -e "$0.asked" ] || { touch "$0.asked"; sleep 0.5; status=running; }
        echo '{"containerize.project": "shop"}' $status ;;
    *.State.ExitCode*) echo 1 ;;
    logs\\ *) echo no queue ;;
esac
"""


def test_one_that_ends_within_its_time_is_told_however_slow_the_engine(tmp_path):
    podman = tmp_path / "podman"
    podman.write_text(PODMAN)
    podman.chmod(0o755)
    settings = Settings(root=tmp_path, image="shop", commands={"worker": "work"})
    with pytest.raises(Problem, match=r"(?s)shop-worker ended .*no queue"):
        container.see_commands(
            settings, Engine("podman", (str(podman),)), "shop:x", name="shop",
            patience=0.2,
        )  # fmt: skip
