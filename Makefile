# `make demo` and `make test` need Python >= 3.11 and make, nothing else: each sets up what it runs.
# The set-up is a virtual environment in .venv, made again when pyproject.toml changes.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
DEMO_ARGS ?=

# Tests see what users have: of this environment what is named here, and nothing else. What begins with PIP_
# and the like is for pip to find its packages.
KEPT := PATH HOME LANG TMPDIR PYENV_ROOT SSL_CERT_FILE REQUESTS_CA_BUNDLE \
	$(filter PIP_% PYHRF_PARALLEL_% http_proxy https_proxy no_proxy,$(.VARIABLES))
SCRUBBED := env -i $(foreach name,$(KEPT),$(if $(filter undefined,$(origin $(name))),,$(name)="$$$(name)"))

# Tests wait for other processes most of the time: more of them run side by side than there are cores. Those that
# may not run beside one another have a mark, pytest.mark.xdist_group.
WORKERS ?= 4
SIDE_BY_SIDE = -n $(WORKERS) --dist loadgroup

.PHONY: demo quick test here cluster pyhrf27 faults check coverage docs bench other-pythons clean
demo: .venv/ready
	$(BIN)/python docs/examples/hrf_by_region.py --output demo-output $(DEMO_ARGS)
	$(BIN)/python docs/examples/treatment.py --output demo-output/treatment

# Units, examples in texts, and the contract in the modes that start no process for each task or job.
quick: .venv/ready
	$(SCRUBBED) $(BIN)/python -m pytest --quiet $(SIDE_BY_SIDE) tests/unit tests/contract pyhrf_parallel README.md docs \
		-k "not local_with_dumps and not remote_cluster"

# These do not need each other: make --jobs=2 --output-sync runs two at a time, the one that waits most first.
test: check docs cluster here other-pythons pyhrf27

# What needs neither a cluster nor pyhrf itself.
here: .venv/ready
	$(SCRUBBED) $(BIN)/python -m pytest --quiet $(SIDE_BY_SIDE) --ignore=tests/cluster --ignore=tests/pyhrf27

pyhrf27: .venv/ready
	$(SCRUBBED) $(BIN)/python -m pytest --quiet $(SIDE_BY_SIDE) tests/pyhrf27

# Each process of these has a cluster of its own.
cluster: .venv/ready
	$(SCRUBBED) $(BIN)/python -m pytest --quiet -n 2 --dist loadgroup tests/cluster

# Seeded; the same seed gives the same trials.
MINUTES ?= 10
SEED ?= 0
faults: .venv/ready
	$(SCRUBBED) $(BIN)/python -m tests.faults.campaign --minutes $(MINUTES) --seed $(SEED)

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

coverage: .venv/ready
	$(SCRUBBED) $(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report --skip-covered --show-missing

docs: .venv/ready
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

# As root, with sshd and Slurm installed, the rows of a cluster too.
bench: .venv/ready
	$(BIN)/python benchmarks/run.py

.venv/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group lint --group docs
	touch $@

# The suites of the other Pythons that this machine has: on PATH, or installed by pyenv.
# One of them gets the oldest dependencies, whose own deprecations are theirs, and a umask under which a group
# may write; the others a home with the configuration file that pyhrf writes by itself.
OTHERS := 3.11 3.12 3.13
OLDEST := 3.12
other-pythons: .venv/ready
	@for version in $(OTHERS); do \
		$(BIN)/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] == '$$version')" || continue; \
		for python in "python$$version" $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
			"$$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null || continue; \
			$(MAKE) --no-print-directory suite-$$version OTHER="$$python" || exit 1; break; \
		done; \
	done

suite-%:
	@echo "--- Python $* $(if $(filter $(OLDEST),$*),(the oldest versions of all dependencies))"
	@test .venv-$*/ready -nt pyproject.toml || { \
		"$(OTHER)" -m venv .venv-$* && .venv-$*/bin/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(if $(filter $(OLDEST),$*),$(BIN)/python tests/oldest.py,true) > .venv-$*/constraints.txt && \
		.venv-$*/bin/python -m pip install --quiet --constraint .venv-$*/constraints.txt --editable ".[all]" --group test && \
		touch .venv-$*/ready; }
	$(if $(filter $(OLDEST),$*),umask 002;) \
	$(SCRUBBED) $(if $(filter $(OLDEST),$*),,PYHRF_PARALLEL_TEST_HOME=pyhrf) \
	.venv-$*/bin/python -m pytest --quiet $(SIDE_BY_SIDE) tests/unit tests/contract \
		$(if $(filter $(OLDEST),$*),tests/treatments/test_roi_treatment.py tests/treatments/test_surfaces.py -o filterwarnings=default --disable-warnings)

clean:
	rm -rf .venv .venv-* build dist demo-output docs/_build
