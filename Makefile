# make quickstart   set up, then train the embedded default on this machine
# make test         set up, then run the tests
#
# TORCH says which torch to install; where it comes from is pip's own configuration. Any build from
# 2.11 on will do, a CPU build included:
#     make quickstart TORCH=torch==2.12.1

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
ARGS ?=

BIN := $(VENV)/bin

.PHONY: quickstart test test-slow docs clean

quickstart: $(VENV)/installed
	$(BIN)/finqa-sft train quickstart output.overwrite=true $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow" -n auto $(ARGS)

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

docs: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/mkdocs build --strict $(ARGS)

# torch comes first and alone: with it in place, the packages that need it fetch no other build.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf $(VENV) build dist site
