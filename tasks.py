# containerize format 3 sha256:27bb1ae83bf73e9cf0480dee4f1558c7
"""The daily verbs: `invoke --list` names them, `invoke --help VERB` explains one.

From nothing to the app answering: init, up
The image:      lock, fetch, build, digest, verify, images
The container:  run, dev, exec, logs, ps, stop
The rest:       lint, engine, clean
"""

from containerize.tasks import namespace

__all__ = ["namespace"]
