# containerize format 3 sha256:141c8608ae25ae2a4dfaab3fa94cbba0
"""The daily verbs: `invoke --list` names them, `invoke --help VERB` explains one.

From nothing to the app answering: init, up
The image:      lock, outdated, fetch, build, digest, verify, images
The container:  run, dev, exec, logs, ps, stop
For others:     push, sbom, provenance, bundle
Many machines:  manifest, release
The rest:       lint, engine, clean
"""

from containerize.tasks import namespace

__all__ = ["namespace"]
