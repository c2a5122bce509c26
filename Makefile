# Set-up on a fresh machine: `make demo` and `make test` need Python 3.11 and make, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN = $(VENV)/bin/python
TWO_AT_A_TIME = -n 2 --dist loadfile

# Run once more with every annotated shape checked, and ranks not promoted (tests/shapes.py).
SHAPES = $(addprefix tests/test_,mathematics.py estimators.py gauss_newton.py stacked.py text_tower.py vit.py probing.py texts.py \
	scores.py encoding.py clients.py siglip.py)

.PHONY: demo test test-slow test-torch test-ray test-clients test-oldest test-newest bench bench-gpu wheels docs clean

demo: $(VENV)/.installed
	$(VENV)/bin/craft-jax tune --config=demo

test: $(VENV)/.installed-test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest $(TWO_AT_A_TIME)

test-slow: $(VENV)/.installed-test
	$(RUN) -m pytest -m slow $(TWO_AT_A_TIME)
	CRAFT_JAX_SHAPES=1 $(RUN) -m pytest $(TWO_AT_A_TIME) $(SHAPES)

# Parity with PyTorch, for which it takes the version that the checks were made with; and with SigLIP's public tokenizer.
test-torch: $(VENV)/.installed-test
	$(RUN) -m pip install --quiet --disable-pip-version-check torch==2.13.0 'sentencepiece>=0.2,<0.3' 'protobuf>=4'
	$(RUN) -m pytest tests/test_resnet.py tests/test_convert_openai.py tests/test_siglip.py

# Labelling and sweeps on Ray: a cluster of two nodes on this machine, whose actors are killed.
test-ray: $(VENV)/.installed-test
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	$(RUN) -m pytest -m 'slow or not slow' -k 'not submitit' tests/test_labelling.py tests/test_on_ray.py tests/test_engines.py

# Clients in processes of their own over Flower, which it installs.
test-clients: $(VENV)/.installed-test
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[clients]'
	$(RUN) -m pytest -m 'slow or not slow' tests/test_flower.py

# The default tests, or some, on the lowest versions that setup.cfg admits; and on Python 3.13, or 3.12, where one is at hand,
# with the newest versions, each time anew, and transformers 5, which the tests' own extra holds back.
SOME ?=
NEWEST ?= $(shell for python in python3.13 python3.12 "$$(pyenv root 2>/dev/null)"/versions/3.13*/bin/python $(PYTHON); do \
	$$python --version >/dev/null 2>&1 && echo $$python && break; done)
test-oldest:
	$(PYTHON) tests/oldest.py > .oldest.txt
	PIP_CONSTRAINT=$(CURDIR)/.oldest.txt $(MAKE) .venv-oldest/.installed-test VENV=.venv-oldest
	.venv-oldest/bin/python -m pytest $(TWO_AT_A_TIME) $(SOME)

test-newest:
	rm -rf .venv-newest
	$(MAKE) .venv-newest/.installed-test VENV=.venv-newest PYTHON=$(NEWEST)
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'transformers>=5,<6' 'huggingface_hub<3'
	.venv-newest/bin/python -m pytest $(TWO_AT_A_TIME) $(SOME)

bench: $(VENV)/.installed
	$(RUN) -m benchmarks.speed

# On a machine with one GPU, its own jax and no network: carry .whl/ there, which `make wheels` fills, and take its python.
GPU_PYTHON ?= python3
bench-gpu:
	$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target build/wheels .whl/*.whl
	PYTHONPATH=build/wheels $(GPU_PYTHON) -m benchmarks.gpu

wheels: $(VENV)/.installed
	$(RUN) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --dest .whl \
		contextlib2 ml_collections tenacity

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

$(RUN):
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .oldest.txt .whl runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
