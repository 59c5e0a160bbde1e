"""Compiles the packed modules, inside the image: a step of the Dockerfile.

One process, sorted paths, the packed layers' time: the same modules give the same
bytes. Each holds the hash of its source, so that a source which is mounted or copied
over the image's is what runs.
"""

import compileall
import os
import sys
from py_compile import PycInvalidationMode

if __name__ == "__main__":
    for top in filter(os.path.isdir, sys.path):
        compileall.compile_dir(
            top,
            maxlevels=99,
            quiet=2,
            invalidation_mode=PycInvalidationMode.CHECKED_HASH,
        )
    # Beside the compiled modules there is nothing; the packed layers' time is /srv's.
    time = os.stat("/srv").st_mtime
    for path, _, names in os.walk(sys.argv[1], topdown=False):
        for name in (*names, ""):
            os.utime(os.path.join(path, name), (time, time))
