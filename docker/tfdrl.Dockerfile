# Every role with TensorFlow: learner, replay, parameter server, coordinator, worker, evaluator, actor.
#
#   docker build -f docker/tfdrl.Dockerfile -t tfdrl .
#   docker build -f docker/tfdrl.Dockerfile -t tfdrl-gpu --build-arg 'TENSORFLOW=tensorflow[and-cuda]' .
#
# Nothing here needs BuildKit: podman and buildah build it as well.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ARG TENSORFLOW=tensorflow
ARG EXTRAS=atari
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tfdrl
WORKDIR /src
# First what tfdrl depends on, which changes seldom, by a tfdrl that is empty.
COPY setup.py pyproject.toml constraints.txt requirements-seed-actor.txt requirements-track.txt LICENSE ./
COPY docker/make_certificates.sh docker/
COPY tfdrl/__init__.py tfdrl/
RUN mkdir binaries gin policies && touch README.md \
 && /opt/tfdrl/bin/pip install --constraint constraints.txt "${TENSORFLOW}" ".[${EXTRAS}]"
COPY tfdrl tfdrl
COPY binaries binaries
COPY gin gin
COPY policies policies
RUN /opt/tfdrl/bin/pip install --no-deps --force-reinstall . \
 && /opt/tfdrl/bin/pip check \
 && /opt/tfdrl/bin/tensorboard --version \
 && /opt/tfdrl/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="tfdrl" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Distributed deep reinforcement learning: every role with TensorFlow"
COPY --from=build /opt/tfdrl /opt/tfdrl
# The root may be read-only: /run/tfdrl is the run's, /tmp is for all else.
RUN groupadd --gid 1000 tfdrl && useradd --uid 1000 --gid 1000 --no-create-home tfdrl \
 && mkdir -p /run/tfdrl && chown tfdrl:tfdrl /run/tfdrl
# LD_LIBRARY_PATH: where Google's Kubernetes mounts the NVIDIA driver; elsewhere nothing is there.
ENV PATH=/opt/tfdrl/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib LD_LIBRARY_PATH=/usr/local/nvidia/lib64
USER 1000:1000
WORKDIR /run/tfdrl
EXPOSE 8000 9000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 CMD ["tfdrl-health"]
# Python itself is process 1 and is told of SIGTERM; `--entrypoint tfdrl-train` for the rest.
ENTRYPOINT ["python", "-m", "tfdrl.launch.role"]
CMD ["--help"]
