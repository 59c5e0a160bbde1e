# Built from the layers that `invoke build` packs, with no network. By hand, once
# they are packed: docker build --network none -t flask-introduction:latest .

# Nothing below the packed layers; a setting, base-image, puts an image there.
ARG BASE=scratch

FROM ${BASE} AS packed
ARG PROJECT=flask-introduction
LABEL containerize.project=${PROJECT}
# What to serve, as Flask says it; `flask` in the image reads it too.
ARG APP=app
# The cache of compiled modules stands apart, so that no module's own layer changes; the
# columns that a traceback would underline stay out of it, which saves a megabyte.
# The app is found wherever the process starts, and nothing else is found there. What
# serves it comes first: no module of the app's can take its place.
ENV FLASK_APP=${APP} \
    PATH=/usr/local/bin:/usr/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNODEBUGRANGES=1 \
    PYTHONPATH=/usr/local/lib/served:/srv \
    PYTHONPYCACHEPREFIX=/pycache \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-I", "-S", "/usr/local/lib/served/served/healthcheck.py"]
ENTRYPOINT ["python3", "-m", "served"]
# Debian packages, the wheels of requirements.txt, what serves the app, and what changes
# most, the app.
ADD build/rootfs.tar /
ADD build/deps.tar /
ADD build/service.tar /
ADD build/app.tar /
WORKDIR /srv

# Compiled modules halve the start. One process, sorted paths, the packed layers' time:
# the same modules give the same bytes. Each holds the hash of its source, so that a
# source which is mounted or copied over the image's is what runs. In /tmp, where the
# user of a base image can write too.
FROM packed AS compiled
ENV PYTHONHASHSEED=0 PYTHONPYCACHEPREFIX=/tmp/compiled/pycache
RUN ["python3", "-c", "import compileall, os, sys\n\
from py_compile import PycInvalidationMode as Mode\n\
for top in filter(os.path.isdir, sys.path):\n\
    compileall.compile_dir(top, maxlevels=99, quiet=2, invalidation_mode=Mode.CHECKED_HASH)\n\
time = os.stat('/srv').st_mtime\n\
for path, _, names in os.walk('/tmp/compiled', topdown=False):\n\
    for name in (*names, ''):\n\
        os.utime(os.path.join(path, name), (time, time))\n"]

FROM packed
COPY --from=compiled --chown=0:0 /tmp/compiled /
# 65532 is nonroot, which the root file system has in /etc/passwd.
USER 65532:65532
