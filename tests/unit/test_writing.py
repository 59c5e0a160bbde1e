"""What `up` says if the app writes where its image is read-only."""

import pytest

from containerize.engines import container


@pytest.mark.parametrize(
    ("log", "place"),
    [
        ("OSError: [Errno 30] Read-only file system: '/srv/instance'", "/srv/instance"),
        ("OSError: [Errno 30] Read-only file system: 'logs'", "/srv/logs"),
        ("OSError: [Errno 30] Read-only file system: '/srv/a/x.log'", "/srv/a"),
        ("OSError: [Errno 30] Read-only file system: '/srv/app.db'", "/srv/data"),
        ("OSError: [Errno 30] Read-only file system", "/srv/data"),
        ("sqlite3.OperationalError: unable to open database file", "/srv/data"),
        ("sqlite3.OperationalError: attempt to write a readonly database", "/srv/data"),
    ],
)
def test_the_line_that_lets_an_app_write(log, place):
    said = container.writing(f"Traceback\n{log}\nserved: the app failed\n")
    assert said.endswith(f'volumes = ["NAME:{place}"]')


def test_another_end_says_nothing_of_it():
    assert container.writing("KeyError: 'SECRET_KEY'") == ""
