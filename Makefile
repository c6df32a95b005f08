PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKED := src tests examples benchmarks docs setup.py

.PHONY: demo test quality style docs

demo: $(VENV)/demo.stamp
	$(BIN)/diffusers-r1 demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	$(MAKE) quality

quality: $(VENV)/test.stamp
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

style: $(VENV)/test.stamp
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site: site/index.html"

# A stamp says that the environment has what a target needs; it is made again when the requirements change.
$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.py | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/test.stamp: setup.py | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install -e ".[test,train,eval,app,docs,quality,ray]"
	touch $@

$(VENV)/docs.stamp: setup.py | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install -e ".[docs]"
	touch $@
