# Everything runs in .venv, which is made on the first call and again when what it depends on changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Small networks are fastest on one thread, and only there are results reproducible bit for bit
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test lint type format doc bench figures lowest clean

help:
	@echo "make install   .venv with the tested versions"
	@echo "make demo      train three representatives on Resource Gathering; results in runs/demo"
	@echo "make test      all tests"
	@echo "make lowest    a part of the tests with the lowest versions that setup.py allows, in .venv-lowest"
	@echo "make lint      ruff and black, checking only"
	@echo "make type      mypy"
	@echo "make format    ruff and black, fixing"
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

# Not a part of "make test": torch of another version is large
$(VENV)-lowest/.installed: setup.py constraints-lowest.txt sb3_rmdp/version.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[plots,export]" pytest hypothesis
	touch $@

lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest tests/represented_ppo/test_is_ppo.py tests/represented_ppo/test_run.py \
		tests/represented_ppo/test_save_load.py tests/common/test_evaluation.py tests/common/test_welfare.py \
		tests/common/test_assignments.py tests/service/test_assign.py tests/service/test_recording.py tests/test_lowest.py "tests/test_docs.py::test_page_runs[README.md]"

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
	rm -rf $(VENV) $(VENV)-lowest .mypy_cache .pytest_cache .ruff_cache docs/_build *.egg-info
