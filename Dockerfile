# Quiesce's image: a virtual environment on Debian's Python. It needs no writable files: pip compiles what it installs.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
RUN python3 -m venv /opt/quiesce
COPY requirements.lock requirements-build.lock /src/
RUN /opt/quiesce/bin/pip install --no-cache-dir --require-hashes --requirement /src/requirements.lock
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement /src/requirements-build.lock
COPY LICENSE README.md pyproject.toml /src/
COPY operator /src/operator
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist /src \
    && /opt/quiesce/bin/pip install --no-cache-dir --no-deps /dist/*.whl \
    && /opt/quiesce/bin/pip uninstall --yes setuptools pip

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build /opt/quiesce /opt/quiesce
LABEL org.opencontainers.image.title="Quiesce" \
      org.opencontainers.image.description="Stops, drains and rolls application servers on Kubernetes without losing a request" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that the kubelet can tell that it is not root; any other number works too.
USER 65532:65532
ENTRYPOINT ["/opt/quiesce/bin/python", "-m", "quiesce"]
