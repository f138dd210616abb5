# An actor of SEED RL: environments and gRPC, without TensorFlow.
#
#   docker build -f docker/seed-actor.Dockerfile -t tfdrl-seed-actor .
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tfdrl
WORKDIR /src
COPY constraints.txt requirements-seed-actor.txt ./
RUN /opt/tfdrl/bin/pip install --constraint constraints.txt -r requirements-seed-actor.txt
COPY setup.py pyproject.toml LICENSE ./
COPY docker/make_certificates.sh docker/
COPY tfdrl tfdrl
COPY binaries binaries
COPY gin gin
RUN mkdir policies && touch README.md \
 && /opt/tfdrl/bin/pip install --no-deps . \
 && /opt/tfdrl/bin/pip uninstall --yes pip setuptools \
 && find /opt/tfdrl -name tests -type d -prune -exec rm -r {} +

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="tfdrl-seed-actor" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Distributed deep reinforcement learning: SEED RL's actor, without TensorFlow"
COPY --from=build /opt/tfdrl /opt/tfdrl
RUN groupadd --gid 1000 tfdrl && useradd --uid 1000 --gid 1000 --no-create-home tfdrl \
 && mkdir -p /run/tfdrl && chown tfdrl:tfdrl /run/tfdrl
ENV PATH=/opt/tfdrl/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 1000:1000
WORKDIR /run/tfdrl
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["tfdrl-health"]
ENTRYPOINT ["python", "-m", "tfdrl.binaries.seed_actor"]
CMD ["--help"]
