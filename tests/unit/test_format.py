"""The bytes that this format writes for fixed inputs: a change of theirs is a format.

If the bytes have to move, raise `containerize.FORMAT` and add the new digests, which
the failing test shows, to format.json under its number.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import containerize
from containerize import disk
from containerize.image import canonical
from containerize.pack import layers, selection
from containerize.settings import Settings
from tests.unit.test_layers import deb, wheel

KNOWN = Path(__file__).with_name("format.json")
TIME = 1_763_856_000


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def packed(made):
    out = io.BytesIO()
    made.write(out, TIME)
    return out.getvalue()


def digests(top, save):
    """By name: the SHA-256 of each layer, and the digests of an image of them."""
    root = top / "root"
    (root / "shop").mkdir(parents=True)
    (root / "shop" / "__init__.py").write_text("app = 1\n")
    (root / "shop" / "run").write_text("#!/bin/sh\n")
    (root / "shop" / "run").chmod(0o755)
    (root / "shop" / "link").symlink_to("run")
    (root / "naïve.txt").write_text("x")
    settings = Settings(root=root, image="shop", app="shop", volumes=("xx:/data",))
    contents = ["usr/bin/x", "usr/share/ca-certificates/a.crt", "usr/share/man/x"]
    package = deb(top / "a.deb", "ca-certificates", contents)
    entry = "[console_scripts]\nshop = shop:app\n"
    (root / "shop" / "large.bin").write_bytes(bytes(layers.LARGE))
    app = layers.application(settings, selection.app(settings).files)
    trees = {
        "rootfs": layers.rootfs([package], "3.13"),
        "deps": layers.dependencies(
            settings, [wheel(top, "shop", {"shop.py": "x = 1\n"}, entry)]
        ),
        **dict(zip(("large", "app"), layers.split(app), strict=True)),
    }
    tars = {name: packed(made) for name, made in trees.items()}
    saved = save(top / "saved.tar", *tars.values(), config={"Env": ["A=b"]})
    found = canonical.canonicalize(
        saved, top / "image.tar", time=TIME, labels={"a": "b"}, references=["shop:1"]
    )
    with tarfile.open(top / "image.tar") as archive:
        names = sorted(member.name for member in archive if member.isfile())
    return {
        **{name: sha256(data) for name, data in tars.items()},
        "compile": disk.sha256(layers.COMPILE),
        "config": found.config,
        "manifest": found.manifest,
        "files": sha256("\n".join(names).encode()),
        "archive": disk.sha256(top / "image.tar"),
    }


def test_the_bytes_of_a_format_never_change(tmp_path, save):
    known = json.loads(KNOWN.read_text("utf-8"))
    assert str(max(map(int, known))) == str(containerize.FORMAT)
    assert digests(tmp_path, save) == known[str(containerize.FORMAT)]
