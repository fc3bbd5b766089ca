# The agent of a node, or the witness: see docs/compose.md, and compose.yaml, which says what it needs
# of its host. Any builder will do; nothing here needs BuildKit.
#
#   docker build -t failover-agent .

ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt LICENSE ./
COPY src ./src
# Without a pip of its own: the base's installs into it.
RUN python -m venv --without-pip /opt/failover-agent \
 && pip --python /opt/failover-agent/bin/python install --no-cache-dir -c constraints.txt .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="failover-agent" \
      org.opencontainers.image.description="Active/passive failover of Docker containers between two hosts" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/failover-agent /opt/failover-agent
ENV PATH=/opt/failover-agent/bin:$PATH

# Root, because who may speak to Docker's socket is root anyway: compose.yaml takes away what it does
# not need. Nothing is written but below the folders that it mounts, so the rest may be read-only.
ENTRYPOINT ["failover-agent"]
CMD ["run"]

# The guard passes it on, and the agent hands over.
STOPSIGNAL SIGTERM

# Healthy is an agent that answers. 3 is one that tells of trouble: what it tells is not healed by a
# restart of its own.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s \
  CMD failover-agent status || [ $? -eq 3 ]
