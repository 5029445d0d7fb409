"""
Triples of a large corpus on the cores or GPUs of one machine or of a cluster, by Ray Data: pip install -e ".[ray]".

    python examples/ray_predict.py --model outputs/demo --input corpus --output triples --workers 8

Reads JSON lines, Parquet (a row is a document, its columns are the document's fields), or .txt files, and writes a folder of
Parquet, one row for each document. A document that cannot be predicted has its error in a column, and no triples.
"""

import argparse
import json
import os
from pathlib import Path

import pyarrow as pa
import ray

BATCH_SIZE = 8

_TEXT, _INDEX = pa.string(), pa.int32()
_MENTION = pa.struct([("start", _INDEX), ("end", _INDEX), ("sentence", _INDEX)])
_ENTITY = pa.struct([("name", _TEXT), ("type", _TEXT), ("mentions", pa.list_(_MENTION)), ("ids", pa.list_(_TEXT))])
_EXPLANATION = pa.struct([("sentence", _INDEX), ("weight", pa.float64())])
_TRIPLE = pa.struct(
    [
        ("head", _INDEX),
        ("tail", _INDEX),
        ("relation", _TEXT),
        ("relation_name", _TEXT),
        ("score", pa.float64()),
        ("explanation", pa.list_(_EXPLANATION)),
        ("evidence", pa.list_(_INDEX)),
        ("probability", pa.float64()),
        ("symmetric", pa.bool_()),
        ("derived", _TEXT),  # JSON, because premises mix numbers and texts
    ]
)
# Named here, because Ray would infer another schema from a block whose documents all lack triples.
SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("error", _TEXT),
        ("version", _INDEX),
        ("title", _TEXT),
        ("text", _TEXT),
        ("sentences", pa.list_(pa.list_(_INDEX))),
        ("entities", pa.list_(_ENTITY)),
        ("triples", pa.list_(_TRIPLE)),
        ("lost", pa.map_(_TEXT, pa.int64())),
    ]
)


def read(form: str, path: str) -> ray.data.Dataset:
    """The documents of an input; a row is one."""
    if form == "parquet":
        return ray.data.read_parquet(path)
    if form == "jsonl":
        return ray.data.read_text(path)
    return ray.data.read_binary_files(path, include_paths=True, file_extensions=["txt"])


class Predictor:
    """What each worker runs: it loads the model once, then gets batches of rows."""

    def __init__(self, form: str, model: str, ner: str | None):
        from transformers import pipeline

        import modeling_comm  # noqa: F401  registers the pipeline
        from modeling_comm.commands.predict_models import load_ner

        self.form = form
        extractor = pipeline("document-relation-extraction", model=model)
        found_by = ner and load_ner(ner)
        self.extract = lambda documents: extractor(documents, ner=found_by, batch_size=BATCH_SIZE)

    def __call__(self, rows: pa.Table) -> pa.Table:
        from modeling_comm.commands.predict_batch import predict_batch

        items = [self._item(number, row) for number, row in enumerate(rows.to_pylist())]
        records, rejected = predict_batch(self.extract, items)
        records, errors = iter(records), {item.place: error for item, error in rejected}
        found = [
            {"id": item.id, "error": errors[item.place]} if item.place in errors else next(records) for item in items
        ]
        for row in found:
            row["lost"] = list(row.get("lost", {}).items())
            for triple in row.get("triples", ()):
                if "derived" in triple:
                    triple["derived"] = json.dumps(triple["derived"], ensure_ascii=False)
        return pa.Table.from_pylist(found, SCHEMA)

    def _item(self, number, row):
        """A row as what `comm-docre predict` predicts."""
        from modeling_comm.commands.predict_inputs import Item

        if self.form == "txt":
            name = Path(row["path"]).stem
            document = {"id": name, "title": name, "text": row["bytes"].decode("utf-8-sig", "replace")}
        elif self.form == "jsonl":
            try:
                document = json.loads(row["text"])
            except ValueError as error:
                return Item("row", number, row["text"], error=str(error))
            document = {"text": document} if isinstance(document, str) else document
        else:
            document = {name: value for name, value in row.items() if value is not None}
        if not isinstance(document, dict):
            return Item("row", number, row["text"], error=f"found {document!r:.50}, expected a text or an object")
        given = document.pop("id", None)
        return Item("row", number, "", document, id=str(document.get("title", "") if given is None else given))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", required=True, help="folder or Hub name of a COMM checkpoint")
    parser.add_argument("--input", required=True, help="file or folder, on a disk that all machines see")
    parser.add_argument("--format", choices=("jsonl", "parquet", "txt"), default="jsonl")
    parser.add_argument("--output", required=True, help="folder for the Parquet files")
    parser.add_argument("--ner", help="named-entity model for documents without entities")
    parser.add_argument("--workers", type=int, default=2, help="one for each core, or for each GPU (%(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker (%(default)s)")
    arguments = parser.parse_args()
    if "RAY_ADDRESS" not in os.environ:  # on this machine; a core more, for reading and writing
        ray.init(num_cpus=arguments.workers + 1)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    model = str(Path(arguments.model).absolute()) if Path(arguments.model).is_dir() else arguments.model
    rows = read(arguments.format, str(Path(arguments.input).absolute()))
    # A file is one block, and a block goes to one worker.
    rows = rows.repartition(target_num_rows_per_block=BATCH_SIZE)
    rows.map_batches(
        Predictor,
        fn_constructor_args=(arguments.format, model, arguments.ner),
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        batch_size=BATCH_SIZE,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=arguments.gpus,
    ).write_parquet(str(Path(arguments.output).absolute()))


if __name__ == "__main__":
    main()
