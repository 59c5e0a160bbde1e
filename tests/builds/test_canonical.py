"""Any Dockerfile, on real engines: the canonical layers are those written down here."""

import dataclasses
import io
import json
import tarfile

import pytest

from containerize import build
from containerize.image import archive, canonical

FILE, DIRECTORY, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE


def run(code):
    return "RUN " + json.dumps(["python3", "-c", f"import os, shutil\n{code}"])


DOCKERFILE = f"""
FROM BASE AS made
USER 0:0
{run("os.makedirs('/out/deep')")}
{run("open('/out/deep/file', 'w').write('1'); os.link('/out/deep/file', '/out/hard')")}
FROM BASE
USER 0:0
{run("os.remove('/etc/nsswitch.conf'); os.mkfifo('/pipe'); os.chmod('/etc', 0o711)")}
{run("os.mkdir('/tree'); os.makedirs('/tree/sub/deep'); open('/tree/one', 'w')")}
{run("shutil.rmtree('/tree'); os.mkdir('/tree'); open('/tree/new', 'w')")}
{run("open('/a', 'w').write('1'); os.link('/a', '/b'); os.symlink('/none', '/s')")}
{run("os.mkdir('/own'); os.chown('/own', 7, 8); os.chmod('/a', 0o4755)")}
{run("open('/cap', 'w'); os.setxattr('/cap', 'security.capability', CAPABILITY)")}
{run("os.utime('/etc/passwd'); os.rename('/s', '/own/s')")}
{run("pass")}
WORKDIR /work/dir
COPY context /copied/
{run("open('here', 'w').write('1')")}
VOLUME /volume
{run("open('/tmp/x', 'w').write('1')")}
COPY --from=made /out /out
WORKDIR /last
LABEL own=1
USER 65532
CMD ["x"]
""".replace("CAPABILITY", "bytes.fromhex('0100000200040000' + '00' * 12)")

# By layer above the base: path, type, mode, owner, and content or target of a link.
LAYERS = [
    {
        "etc": (DIRECTORY, 0o711, 0, 0, ""),
        "etc/.wh.nsswitch.conf": (FILE, 0, 0, 0, ""),
        "pipe": (tarfile.FIFOTYPE, 0o644, 0, 0, ""),
    },
    {
        "tree": (DIRECTORY, 0o755, 0, 0, ""),
        "tree/one": (FILE, 0o644, 0, 0, ""),
    },
    {
        "tree": (DIRECTORY, 0o755, 0, 0, ""),
        "tree/.wh.one": (FILE, 0, 0, 0, ""),
        "tree/new": (FILE, 0o644, 0, 0, ""),
    },
    {
        "a": (FILE, 0o644, 0, 0, "1"),
        "b": (LINK, 0o644, 0, 0, "a"),
        "s": (tarfile.SYMTYPE, 0o777, 0, 0, "/none"),
    },
    {
        "a": (FILE, 0o4755, 0, 0, "1"),  # overlayfs copies one name up
        "own": (DIRECTORY, 0o755, 7, 8, ""),
    },
    {"cap": (FILE, 0o644, 0, 0, "")},
    {
        ".wh.s": (FILE, 0, 0, 0, ""),
        "own": (DIRECTORY, 0o755, 7, 8, ""),
        "own/s": (tarfile.SYMTYPE, 0o777, 0, 0, "/none"),
    },
    {
        "copied": (DIRECTORY, 0o755, 0, 0, ""),
        "copied/file": (FILE, 0o640, 0, 0, "text"),
        "copied/link": (tarfile.SYMTYPE, 0o777, 0, 0, "file"),
    },
    {
        "work": (DIRECTORY, 0o755, 0, 0, ""),
        "work/dir": (DIRECTORY, 0o755, 0, 0, ""),
        "work/dir/here": (FILE, 0o644, 0, 0, "1"),
    },
    {
        "tmp": (DIRECTORY, 0o1777, 0, 0, ""),
        "tmp/x": (FILE, 0o644, 0, 0, "1"),
    },
    {
        "out": (DIRECTORY, 0o755, 0, 0, ""),
        "out/deep": (DIRECTORY, 0o755, 0, 0, ""),
        "out/deep/file": (FILE, 0o644, 0, 0, "1"),
        "out/hard": (LINK, 0o644, 0, 0, "out/deep/file"),
    },
    {"last": (DIRECTORY, 0o755, 0, 0, "")},
]


@pytest.fixture
def made(built, using, project, tmp_path):
    """The image of DOCKERFILE, built on ours and made canonical."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("text")
    (context / "file").chmod(0o640)
    (context / "link").symlink_to("file")
    text = DOCKERFILE.replace("BASE", built.references[0])
    (tmp_path / "Dockerfile").write_text(text)
    here = dataclasses.replace(project, root=tmp_path)
    name, saved = f"{project.image}:any", tmp_path / "saved.tar"
    build_it = build.build_command(here, using.kind, [name], cache=False)
    using.run(*build_it[:-1], ".", cwd=tmp_path)
    using.run(*build.save_command(using.kind, name, saved))
    target = tmp_path / "canonical.tar"
    yield (
        target,
        canonical.canonicalize(
            saved, target, time=_time(built.archive), labels={}, references=[name]
        ),
    )
    using.run("rmi", "--force", name)


def layers(path):
    """The layers of an archive as LAYERS has them, and the config."""
    found = []
    with archive.open_image(path) as opened:
        for blob in opened.layers:
            with blob.unpacked(path.parent, opened.limit) as region:
                data = b"".join(region.chunks())
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                found.append({m.name: (m, _text(tar, m)) for m in tar})
        return found, opened.config


def _text(tar, member):
    file = tar.extractfile(member) if member.isreg() else None
    return member.linkname or (file.read().decode("latin-1") if file else "")


def test_every_engine_gives_these_layers(made, built):
    path, digests = made
    found, config = layers(path)
    base = len(built.digests.diff_ids)
    assert digests.diff_ids[:base] == built.digests.diff_ids
    assert [
        {name: (m.type, m.mode, m.uid, m.gid, text) for name, (m, text) in each.items()}
        for each in found[base:]
    ] == LAYERS
    (cap,) = found[base + 5].values()
    assert "SCHILY.xattr.security.capability" in cap[0].pax_headers
    assert config["config"]["Labels"]["own"] == "1"
    assert config["config"]["WorkingDir"] == "/last"
    assert [
        line.partition(": ")[2].partition(": ")[2] for line in digests.warnings
    ] == [
        "/a runs as its owner or group (setuid or setgid)",
        "/cap has capabilities of its own",
    ]


def test_an_archive_can_be_loaded_saved_and_is_still_the_same(
    built, using, project, tmp_path
):
    """What the engine gives back of the canonical image is the canonical image."""
    saved = tmp_path / "saved.tar"
    using.run(*build.save_command(using.kind, built.references[0], saved))
    (labels,) = [layers(built.archive)[1]["config"]["Labels"]]
    digests = canonical.canonicalize(
        saved,
        tmp_path / "again.tar",
        time=_time(built.archive),
        labels=labels,
        references=[],
    )
    assert digests.manifest == built.digests.manifest


def _time(path):
    with tarfile.open(path) as tar:
        return next(iter(tar)).mtime
