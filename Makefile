# `make run` and `make test` are all a new machine needs: each installs first.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed
MODEL := models/SmolLM2-135M-Instruct/config.json

.PHONY: install run test test-slow test-cluster check format golden clean

install: $(STAMP)

$(STAMP): tools/install.sh tools/dev.lock templates/axoc_templates/locks/cpu.lock templates/axoc_templates/locks/cpu-export.lock pyproject.toml runtime/pyproject.toml
	./tools/install.sh
	touch $(STAMP)

$(MODEL): examples/fetch_smollm2.py | $(STAMP)
	$(PY) examples/fetch_smollm2.py

# The main job: plan the quickstart, explain it, write the bundle, launch it on two processes.
run: $(STAMP) $(MODEL)
	.venv/bin/axoc plan specs/quickstart.yaml --out bundle
	AXOC_PYTHON=$(PY) ./bundle/launch.sh --no-install

check: $(STAMP)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@if command -v shellcheck >/dev/null; then shellcheck -x tools/*.sh .ci/run; else echo "shellcheck is not installed: skipped"; fi

test: $(STAMP) check
	$(PY) -m pytest -m "not slow" -n auto --dist worksteal

# Two tests at a time. End-to-end tests of a file share the run that they begin with; tests/e2e/conftest.py puts long files first.
test-slow: $(STAMP) $(MODEL)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow -n 2 --dist worksteal --ignore tests/e2e --ignore tests/cluster
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow tests/e2e -n 2 --dist loadfile --no-loadscope-reorder

# Hosts made of network namespaces (root, iproute2), a Slurm of four nodes (slurmctld, slurmd), a Ray, and the other engines' own
# checks of every golden: one test after another.
test-cluster: $(STAMP) $(MODEL)
	./tools/install_engines.sh
	OMP_NUM_THREADS=1 $(PY) -m pytest -m cluster tests/cluster

# Rewrites the goldens and shows what changed.
golden: $(STAMP)
	$(PY) tools/golden.py
	$(PY) tools/picture.py
	$(PY) tools/spec_doc.py
	$(PY) tools/rules_doc.py
	$(PY) tools/compatibility_doc.py
	.venv/bin/axoc schema > specs/spec.schema.json
	git --no-pager diff --stat -- golden docs
	git --no-pager diff -- golden | head -200

format: $(STAMP)
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf .venv bundle axoc-output models
