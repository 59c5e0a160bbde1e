"""Whoever is asked, and whatever happens meanwhile: one digest, the one that we say."""

from containerize import settings
from containerize.verify import against
from tests.conftest import Quiet
from tests.scale.cluster import wait
from tests.scale.proof import SERVICE


def test_an_update_in_which_a_node_restarts_ends_with_the_digest_that_we_say(shop):
    said = dict(line.split() for line in shop.project.run("digest").splitlines()[:2])
    wanted = said["manifest"]
    assert shop.images["2"].endswith(f"@{wanted}")
    shop.deploy("2")
    wait(lambda: shop.running("2") and shop.running("1"))
    # Each manager has the same to say of what is half done.
    under_way = [reading(shop, node) for node in shop.cluster.nodes]
    assert {target.images[0].digest for target in under_way} == {wanted}
    for target in under_way:
        assert target.notes == (
            f"an update of service {SERVICE} is under way (updating)",
        )
    last = shop.cluster.nodes[-1]
    last.stop()
    last.start()
    shop.cluster.wait_ready()
    assert shop.converge() == "completed"
    wait(lambda: shop.containers() == 3)
    for node in shop.cluster.nodes:
        target = reading(shop, node)
        assert [one.digest for one in target.images] == [wanted]
        assert (target.notes, target.unlike) == ((), ())
        # What it runs itself, by its own store.
        for name in node.engine.listing("ps", "--quiet", shop.label):
            form = ("container", "inspect", "--format={{.Config.Image}} {{.Image}}")
            reference, identity = node.engine.run(*form, name).stdout.split()
            assert reference == shop.images["2"]
            assert identity == said["config"]


def reading(shop, node):
    """What verify reads of the service, asked of one node."""
    found = settings.load(shop.project.root, shop.project.environ)
    return against.find(found, [node.engine], SERVICE, progress=Quiet())
