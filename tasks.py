# containerize format 2 sha256:e6179fa073653e1ac76cc850258b69ee
"""The daily verbs: `invoke --list` names them, `invoke --help VERB` explains one.

From nothing to the app answering: init, up
The image:      lock, fetch, build, digest, verify, images
The container:  run, exec, logs, ps, stop
The rest:       lint, engine, clean
"""

from containerize.tasks import namespace

__all__ = ["namespace"]
