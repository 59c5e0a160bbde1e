"""An update loses nothing, nor does its way back; what is bad never takes over."""

import pytest

from tests.scale.cluster import wait
from tests.scale.proof import BAD

ENOUGH = 20_000


def test_an_update_and_its_way_back_lose_nothing(shop):
    with shop.load("update") as load:
        shop.deploy("2")
        assert shop.converge() == "completed"
        assert len(shop.running("2")) == 3
        load.more(max(0, ENOUGH - load.sent))
        result = load.end()
    assert result.lost == ()
    assert result.total >= ENOUGH
    assert set(result.versions) == {"1", "2"}
    shop.once("update", result)
    with shop.load("back") as load:
        shop.cluster.engine.run("service", "rollback", "--detach", "shop_shop")
        assert shop.converge() == "rollback_completed"
        assert len(shop.running("1")) == 3
        load.more(max(0, ENOUGH - load.sent))
        result = load.end()
    assert result.lost == ()
    assert result.total >= ENOUGH
    assert set(result.versions) == {"1", "2"}
    shop.once("back", result)


@pytest.mark.parametrize("version", BAD, ids=BAD.get)
def test_a_bad_image_has_one_replica_and_is_rolled_back(shop, version):
    with shop.load("bad") as load:
        shop.deploy(version)
        looks = []

        def ended():
            looks.append((len(shop.tasks_of(version)), len(shop.running("1"))))
            return shop.cluster.update("shop_shop") == "rollback_completed"

        wait(ended, 400)
        load.more(1000)
        result = load.end()
    assert max(bad for bad, _ in looks) == 1
    assert min(good for _, good in looks) == 3
    assert result.lost == ()
    assert set(result.versions) == {"1"}
    shop.once("bad", result)
    assert len(shop.running("1")) == 3
    assert shop.tasks_of(version) == []
