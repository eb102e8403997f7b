# Nothing needs to be prepared: scripts/setup.sh makes .venv and looks for the system libraries; once done, it ends at once.
# not named PYTHON: that is the variable by which a user names the Python for a new .venv
BIN := .venv/bin

.PHONY: demo test lint fingerprints translations clean

demo:
	@bash scripts/setup.sh demo
	$(BIN)/reportgen demo --directory samples

test:
	@bash scripts/setup.sh test
	$(BIN)/python -m pytest

lint:
	@bash scripts/setup.sh lint
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

fingerprints:
	@bash scripts/setup.sh test
	$(BIN)/python scripts/build_fingerprints.py

translations:
	@bash scripts/setup.sh test
	$(BIN)/python scripts/translations.py

# reports, caches of tools and builds; .venv and the stored tensors stay
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	rm -rf samples/images samples/model.pt samples/truth.csv samples/report.html samples/report.pdf samples/report.json
	rm -f samples/.*.part
