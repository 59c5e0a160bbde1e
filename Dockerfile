# containerize format 1 sha256:b8d6faa2a50f170dbed6f34c85d07cdf
# Built from the layers that `invoke build` packs, with no network. By hand, once
# they are packed: docker build --network none -t NAME .

# Nothing below the packed layers; a setting, base-image, puts an image there.
ARG BASE=scratch

FROM ${BASE} AS packed
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
# From what changes least to what changes most: Debian packages, the requirements'
# wheels, what serves the app, the app.
ADD build/rootfs.tar /
ADD build/deps.tar /
ADD build/service.tar /
ADD build/app.tar /
WORKDIR /srv

# Compiled modules halve the start. In /tmp, where the user of a base image can write.
FROM packed AS compiled
ENV PYTHONHASHSEED=0 PYTHONPYCACHEPREFIX=/tmp/compiled/pycache
COPY build/compile_modules.py /tmp/
RUN ["python3", "/tmp/compile_modules.py", "/tmp/compiled"]

FROM packed
COPY --from=compiled --chown=0:0 /tmp/compiled /
# 65532 is nonroot, which the root file system has in /etc/passwd.
USER 65532:65532
