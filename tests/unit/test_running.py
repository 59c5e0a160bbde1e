"""What else than its image decides what a container or a service runs."""

import dataclasses
import json
import sys
import tarfile

import pytest

from containerize.engines.engine import Engine
from containerize.errors import Problem
from containerize.image import canonical, index
from containerize.settings import Settings
from containerize.verify import running, service
from containerize.verify.expected import Built, Expected

CONFIG = {
    "Entrypoint": ["python3", "-m", "served"],
    "WorkingDir": "/srv",
    "Env": ["PATH=/usr/bin", "PYTHONPATH=/usr/lib/served:/srv"],
}


def entry(name, content=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info, content


@pytest.fixture(scope="session")
def tree(save, tmp_path_factory):
    """The files of a small image with an app, as its canonical archive has them."""
    top = tmp_path_factory.mktemp("tree")
    names = (
        *("usr/lib/python3.13/os.py", "usr/bin/python3", "etc/passwd"),
        *("srv/app/__init__.py", "srv/app/page.html", "var/lib/data/.keep"),
    )
    members = [entry("lib", kind=tarfile.SYMTYPE, link="usr/lib")]
    members += [entry("tmp", kind=tarfile.DIRTYPE)]
    members += [entry(name, b"x") for name in names]
    saved, made = save(top / "saved.tar", members), top / "made.tar"
    canonical.canonicalize(saved, made, time=0, labels={}, references=())
    return running.read_tree(made)


@pytest.fixture
def project(tmp_path):
    return Settings(
        root=tmp_path,
        image="shop",
        volumes=("data:/srv/instance", "./x:/srv/app/uploads"),
        commands={"worker": "python3 -m shop.worker --quiet"},
    )


def launch(**changes):
    found = running.Launch(
        words=("python3", "-m", "served"),
        directory="/srv",
        environment=running.variables(CONFIG["Env"]),
        mounts={},
    )
    return dataclasses.replace(found, **changes)


def told(project, tree, **changes):
    return running.differences(project, launch(**changes), CONFIG, tree)


def test_a_launch_as_the_image_says_has_no_difference(project, tree):
    assert told(project, tree) == []
    assert told(project, tree, words=("python3", "-m", "shop.worker", "--quiet")) == []


def test_another_command_is_told(project, tree):
    [line] = told(project, tree, words=("python3", "-c", "import x; x.run()"))
    own = "its image `python3 -m served`"
    assert line == f"it runs `python3 -c 'import x; x.run()'`, {own}"


def test_another_directory_is_told(project, tree):
    [line] = told(project, tree, directory="/data")
    assert line == "it runs in /data, its image in /srv"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PYTHONPATH", "/x", "PYTHONPATH=/x, its image /usr/lib/served:/srv"),
        ("PYTHONPATH", None, "no PYTHONPATH, its image /usr/lib/served:/srv"),
        ("PATH", "/x:/usr/bin", "PATH=/x:/usr/bin, its image /usr/bin"),
        ("LD_PRELOAD", "/x.so", "LD_PRELOAD=/x.so, its image none"),
        ("FLASK_APP", "y\x1b[31m", "FLASK_APP=y\\x1b[31m, its image none"),
    ],
)
def test_a_variable_that_moves_code_is_told(project, tree, name, value, said):
    variables = running.variables(CONFIG["Env"]) | {name: value}
    variables = {k: v for k, v in variables.items() if v is not None}
    assert told(project, tree, environment=variables) == [f"it has {said}"]


def test_other_variables_are_the_launchs_own(project, tree):
    secret = running.variables(CONFIG["Env"]) | {"SECRET_KEY": "geheim", "TZ": "UTC"}
    assert told(project, tree, environment=secret) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/srv", "v is mounted at /srv, over /srv/app/__init__.py and 1 more of its i"),
        ("/srv/app/__init__.py", "over /srv/app/__init__.py of its image"),
        ("/", "over /etc/passwd and 6 more of its image"),
        # by a symbolic link of the image
        ("/lib/python3.13/", "over /usr/lib/python3.13/os.py of its image"),
        ("/lib/python3.13/../python3.13", "over /usr/lib/python3.13/os.py of its ima"),
        ("/lib/python3.13/x.py", "among its image's modules: if it holds data alone"),
        ("/srv/evil.py", "among its image's modules"),
        ("/srv/other", "v is mounted at /srv/other, among its image's modules"),
    ],
)
def test_a_mount_that_brings_other_code_is_told(project, tree, place, said):
    [line] = told(project, tree, mounts={place: "v"})
    assert said in line


@pytest.mark.parametrize(
    "place",
    ["/tmp", "/srv/instance", "/srv/instance/", "/srv/app/uploads", "/data", "/srv2"],
)
def test_a_mount_of_data_is_not_told(project, tree, place):
    assert told(project, tree, mounts={place: "v"}) == []


def test_a_volume_of_the_settings_must_not_hide_the_image(project, tree):
    hides = dataclasses.replace(project, volumes=("data:/srv",))
    assert "over /srv/app" in told(hides, tree, mounts={"/srv": "data"})[0]


def says(tmp_path, *lines):
    """An engine that answers each command with these lines."""
    (tmp_path / "answer").write_text("".join(f"{line}\n" for line in lines))
    script = "import sys; sys.stdout.write(open(sys.argv[1]).read())"
    command = (sys.executable, "-c", script, str(tmp_path / "answer"))
    return Engine("docker", command)


def changed(tmp_path, tree, *lines, read_only=False, **fields):
    found = {"Id": "1", "HostConfig": {"ReadonlyRootfs": read_only}}
    return running.changes(says(tmp_path, *lines), found, launch(**fields), tree)


def test_files_that_are_changed_in_a_container_are_told(tmp_path, tree):
    lines = ["C /srv", "C /srv/app", "A /srv/app/x.py", "D /etc/passwd", "C /etc"]
    [line] = changed(tmp_path, tree, *lines, "C /usr/bin/python3")
    assert line.endswith("its image: /etc/passwd, /srv/app/x.py, /usr/bin/python3")


def test_what_engines_and_programs_do_by_themselves_is_not_told(tmp_path, tree):
    lines = ["C /etc", "A /etc/hosts", "A /run/secrets", "C /tmp", "A /tmp/x", "C /srv"]
    lines += ["A /srv/instance", "A /srv/instance/db", "A /a", "A /a/b"]
    mounts = {"/srv/instance": "v", "/a/b": "v"}
    assert changed(tmp_path, tree, *lines, mounts=mounts) == []
    assert changed(tmp_path, tree, *lines) != []


def test_nothing_changes_where_nothing_can_be_written(tmp_path, tree):
    line = "A /pycache/x.pyc"  # as Podman 4.3 shows of an image's own last layer
    assert changed(tmp_path, tree, line, read_only=True) == []
    assert changed(tmp_path, tree, line) != []


# --- Services --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, ("python3", "-m", "served")),
        ({"Args": ["-v"]}, ("python3", "-m", "served", "-v")),
        ({"Command": ["sh"]}, ("sh",)),
        ({"Command": ["sh"], "Args": ["-c", "x"]}, ("sh", "-c", "x")),
    ],
)
def test_the_command_of_a_service(spec, words):
    assert service.launched(spec, CONFIG).words == words


def test_the_rest_that_a_service_sets(project, tree):
    spec = {
        "Env": ["PYTHONPATH=/y"],
        "Dir": "/y",
        "Mounts": [{"Type": "tmpfs", "Target": "/srv"}],
        "Configs": [{"ConfigName": "c", "File": {"Name": "/srv/c.py"}}],
        "Secrets": [{"SecretName": "s", "File": {"Name": "s"}}],
    }
    found = service.launched(spec, CONFIG)
    assert found.mounts == {
        "/srv": "tmpfs",
        "/srv/c.py": "the config c",
        "/run/secrets/s": "the secret s",
    }
    assert len(running.differences(project, found, CONFIG, tree)) == 4
    assert service.launched({}, CONFIG) == launch()


def task(state="running", **spec):
    return {"Status": {"State": state}, "Spec": {"ContainerSpec": spec}}


def test_tasks_that_run_something_else_or_not_yet_are_told():
    spec = {"Image": "new", "Env": ["A=1"]}
    well = task(**spec)
    assert service.unlike("service web", spec, [well, well]) == []
    lines = service.unlike("service web", spec, [well, task(Image="old"), well])
    assert lines == [
        "1 of the 3 tasks of service web run old as it was set before: see `docker "
        "service ps`"
    ]
    [line] = service.unlike("service web", spec, [well, task("starting", **spec)])
    assert line.startswith("1 of the 2 tasks of service web do not run (starting)")


# --- Containers ------------------------------------------------------------------


def test_a_container_that_has_ended_is_refused(project, tmp_path):
    found = [{"State": {"Status": "exited"}}]
    engine = says(tmp_path, json.dumps(found))
    with pytest.raises(Problem, match=r"container web does not run \(exited\)"):
        running.find(project, [engine], "web")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"containerize.project": "other"}, "web is of the project other, and this ch"),
        (None, "web is of an image that this tool has not made"),
    ],
)
def test_an_image_of_another_project_is_refused(project, tmp_path, labels, said):
    found = {
        "State": {"Status": "running"},
        "Image": "sha256:1",
        "Config": {"Labels": labels},
        "Os": "linux",
        "Architecture": "amd64",
    }
    with pytest.raises(Problem, match=said):
        running.find(project, [says(tmp_path, json.dumps([found]))], "web")


def test_an_image_for_a_processor_that_the_project_has_none_for(project, tmp_path):
    found = {
        "State": {"Status": "running"},
        "Image": "sha256:1",
        "Config": {"Labels": {"containerize.project": "shop"}},
        "Os": "linux",
        "Architecture": "arm64",
    }
    engine = says(tmp_path, json.dumps([found]))
    own = dataclasses.replace(project, architectures=("amd64",))
    with pytest.raises(Problem, match="it has an image for linux/arm64, and this"):
        running.find(own, [engine], "web")
    assert running.find(project, [engine], "web").images[0].architecture == "arm64"


def test_a_containerd_store_says_which_manifest_of_an_index_it_runs(project, tmp_path):
    found = {
        "State": {"Status": "running"},
        "Image": "sha256:of-an-index",
        "ImageManifestDescriptor": {"digest": "sha256:of-a-manifest"},
        "Config": {"Labels": {"containerize.project": "shop"}},
        "Os": "linux",
        "Architecture": "amd64",
    }
    target = running.find(project, [says(tmp_path, json.dumps([found]))], "web")
    assert target.images[0].digest == "sha256:of-a-manifest"


def test_what_an_engine_saves_is_compared_by_its_config(save, tmp_path):
    """Whatever an ID is of: what was changed is found in the canonical form."""

    def made(name, text):
        saved, target = tmp_path / f"{name}.tar", tmp_path / f"{name}-made.tar"
        save(saved, [entry("srv/app.py", text)])
        found = canonical.canonicalize(saved, target, time=7, labels={}, references=())
        return found, target

    script = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[-2])"
    digests, archive = made("ours", b"1")
    built = Built(digests=digests, archive=archive, scratch=tmp_path)
    expected = Expected(name="web", architecture="amd64", digest="sha256:index")
    for name, text in (("same", b"1"), ("other", b"2")):
        other, target = made(name, text)
        engine = Engine("docker", (sys.executable, "-c", script, str(target)))
        found = running.saved(engine, "sha256:1", expected, built)
        assert found.digest == other.config
        assert (found.digest == digests.config) is (name == "same")
    # A builder's own form of the same image is another image, and is shown as it is.
    engine = Engine(
        "docker", (sys.executable, "-c", script, str(tmp_path / "ours.tar"))
    )
    found = running.saved(engine, "sha256:1", expected, built)
    assert found.digest != digests.config
    assert found.archive == tmp_path / "running.tar"


def test_an_engine_may_save_a_part_of_the_index_that_an_image_is_of(save, tmp_path):
    made = {}
    for name in ("amd64", "arm64"):
        saved, target = tmp_path / f"{name}-saved.tar", tmp_path / f"{name}.tar"
        save(saved, [entry("srv/app.py", b"1")], architecture=name)
        made[name] = canonical.canonicalize(
            saved, target, time=7, labels={}, references=()
        )
    whole, part = tmp_path / "whole.tar", tmp_path / "part.tar"
    index.write(
        [tmp_path / f"{name}.tar" for name in made], whole, time=0, references=()
    )
    foreign = f"blobs/sha256/{made['amd64'].manifest[7:]}"
    with tarfile.open(whole) as old, tarfile.open(part, "w") as new:
        for member in old:
            if member.name != foreign:
                new.addfile(
                    member, old.extractfile(member) if member.isfile() else None
                )
    script = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[-2])"
    engine = Engine("docker", (sys.executable, "-c", script, str(part)))
    wanted = Expected(name="web", architecture="arm64", digest="sha256:of-the-index")
    archive = tmp_path / "arm64.tar"
    built = Built(digests=made["arm64"], archive=archive, scratch=tmp_path)
    found = running.saved(engine, "sha256:1", wanted, built)
    assert found.digest == made["arm64"].config
