# Everything a newcomer needs: `make demo` to see it run, `make test` to check it.
# The first Python of the list that really runs and is 3.11 or newer makes the virtual environment.
CANDIDATES := python3.13 python3.12 python3.11 python3
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config.yml
ARGS ?=
SECONDS ?= 10
unexport PYTHONDONTWRITEBYTECODE  # images like to set it; each worker and each started fleet would compile everything anew

.PHONY: run demo test tools export coverage style check format status bench regret profile clean constraints

$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (Debian: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

run: $(VENV)/.runtime  ## start the fleet with config.yml
	@$(BIN)/fleet serve --config $(CONFIG)

demo: $(VENV)/.runtime  ## three simulated servers, the fleet, a trickle of traffic
	@$(BIN)/fleet serve --demo

tests/js/node_modules: tests/js/package.json  # the JavaScript client's tests run where Node is installed
	@if command -v npm >/dev/null 2>&1; then cd tests/js && npm install --silent --no-package-lock --no-audit --no-fund; fi
	@if test -d $@; then touch $@; fi

tools:  ## promtool and prometheus in .tools/, without root, if they are not on PATH; where that fails their tests are skipped
	@sh tests/tools.sh

export: $(VENV)/.runtime  ## renew the files in deploy/ that the code makes
	$(BIN)/fleet export grafana deploy/grafana --force
	$(BIN)/fleet export alerts deploy/prometheus/fleet-alerts.yml --config /dev/null --force
	$(BIN)/fleet export prometheus deploy/prometheus/prometheus.yml --config /dev/null --force

# By file, on all cores and one more; the files with slow tests are handed out first, which ordering by size would undo. mypy is one of the tests.
PYTEST = $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: style tools tests/js/node_modules  ## everything CI runs; ARGS="-p randomly" shuffles, ARGS="-n 0" takes one core
	$(PYTEST) $(ARGS)

coverage: $(VENV)/.test  ## the same tests, counting which branches they take; slower
	$(PYTEST) --cov --cov-report=term $(ARGS)

style: $(VENV)/.test  # what takes a second
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: style  ## format, lint, types
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.bench/%: bench/native/%.c bench/native/*.h
	@command -v $(CC) >/dev/null || { echo "a C compiler is needed: apt-get install gcc libc6-dev"; exit 1; }
	@mkdir -p .bench
	$(CC) -O2 -Wall -Wextra -o $@ $<

bench: $(VENV)/.runtime .bench/backend .bench/load  ## the fleet against other proxies; ARGS="--quick" for a look
	$(BIN)/python -m bench.run $(ARGS)

regret: $(VENV)/.runtime  ## routing policies against an oracle, in simulated time: bench/regret/results/
	$(BIN)/python -m bench.regret --out bench/regret/results $(ARGS)

profile: $(VENV)/.runtime .bench/backend .bench/load  ## flame graph of the fleet under load: .bench/profile.svg
	$(BIN)/python -m bench.profile $(SECONDS)

status: $(VENV)/.runtime  ## what runs on our ports, and is it healthy
	$(BIN)/fleet status --config $(CONFIG)

constraints: $(VENV)/.test  ## refresh the pinned versions (names and versions only)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet --all-extras pyproject.toml --strip-extras -o constraints.txt

clean:
	rm -rf $(VENV) .bench .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .coverage dist build *.egg-info tests/js/node_modules
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
