"""The triples of prediction records as rows of a table, and as CSV for spreadsheets."""

from collections.abc import Iterable, Iterator

from ..prediction_record import PredictionRecord, marked_by, marked_sentences
from ..utils.spreadsheet import csv_rows

COLUMNS = (
    *("document", "head", "head_type", "relation", "relation_name", "tail", "tail_type", "score", "probability"),
    *("marked_by", "sentences"),
)


def triple_rows(record: PredictionRecord) -> Iterator[dict[str, str | int | float | None]]:
    """
    A row for each triple of a record.

    Args:
        record ([`~modeling_comm.prediction_record.PredictionRecord`]): of the pipeline or of `comm-docre predict`.

    Yields:
        `dict` with the keys [`COLUMNS`]. `document` is the record's id, or else its title; `probability` is None where the record
        has none; `sentences` are the texts of the evidence, or else of the explanation, heaviest first, separated by ` | `, and
        `marked_by` says which: `"evidence"`, `"attention"`, or None where there are none.

    Example:

    ```python
    >>> import pandas
    >>> table = pandas.DataFrame([row for record in records for row in triple_rows(record)])
    ```
    """
    entities = record["entities"]
    for triple in record["triples"]:
        head, tail = entities[triple["head"]], entities[triple["tail"]]
        sentences = [record["text"][slice(*record["sentences"][number])] for number in marked_sentences(triple)]
        yield {
            "document": record.get("id", record["title"]),
            "head": head["name"],
            "head_type": head["type"],
            "relation": triple["relation"],
            "relation_name": triple["relation_name"],
            "tail": tail["name"],
            "tail_type": tail["type"],
            "score": triple["score"],
            "probability": triple.get("probability"),
            "marked_by": marked_by(triple),
            "sentences": " | ".join(sentences),
        }


def csv_lines(records: Iterable[PredictionRecord]) -> bytes:
    """The triples of some records as rows of a CSV file, see [`~modeling_comm.utils.spreadsheet.csv_rows`]."""
    return csv_rows(COLUMNS, (row for record in records for row in triple_rows(record)))


def refuse_csv(line: str, source: str) -> None:
    """
    Says what is wrong with CSV where JSON lines are wanted.

    Args:
        line (`str`): the first one of a file.
        source (`str`): the file's name, for the message.

    Raises:
        ValueError: the line is the head of what [`csv_lines`] writes.
    """
    if line.startswith(",".join(COLUMNS[:4])):  # earlier versions had fewer behind them
        expected = "JSON lines, which `predict` writes with --output_format jsonl and `export --format csv` makes such a table of"
        raise ValueError(f"{source}: found CSV, which is for spreadsheets; expected {expected}")
