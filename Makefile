# Every target does the set-up it needs. `make bench` and `make test` are all that a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RESULTS ?= results
INSTALL := pip install --quiet --constraint constraints.txt --editable '.[dev]'

unexport PYTHONDONTWRITEBYTECODE  # uv compiles nothing, and each of many processes would compile it all anew

.PHONY: bench test test-quick test-slow smoke lint docs report perf soak doctor clean
.DEFAULT_GOAL := bench

# By uv, in a seventh of pip's time; but it reads none of pip's settings, so that behind a mirror pip does it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv $(INSTALL) --python $(BIN)/python || $(BIN)/python -m $(INSTALL)
	@touch $@

bench: $(READY)  ## train and measure: the demo without a GPU, gpu.toml with one; SUITE= overrides
	@$(BIN)/python benchmarks/choose.py $(SUITE) && \
	$(BIN)/emobench bench $$($(BIN)/python benchmarks/choose.py --quiet $(SUITE)) --results $(RESULTS) $(ARGS)

smoke: $(READY)  ## the whole way in about a minute
	$(BIN)/emobench bench smoke --results $(RESULTS) $(ARGS)

test: $(READY)  ## all tests but the long ones
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-quick: $(READY)  ## those that neither train nor take seconds, for the working loop
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "not slow and not long" $(ARGS)

test-slow: $(READY)  ## those that take minutes: nodes that go away, drivers that are killed, large models on two processes
	$(BIN)/python -m pytest -q -m long $(ARGS)

lint: $(READY)  ## ruff, mypy, and hadolint for the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto
	$(BIN)/hadolint --no-color Dockerfile

docs: $(READY)  ## the documentation as a site, build/docs/index.html; a link that leads nowhere is an error
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -d build/doctrees docs build/docs

report: $(READY)  ## write the boards of SUITE again from its stored results
	$(BIN)/emobench report $(or $(SUITE),demo) --results $(RESULTS)

perf: $(READY)  ## measure speed and write results/perf/
	$(BIN)/python benchmarks/perf/run.py --results $(RESULTS)/perf $(ARGS)
	$(BIN)/python benchmarks/perf/scale.py --results $(RESULTS)/perf

soak: $(READY)  ## two hours of small cells to which something happens every 20 s; writes results/checks/soak.md
	$(BIN)/python benchmarks/soak.py $(ARGS)

doctor: $(READY)
	$(BIN)/emobench doctor

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
