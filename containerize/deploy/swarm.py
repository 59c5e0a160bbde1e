"""A stack file for `docker stack deploy`."""

from __future__ import annotations

from collections.abc import Sequence

from containerize.deploy.workload import Workload


def stack(workloads: Sequence[Workload], *, values: bool = False) -> str:
    """The stack of these workloads, as YAML with comments.

    Variables stand there by name, `${NAME?…}`, which `docker stack deploy` takes from
    its own environment; with `values`, which nobody but a pipe must see, as they are.
    """
    raise NotImplementedError
