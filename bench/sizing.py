"""What more threads and connections do to the service; not among the goals."""

from __future__ import annotations

from bench import service


def main() -> None:
    """Print the table that helps to size a service."""
    with service.ready() as ready:
        service.sizing(ready)
