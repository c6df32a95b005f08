PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKED := src tests examples benchmarks docs tools setup.py
ALL := test,train,eval,app,mcp,serve,docs,quality,ray
INSTALL := $(BIN)/python -m pip install -c constraints.txt
TESTS := -m pytest --numprocesses 2 --dist loadfile
# Two files of tests at once, each on one thread: more threads than cores wait for each other.
test upgrade test-oldest: export OMP_NUM_THREADS := 1

.PHONY: demo test quality style docs dist upgrade test-oldest

demo: $(VENV)/demo.stamp
	$(BIN)/diffusers-r1 demo

test: $(VENV)/test.stamp
	$(BIN)/python $(TESTS)
	$(MAKE) quality

quality: $(VENV)/test.stamp
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/basedpyright --pythonpath $(BIN)/python

style: $(VENV)/test.stamp
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site: site/index.html"

# What an index takes: a wheel and the sources.
dist: $(VENV)/test.stamp
	$(BIN)/python -m build --outdir dist

# The newest versions, in an environment of their own. Where the tests pass with them, constraints.txt says so.
upgrade: NEWEST := build/newest
upgrade:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install -e ".[$(ALL)]"
	$(NEWEST)/bin/python $(TESTS)
	$(NEWEST)/bin/python tools/constraints.py > build/constraints.txt
	mv build/constraints.txt constraints.txt

# The oldest versions that setup.py allows. What only the tests need may be new. Compiled as it is installed: a module that is
# compiled on the way may warn, and a warning fails a test.
test-oldest: OLDEST := build/oldest
test-oldest:
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install uv
	$(OLDEST)/bin/uv pip install --compile-bytecode --python $(OLDEST)/bin/python --resolution lowest-direct -e ".[train,eval,app,mcp,serve,constrained,quantize,languages,ray]"
	$(OLDEST)/bin/uv pip install --compile-bytecode --python $(OLDEST)/bin/python -e ".[test,docs]" "setuptools>=77"
	$(OLDEST)/bin/python $(TESTS)

# A stamp says that the environment has what a target needs; it is made again when the requirements change.
$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.py constraints.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -e .
	touch $@

$(VENV)/test.stamp: setup.py constraints.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -e ".[$(ALL)]"
	touch $@

$(VENV)/docs.stamp: setup.py constraints.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -e ".[docs]"
	touch $@
