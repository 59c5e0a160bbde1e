# containerize format 2 sha256:f378503a515b1b8220b53e6212c06d87
"""The daily verbs: `invoke --list` names them, `invoke --help VERB` explains one.

From nothing to the app answering: init, up
The image:      lock, fetch, build, digest, verify, images
The container:  run, dev, exec, logs, ps, stop
For others:     bundle
The rest:       lint, engine, clean
"""

from containerize.tasks import namespace

__all__ = ["namespace"]
