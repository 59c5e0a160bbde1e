"""An update loses nothing, nor does its way back; what is bad never takes over."""

import time

import pytest

from tests.scale.proof import BAD

ENOUGH = 20_000
WORDS = {
    "3": "no shop today",
    "4": "it was not healthy",
    "5": "the shop is in disorder",
}
"""What a release says of each bad version, its last words among it."""


def _lost_nothing(shop, load):
    """Go on until it was enough; then see that both versions have answered it all."""
    load.more(max(0, ENOUGH - load.sent))
    result = load.end()
    assert result.lost == ()
    assert result.total >= ENOUGH
    assert set(result.versions) == {"1", "2"}
    shop.once(result)


def test_an_update_and_its_way_back_lose_nothing(shop):
    with shop.load("update") as load:
        with shop.releasing("2") as release:
            said, complaint = release.communicate()
        assert release.returncode == 0, (said, complaint)
        digest = shop.images["2"].partition("@")[2]
        assert digest in said.splitlines()[-1], said
        assert shop.cluster.update("shop_shop") == "completed"
        assert len(shop.running("2")) == 3
        _lost_nothing(shop, load)
    with shop.load("back") as load:
        shop.cluster.run("service", "rollback", "--detach", "shop_shop")
        assert shop.converge() == "rollback_completed"
        assert len(shop.running("1")) == 3
        _lost_nothing(shop, load)


@pytest.mark.parametrize("version", BAD, ids=BAD.get)
def test_a_bad_image_has_one_replica_and_is_rolled_back(shop, version):
    with shop.load("bad") as load, shop.releasing(version) as release:
        looks = []
        while release.poll() is None:
            looks.append((len(shop.tasks_of(version)), len(shop.running("1"))))
            time.sleep(0.2)
        said, complaint = release.communicate()
        load.more(1000)
        result = load.end()
    assert release.returncode == 1, (said, complaint)
    assert WORDS[version] in complaint
    assert shop.cluster.update("shop_shop") == "rollback_completed"
    assert max(bad for bad, _ in looks) == 1
    assert min(good for _, good in looks) == 3
    assert result.lost == ()
    assert set(result.versions) == {"1"}
    shop.once(result)
    assert len(shop.running("1")) == 3
    assert shop.tasks_of(version) == []
