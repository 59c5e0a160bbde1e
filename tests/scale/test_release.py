"""A release is refused, with nothing changed, if not every node can have it."""

from tests.scale.cluster import HERE, wait
from tests.scale.proof import SERVICE


def versions(shop):
    """Which state of each service the Swarm has."""
    form = "{{.Spec.Name}} {{.Version.Index}}"
    engine = shop.cluster.engine
    names = engine.listing("service", "ls", "--format={{.Name}}")
    return engine.run("service", "inspect", f"--format={form}", *names).stdout


def refused(shop, image, **environ):
    """The one line that a release which was refused has written."""
    before = versions(shop)
    with shop.project.begin("release", image, **environ) as process:
        _, error = process.communicate()
    assert process.returncode == 1
    assert versions(shop) == before
    [line] = error.strip().splitlines()
    return line


def fresh(shop):
    """An image that no node has but the first one, which has pushed it."""
    first, name = (
        shop.cluster.nodes[0].engine,
        f"{shop.cluster.registry.host}/team/shop",
    )
    made = first.run("create", shop.images["1"]).stdout.strip()
    first.run("commit", "--change=ENV FRESH=1", made, f"{name}:fresh")
    first.run("rm", made)
    first.run("push", f"{name}:fresh")
    form = "--format={{index .RepoDigests 0}}"
    return first.run("image", "inspect", form, f"{name}:fresh").stdout.strip()


def status(shop, node):
    found = shop.cluster.ask("node", "ls")
    return next(one["Status"] for one in found if one["Hostname"] == node.name)


def test_a_node_that_is_down(shop):
    node = shop.cluster.nodes[2]
    node.cut_power()
    try:
        wait(lambda: status(shop, node) == "Down")
        line = refused(shop, shop.images["2"])
        assert (
            f"not every node is ready: {node.name} is down: see to it, or leave" in line
        )
    finally:
        node.boot()
        shop.cluster.wait_ready()


def test_a_registry_that_one_node_does_not_reach(shop):
    image, node = fresh(shop), shop.cluster.nodes[2]
    route = ("ip", "route", "{}", "unreachable", f"{HERE}/32")
    node.run(*(word.format("add") for word in route))
    try:
        line = refused(shop, image)
    finally:
        node.run(*(word.format("delete") for word in route))
    assert f"{node.name} cannot pull {image}: this node can, so see in the log" in line
    # The other nodes have it now; what was there for the release alone is gone.
    names = shop.cluster.engine.listing("service", "ls", "--format={{.Name}}")
    assert [name for name in names if not name.startswith("shop_")] == []
    assert shop.running("1") == shop.running()


def test_a_worker_is_no_manager(shop):
    node = shop.cluster.nodes[2]
    shop.cluster.engine.run("node", "demote", node.name)
    try:
        command = shop.project.root.parent / "worker"
        words = " ".join(f"'{word}'" for word in node.engine.command)
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o755)

        def worker():
            form = "--format={{.Swarm.ControlAvailable}}"
            return node.engine.run("info", form).stdout.strip() == "false"

        wait(worker)
        line = refused(shop, shop.images["2"], CONTAINERIZE_ENGINE=str(command))
        assert "the engine is a worker of its Swarm: name a manager, as at 192" in line
    finally:
        shop.cluster.engine.run("node", "promote", node.name)
        shop.cluster.wait_ready()
    assert shop.cluster.update(SERVICE) == ""
