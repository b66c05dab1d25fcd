# Everything runs in .venv, which is made on the first call and again when what it depends on changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Small networks are fastest on one thread, and only there are results reproducible bit for bit
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test lint type format doc bench figures clean

help:
	@echo "make install   .venv with the tested versions"
	@echo "make demo      train three representatives on Resource Gathering; results in runs/demo"
	@echo "make test      all tests"
	@echo "make lint      ruff and black, checking only"
	@echo "make type      mypy"
	@echo "make format    ruff and black, mending"
	@echo "make doc       documentation, docs/_build/html/index.html"
	@echo "make bench     time and memory of updates against stock PPO, ten minutes; measured welfare"
	@echo "make figures   the paper's figures and tables anew, from the results that are there"
	@echo "make clean     remove .venv and caches"

install: $(STAMP)

$(STAMP): setup.py constraints.txt sb3_rmdp/version.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[plots,zoo,sweep,export,dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/resource_gathering.py --out runs/demo

# EnvPool is large, and of use to few: only tests install it by themselves
$(VENV)/.envpool: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[envpool]"
	touch $@

test: $(STAMP) $(VENV)/.envpool
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/black --check --quiet .

type: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/black --quiet .

doc: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

bench: $(STAMP)
	$(BIN)/python -m benchmarks.performance
	$(BIN)/python benchmarks/welfare.py --summary

figures: $(STAMP)
	$(BIN)/python -m benchmarks.figures

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache docs/_build *.egg-info
