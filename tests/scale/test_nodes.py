"""A node that fails costs what it was sent until the edge knew; a restart, nothing."""

import signal
import time

import pytest

from tests.scale.cluster import wait
from tests.scale.proof import SERVICE


def unplugged(node):
    node.unplug()
    return node.plug


def without_power(node):
    node.cut_power()
    return node.boot


def without_daemon(node):
    node.signal(signal.SIGKILL)
    return node.start


@pytest.mark.parametrize("fails", [unplugged, without_power, without_daemon])
def test_a_node_that_fails(shop, fails):
    node = shop.cluster.nodes[2]
    with shop.load("fails") as load:
        had = 3 - others(shop, node)
        cut = time.time()
        mend = fails(node)
        # Its replica comes back on another node.
        wait(lambda: others(shop, node) == 3, 180)
        load.more(1000)
        mend()
        shop.cluster.wait_ready()
        shop.wait_running(3, "1")
        load.more(1000)
        result = load.end()
    cost_what_was_sent(shop.seen(cut, result), had)
    shop.once(result)


def cost_what_was_sent(seen, replicas):
    """Assert that all was lost at so many replicas, before the edge knew of them.

    A few lines of its log may be missing: HAProxy drops what nobody reads in time.
    """
    known = {at for at in seen.asked.values() if at}
    assert len(known) <= replicas
    last = max((seen.down[at] for at in known), default=0)
    late = [
        one for one, at in seen.asked.items() if one.began > seen.down.get(at, last)
    ]
    assert late == []


def others(shop, node):
    """How many replicas run on other nodes."""
    return sum(one["Node"] != node.name for one in shop.running("1"))


@pytest.mark.parametrize("drained", [False, True], ids=["at once", "drained"])
def test_the_stack_survives_the_restart_of_every_daemon_in_turn(shop, drained):
    nodes = shop.cluster.nodes
    for number, node in enumerate(nodes):
        # An edge that is restarted takes no new visitors: those go to another's.
        other = (number + 1) % len(nodes)
        had = 3 - others(shop, node)
        with shop.load("restart", node=other) as load:
            began = time.time()
            if drained:
                shop.cluster.take_tasks(node, "drain")
                wait(lambda node=node: not node.engine.listing("ps", "-q", shop.label))
            node.stop()
            wait(lambda node=node: others(shop, node) == 3, 180)
            node.start()
            shop.cluster.wait_ready()
            shop.cluster.take_tasks(node, "active")
            shop.wait_running(3, "1")
            shop.wait_answers()
            load.more(1000)
            result = load.end()
        seen = shop.seen(began, result, other)
        if drained:
            assert result.lost == ()
        # A daemon that ends leaves its cluster first, and its containers' packets are
        # not brought to them any more, whatever they would still do.
        cost_what_was_sent(seen, had)
        shop.once(result)


def test_scaling_loses_nothing(shop):
    with shop.load("scaling") as load:
        for count in (6, 2):
            scale = ("service", "scale", "--detach", f"{SERVICE}={count}")
            shop.cluster.run(*scale)
            shop.wait_running(count)
            wait(lambda count=count: len(shop.tasks_of("1")) == count)
            # What is to go has the drain delay left, and its requests in flight.
            wait(lambda count=count: shop.containers() == count)
            load.more(2000)
        result = load.end()
    assert result.lost == ()
    shop.once(result)
