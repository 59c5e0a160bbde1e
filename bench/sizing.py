"""What more threads and connections do to the service; not among the goals."""

from __future__ import annotations

from bench import service
from bench.measure import Row


def main() -> tuple[Row, ...]:
    """Print the table that helps to size a service; it has no goal."""
    with service.ready() as ready:
        service.sizing(ready)
    return ()
