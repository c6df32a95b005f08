PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKED := src tests examples benchmarks docs setup.py
API := plan pipelines.pipeline_imageedit_r1 pipelines.pipeline_output prompts planning editors bundles images tags \
	matching scenes records endpoints rewards data grammar vision pipelines.selection

.PHONY: demo test quality style docs

demo: $(VENV)/demo.stamp
	$(BIN)/diffusers-r1 demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest
	$(MAKE) quality

quality: $(VENV)/test.stamp
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

style: $(VENV)/test.stamp
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

docs: $(VENV)/docs.stamp
	$(BIN)/pdoc --docformat google --output-directory site $(addprefix diffusers_r1.,$(API))

# A stamp says that the environment has what a target needs; it is made again when the requirements change.
$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.py | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/test.stamp: setup.py | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install -e ".[test,train,eval,quality]"
	touch $@

$(VENV)/docs.stamp: setup.py | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install -e ".[docs]"
	touch $@
