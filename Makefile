# `make demo` and `make test` need nothing prepared: scripts/setup.sh makes .venv and looks for the system libraries.
PYTHON := .venv/bin/python
SETUP := pyproject.toml reportgen/__init__.py scripts/setup.sh

.PHONY: demo test lint fingerprints clean

demo: .venv/.demo
	$(PYTHON) -m reportgen demo --directory samples

test: .venv/.test
	$(PYTHON) -m pytest

lint: .venv/.lint
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

fingerprints: .venv/.test
	$(PYTHON) scripts/build_fingerprints.py

# reports, caches of tools and builds; .venv and the stored tensors stay
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	rm -rf samples/images samples/model.pt samples/truth.csv samples/report.html samples/report.pdf samples/report.json

.venv/.demo: $(SETUP)
	bash scripts/setup.sh demo
	touch $@

.venv/.test: $(SETUP)
	bash scripts/setup.sh test
	touch $@

.venv/.lint: $(SETUP)
	bash scripts/setup.sh lint
	touch $@
