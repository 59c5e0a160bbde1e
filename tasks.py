# containerize format 3 sha256:109f7bc43301ea1497b2ad4e0fb36579
"""The daily verbs: `invoke --list` names them, `invoke --help VERB` explains one.

From nothing to the app answering: init, up
The image:      lock, fetch, build, digest, verify, images
The container:  run, dev, exec, logs, ps, stop
For others:     sbom, provenance
The rest:       lint, engine, clean
"""

from containerize.tasks import namespace

__all__ = ["namespace"]
