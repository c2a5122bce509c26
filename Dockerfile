# craft_jax in a container, for CPU, GPU or TPU:
#
#   docker build --tag=craft_jax:cpu .
#   docker build --tag=craft_jax:gpu --build-arg=JAX='jax[cuda12]' .
#   docker build --tag=craft_jax:tpu --build-arg=JAX='jax[tpu]' .
#   docker run --rm --gpus=all --volume="$PWD/runs:/craft/runs" craft_jax:gpu tune --config=demo
#
# The NVIDIA driver comes from the host, CUDA from JAX's own packages.
FROM python:3.11-slim

# An init, since no signal that it does not handle ends process 1: JAX's abort (134) would end with another status.
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*

ARG JAX=jax
WORKDIR /craft

# Dependencies first, so that a change of the sources does not install them again.
COPY setup.cfg pyproject.toml README.md LICENSE ./
RUN mkdir craft_jax && touch craft_jax/__init__.py && pip install --no-cache-dir --editable . "$JAX"

COPY craft_jax craft_jax
COPY configs configs
COPY launch launch

# So that a run as another user (--user) can keep compiled programs.
ENV XDG_CACHE_HOME=/tmp/cache PYTHONUNBUFFERED=1
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "craft-jax"]
