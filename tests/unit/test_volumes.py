"""What containers mount: the settings, as options of the engine."""

import pytest

from containerize import settings
from containerize.engines import volumes


@pytest.fixture
def project(tmp_path):
    return settings.Settings(
        root=tmp_path,
        image="shop",
        volumes=("data:/data", "./conf:/conf:rw,Z", "late:/data/"),
    )


def test_the_last_at_a_path_stands_and_directories_are_absolute(project, tmp_path):
    assert [mount.option for mount in volumes.mounts(project)] == [
        "--volume=late:/data/",
        f"--volume={tmp_path}/conf:/conf:rw,Z",
    ]


def test_a_test_has_volumes_apart_and_writes_no_directory(project, tmp_path):
    assert volumes.apart(project, "x") == (
        "late-x:/data/",
        f"{tmp_path}/conf:/conf:Z,ro",
    )
