"""Ray Data: `examples/ray_predict.py` with two workers writes what one process predicts, in the order of the input."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT, random_document, tiny_model, tiny_system
from transformers import pipeline

pytest.importorskip("ray", reason='needs Ray: pip install -e ".[ray]"')

import pyarrow as pa
import pyarrow.parquet as pq

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray") / "model"
    config, processor = tiny_system("bert", evidence_weight=0.1, averaged_layers=2)
    processor = processor.with_settings(evidence_threshold=0.1, symmetric=["P27"], rules=["P17(x, y) => P131(x, y)"])
    tiny_model(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def documents():
    """Each with its id; one has no entities."""
    documents = [
        {"id": f"document {seed}", **random_document(seed % 5, 20 + 9 * (seed % 7), seed=seed, labels=False)}
        for seed in range(30)
    ]
    return [*documents, {"id": "text alone", "title": "Text", "text": "It says nothing of its entities."}]


def rows_of(folder):
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def given(part):
    """A part of a row without the columns that its record does not have."""
    return {name: value for name, value in part.items() if value is not None}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_two_workers_write_what_one_process_predicts(model, documents, tmp_path, form):
    source, output = tmp_path / f"in.{form}", tmp_path / "out"
    if form == "jsonl":
        lines = [*map(json.dumps, documents), "no JSON"]
        source.write_text("\n".join(lines), encoding="utf-8")
    else:
        columns = {name: None for document in documents for name in document}
        pq.write_table(pa.Table.from_pylist([{**columns, **document} for document in documents]), source)
    command = ["examples/ray_predict.py", "--model", model, "--input", source, "--format", form, "--output", output]
    finished = subprocess.run(
        [sys.executable, *map(str, command), "--workers", "2"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]
    found = rows_of(output)
    broken = [None] if form == "jsonl" else []
    assert [row["id"] for row in found] == [document["id"] for document in documents] + broken
    assert [row["id"] for row in found if row["error"]] == ["text alone", *broken]
    assert not any(row["triples"] for row in found if row["error"])
    extract = pipeline("document-relation-extraction", model=str(model))
    inputs = [{key: value for key, value in document.items() if key != "id"} for document in documents[:-1]]
    expected = extract(inputs)
    assert sum(len(record["triples"]) for record in expected) > 50
    for row, record in zip(found, expected, strict=False):
        assert dict(row.pop("lost")) == record.pop("lost")
        triples, wanted = map(given, row.pop("triples")), record.pop("triples")
        row["entities"] = list(map(given, row["entities"]))
        assert row == {**record, "id": row["id"], "error": None}
        for triple, one in zip(triples, wanted, strict=True):
            assert triple.pop("score") == pytest.approx(one.pop("score"), abs=1e-4)
            if "derived" in triple:
                triple["derived"] = json.loads(triple["derived"])
            sentences = [[part["sentence"] for part in each.pop("explanation")] for each in (triple, one)]
            assert sentences[0] == sentences[1] and triple == one
