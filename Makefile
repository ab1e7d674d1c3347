# Every target sets up what it needs in .venv; a second call of `make setup` does nothing.
BIN := .venv/bin
READY := .venv/ready
LINKED := build/linked
ROOMS := training export app
WORKERS ?= 2
MAKEFLAGS += --no-print-directory

.PHONY: help setup demo test check bench browser linked lock clean

help:
	@echo "make demo    look at photos with the bundled encoders and write two pictures"
	@echo "make test    make check, then the tests (make test ARGS='-k masks' for some of them)"
	@echo "make bench   side by side with timm, transformers and lightly (DATA=imagenette/; ARGS=load for one of them)"
	@echo "make check   ruff, mypy and import-linter"
	@echo "make setup   .venv with the project, all extras and the tools, pinned by constraints.txt"
	@echo "make lock    pin everything anew in constraints.txt"
	@echo "make clean   remove what the other targets made; .venv stays"

setup: $(READY)
	@:

$(READY): pyproject.toml constraints.txt
	@.ci/venv
	@echo "Installing ssl-zoo with PyTorch and everything else into .venv (some 3 GB the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt \
		--build-constraints constraints.txt --editable '.[all]' --group dev
	@touch $@

demo: setup
	@$(BIN)/zoo demo

test: check browser
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# What the tests of the app and of exported pages drive.
browser:
	@.ci/browser

bench: setup
	@$(BIN)/python tests/bench $(ARGS) --data "$(DATA)"

check: setup linked
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet --output-format concise .
	@cd $(LINKED) && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache
	@cd $(LINKED) && ../../$(BIN)/lint-imports --config ../../pyproject.toml --cache-dir ../../.import_linter_cache --no-logo

# zoo/ with the rooms inside it, as the wheel lays them: mypy and import-linter follow folders, not zoo.__path__.
linked:
	@rm -rf $(LINKED) && mkdir -p $(LINKED)/zoo
	@ln -s "$(CURDIR)"/zoo/* $(LINKED)/zoo/
	@for room in $(ROOMS); do \
		if [ -f $$room/__init__.py ]; then ln -s "$(CURDIR)/$$room" $(LINKED)/zoo/; fi; done

lock: setup
	@$(BIN)/uv pip compile --quiet --universal --upgrade --all-extras --group dev \
		--no-header --no-annotate pyproject.toml --output-file constraints.txt

clean:
	@rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(wildcard zoo tests $(ROOMS)) -name __pycache__ -prune -exec rm -rf {} +
