"""Whoever is asked, and whatever happens meanwhile: one digest, the one that we say."""

import pytest

from containerize import settings
from containerize.verify import against
from tests.conftest import Quiet
from tests.scale.cluster import wait
from tests.scale.proof import SERVICE

UPDATE = f"an update of service {SERVICE} is under way (updating)"


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_restart_during_an_update_ends_with_one_digest_on_every_node(shop, version):
    said = dict(line.split() for line in shop.project.run("digest").splitlines()[:2])
    wanted = said["manifest"]
    assert shop.images["2"].endswith(f"@{wanted}")
    shop.deploy("2")
    wait(lambda: shop.running("2") and shop.running("1"))
    # Each manager has the same to say of what is half done.
    under_way = [reading(shop, node) for node in shop.cluster.nodes]
    assert {target.images[0].digest for target in under_way} == {wanted}
    assert all(UPDATE in target.notes for target in under_way)
    # A node whose replica is an old one yet, or one that has a new one.
    name = shop.running(version)[-1]["Node"]
    [node] = [one for one in shop.cluster.nodes if one.name == name]
    node.stop()
    node.start()
    shop.cluster.wait_ready()
    # Swarm takes a new one that goes with its node for one that fails.
    state = shop.converge()
    assert state in ("completed", "rollback_completed")
    serving = shop.images["2" if state == "completed" else "1"]
    print(f"a restart with a replica of version {version}: {state}")
    wait(lambda: shop.containers() == 3)
    for node in shop.cluster.nodes:
        target = reading(shop, node)
        assert [one.digest for one in target.images] == [serving.partition("@")[2]]
        assert UPDATE not in target.notes
        assert target.unlike == ()
        # What it runs itself, by its own store.
        for container in node.engine.listing("ps", "--quiet", shop.label):
            form = ("container", "inspect", "--format={{.Config.Image}} {{.Image}}")
            reference, identity = node.engine.run(*form, container).stdout.split()
            assert reference == serving
            assert (identity == said["config"]) == (state == "completed")


def reading(shop, node):
    """What verify reads of the service, asked of one node."""
    found = settings.load(shop.project.root, shop.project.environ)
    return against.find(found, [node.engine], SERVICE, progress=Quiet())
