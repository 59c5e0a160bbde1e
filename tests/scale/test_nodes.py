"""A node that fails costs what it was sent until the edge knew; a restart, nothing."""

import re
import signal

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
        cut = shop.now()
        mend = fails(node)
        # Its replica comes back on another node.
        wait(lambda: others(shop, node) == 3, 180)
        load.more(1000)
        mend()
        shop.cluster.wait_ready()
        shop.wait_running(3, "1")
        load.more(1000)
        result = load.end()
    log = shop.edge_log(cut)
    down = {
        found[1]: time
        for time, line in reversed(log)
        if (found := re.match(r"Server shop/(\w+) is (?:going )?DOWN", line))
    }
    asked = {
        found[2]: found[1]
        for _, line in log
        if (found := re.match(r"asked (\S+) (?:/\?|/count/)(\S+) ", line))
    }
    print("sent to:", {asked.get(one.name) for one in result.lost}, "down:", {
        name: f"{time - cut:.1f} s after" for name, time in down.items()
    })  # fmt: skip
    # All was lost at one replica, and nothing was sent to that once it was known.
    assert len({asked[one.name] for one in result.lost}) <= 1
    assert [one for one in result.lost if one.began > down[asked[one.name]]] == []
    shop.once(result)
    shop.wait_running(3, "1")


def others(shop, node):
    """How many replicas run on other nodes."""
    return sum(one["Node"] != node.name for one in shop.running("1"))


def test_the_stack_survives_the_restart_of_every_daemon_in_turn(shop):
    nodes = shop.cluster.nodes
    for number, node in enumerate(nodes):
        # An edge that is restarted takes no new visitors: those go to another's.
        with shop.load("restart", node=(number + 1) % len(nodes)) as load:
            node.stop()
            wait(lambda node=node: others(shop, node) == 3, 180)
            node.start()
            shop.cluster.wait_ready()
            shop.wait_running(3, "1")
            shop.wait_answers()
            load.more(1000)
            result = load.end()
        assert result.lost == ()
        shop.once(result)


def test_scaling_loses_nothing(shop):
    with shop.load("scaling") as load:
        for count in (6, 2):
            scale = ("service", "scale", "--detach", f"{SERVICE}={count}")
            shop.cluster.engine.run(*scale)
            shop.wait_running(count)
            wait(lambda count=count: len(shop.tasks_of("1")) == count)
            # What is to go has the drain delay left, and its requests in flight.
            wait(lambda count=count: shop.containers() == count)
            load.more(2000)
        result = load.end()
    assert result.lost == ()
    shop.once(result)
