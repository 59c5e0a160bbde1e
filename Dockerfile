# containerize format 3 sha256:251de657cfc56e1036621adaea91baea
# Built from the layers that `invoke build` packs, with no network. By hand, once
# they are packed: docker build --network none -t NAME .

# Nothing below the packed layers; a setting, base-image, puts an image there.
ARG BASE=scratch
# What compiles the modules: the image itself, or if that is for another processor than
# the engine's, one like it for the engine's, which finds TREE of the image as data.
ARG COMPILER=base

FROM ${BASE} AS base
# The project's name, and the app as FLASK_APP says it.
ARG PROJECT=flask-introduction
ARG APP=app
LABEL containerize.project=${PROJECT}
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
ADD build/rootfs.tar /

# Compiled modules halve the start. To what compiles them a layer is data, which lies in
# /tmp: nothing of the app, the wheels or the site of a base image runs here.
FROM ${COMPILER} AS compiler
ARG TREE=/tmp
ENV PYTHONHASHSEED=0 PYTHONPATH=
HEALTHCHECK NONE
COPY build/compile_modules.py /tmp/
COPY --from=base ${TREE} /tmp/image${TREE}

# Python's own, the wheels' and those of what serves the app.
FROM compiler AS compiled
ADD build/deps.tar /tmp/deps/
ADD build/service.tar /tmp/service/
RUN ["python3", "-s", "-S", "-P", "/tmp/compile_modules.py", \
     "/", "/tmp/compiled/deps", "/tmp/deps", "/tmp/compiled/deps", \
     "/tmp/service", "/tmp/compiled/service"]

FROM compiler AS compiled-app
ADD build/app.tar /tmp/app/
RUN ["python3", "-s", "-S", "-P", "/tmp/compile_modules.py", "/tmp/app", "/tmp/compiled"]

# From what changes least to what changes most: Debian packages, the requirements'
# wheels, what serves the app, the app's large files, the app.
FROM base
ADD build/deps.tar /
COPY --from=compiled --chown=0:0 /tmp/compiled/deps /
COPY --from=compiled --chown=0:0 /tmp/service /tmp/compiled/service /
ADD build/large.tar /
# It is there by now; Podman would give a new one to the user. 65532 is nonroot, which
# the root file system has in /etc/passwd.
WORKDIR /srv
USER 65532:65532
ADD build/app.tar /
COPY --from=compiled-app --chown=0:0 /tmp/compiled /
