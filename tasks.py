# containerize format 3 sha256:6ab1d4fb43145c6b32a382e34401f9c2
"""The daily verbs: `invoke --list` names them, `invoke --help VERB` explains one.

From nothing to the app answering: init, up
The image:      lock, outdated, fetch, build, digest, verify, images
The container:  run, dev, exec, logs, ps, stop
For others:     push, sbom, provenance, bundle
The rest:       lint, engine, clean
"""

from containerize.tasks import namespace

__all__ = ["namespace"]
