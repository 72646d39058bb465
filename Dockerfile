# Quiesce's image: a virtual environment on Debian's own Python. It writes nothing: pip compiles what it installs.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
RUN python3 -m venv /opt/quiesce
COPY requirements.lock /src/
RUN /opt/quiesce/bin/pip install --no-cache-dir --require-hashes --requirement /src/requirements.lock
COPY LICENSE README.md pyproject.toml /src/
COPY operator /src/operator
RUN /opt/quiesce/bin/pip install --no-cache-dir --no-deps /src \
    && /opt/quiesce/bin/pip uninstall --yes setuptools pip

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build /opt/quiesce /opt/quiesce
USER 65532:65532
ENTRYPOINT ["/opt/quiesce/bin/python", "-m", "quiesce"]
