"""What is said of a target that was rebuilt: equal only if all of it is."""

import dataclasses
from pathlib import Path

import pytest

from containerize.image.canonical import ImageDigests
from containerize.verify import rebuild
from containerize.verify.every import Whole
from containerize.verify.expected import Expected, Target
from containerize.verify.rebuild import Rebuild, Verdict


def digest(character):
    return f"sha256:{character * 64}"


INDEX = digest("f")


def verdict(architecture, wanted, made, **fields):
    digests = ImageDigests(digest(made), digest("c"), ())
    built = Rebuild("docker, plain", digests, Path("nowhere"), 1.0)
    return Verdict((built,), "x:1", digest(wanted), architecture=architecture, **fields)


def whole(*verdicts, made="", **fields):
    images = tuple(
        Expected(name="x:1", architecture=one.architecture, digest=one.digest)
        for one in verdicts
    )
    target = Target(**{"name": "x:1", "images": images} | fields)
    return Whole(target=target, verdicts=verdicts, index=made)


AMD64, ARM64 = verdict("amd64", "a", "a"), verdict("arm64", "b", "b")
OTHER = verdict("arm64", "b", "d")


def test_an_index_is_equal_if_each_image_and_the_index_are():
    found = whole(AMD64, ARM64, made=INDEX, index=INDEX)
    assert found.equal
    assert found.words == (
        f"Equal to x:1: linux/amd64, manifest {digest('a')}; "
        f"linux/arm64, manifest {digest('b')}; index {INDEX}"
    )


def test_an_image_that_differs_is_named():
    found = whole(AMD64, OTHER, made=digest("e"), index=INDEX)
    assert not found.equal
    assert found.unlike == ()  # the index differs since an image does
    assert found.words == (
        f"the images are not those of x:1: linux/arm64 is not {digest('b')}"
    )


def test_an_index_that_alone_differs_is_told():
    found = whole(AMD64, ARM64, made=digest("e"), index=INDEX)
    assert not found.equal
    assert "its index is not" in found.unlike[0]
    assert "which is not that alone: see above" in found.words


@pytest.mark.parametrize("where", ["target", "verdict"])
def test_what_decides_besides_the_image_is_no_equality(where):
    if where == "target":
        found = whole(AMD64, unlike=("a task runs something else",))
    else:
        odd = dataclasses.replace(AMD64, besides=("a mount", "a mount"))
        found = whole(odd, dataclasses.replace(ARM64, besides=("a mount",)))
        assert found.unlike == ("a mount",)
    assert not found.equal
    assert found.words == "the image is that of x:1, which is not that alone: see above"


def test_a_digest_is_that_of_one_image_or_of_the_index():
    none = verdict("amd64", "f", "a"), verdict("arm64", "f", "b")

    def told(*verdicts, made):
        return whole(*verdicts, made=made, index=INDEX, either=True, name=INDEX)

    assert told(*none, made=INDEX).words == f"Equal to {INDEX}: index {INDEX}"
    assert not told(*none, made=digest("e")).equal
    one = told(none[0], verdict("arm64", "f", "f"), made="")
    assert one.words == f"Equal to {INDEX}: linux/arm64, manifest {INDEX}"
    assert one.equal


def test_a_digest_of_a_config_is_said_to_be_one():
    by_config = verdict("amd64", "c", "a")
    assert whole(by_config).words == f"Equal to x:1: linux/amd64, config {digest('c')}"


def test_without_anything_else_rebuilds_are_compared_with_the_first():
    first = dataclasses.replace(AMD64, expected=rebuild.FIRST)
    assert whole(first).words.startswith("Equal to the first rebuild: linux/amd64, ")
    another = dataclasses.replace(first, rebuilds=(*first.rebuilds, *OTHER.rebuilds))
    assert whole(another).words == (
        f"the image is not that of the first rebuild, {digest('a')}"
    )
