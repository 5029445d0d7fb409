"""Predicted triples as one self-contained HTML page: text, table and graph, to read what a model found and where it looked."""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..candidate_pairs import ALL_PAIRS, CandidatePairs
from ..documents import Document
from ..prediction_record import PredictionRecord, parse_record
from .judged_triples import GoldFacts

logger = logging.getLogger(__name__)

_PARTS = Path(__file__).with_name("page")
_STYLES = ("page.css",)
_SCRIPTS = ("layout.js", "parts.js", "graph.js", "table.js", "page.js")


def render_html(
    records: Iterable[PredictionRecord],
    title: str = "Relations",
    truth: Iterable[Document] = (),
    relation_names: Mapping[str, str] | None = None,
    candidates: CandidatePairs = ALL_PAIRS,
    warn: Callable[[str], None] | None = None,
) -> str:
    """
    One HTML page that shows documents with their triples. It needs no network and no other file, and allows itself none: its
    Content-Security-Policy lets nothing run but its own script. The same records give the same page.

    Args:
        records (`Iterable[PredictionRecord]`): what [`DocumentRelationExtractionPipeline`] returns or `comm-docre predict`
            wrote, one per document. They are checked.
        title (`str`, defaults to `"Relations"`): the page's title.
        truth (`Iterable[dict]`, *optional*): labelled documents in DocRED's format, each with a title of its own. A record with
            the title of one of them shows which of its triples are right and which gold facts were missed. Facts of a relation
            that any record calls `symmetric` are the same in both directions.
        relation_names (`Mapping[str, str]`, *optional*): readable names by id, for gold facts of relations that were not
            predicted. Triples that have a name for an id are read as that id.
        candidates ([`~modeling_comm.candidate_pairs.CandidatePairs`], *optional*): the data set's, which say what facts are the
            same: those of inverse relations, which records do not tell.
        warn (`Callable[[str], None]`, *optional*): is given what does not fit together, in words: records without truth, truth
            without a record, and relations that the truth does not have. By default it is logged.

    Returns:
        `str`: the page, to be written as UTF-8.

    Raises:
        DocumentError: a record is malformed, has the title of another one and of a document in `truth`, or has other entities
            than that document (a [`~modeling_comm.evaluation.scoring.PredictionError`]); the message names the record and the
            field. Or a document in `truth` is malformed or has the title of another one; `source` is then `"truth"`.

    Example:

    ```python
    >>> from modeling_comm.reporting.html_page import render_html
    >>> record = {"version": 1, "title": "", "text": "", "sentences": [], "entities": [], "triples": [], "lost": {}}
    >>> page = render_html([record])
    >>> page.startswith("<!DOCTYPE html>")
    True

    ```
    """
    gold = GoldFacts(truth, relation_names, candidates)
    documents = [_page_data(parse_record(record, index)) for index, record in enumerate(records)]
    if gold:
        for warning in gold.judge(documents):
            (warn or logger.warning)(warning)
    return fill_page("page.html", _STYLES, _SCRIPTS, {"title": title, "documents": documents})


def fill_page(template: str, styles: Iterable[str], scripts: Iterable[str], data: dict[str, Any]) -> str:
    """
    A page of parts that lie in the folder `page`: its template with style, script and data in it, and its policy with the hashes
    of these.

    Args:
        template (`str`): name of the template.
        styles (`Iterable[str]`), scripts (`Iterable[str]`): names of style sheets and of scripts, which have one scope.
        data (`dict`): what the scripts show, as JSON.
    """
    style, script, page = "".join(map(_part, styles)), "".join(map(_part, scripts)), _part(template)
    page = page.replace("{{style_hash}}", _hash(style)).replace("{{script_hash}}", _hash(script))
    page = page.replace("{{style}}", style).replace("{{script}}", script)
    # The data comes last, so that nothing in it is taken for a place to fill.
    return page.replace("{{data}}", _embed(data))


def _part(name):
    return (_PARTS / name).read_text(encoding="utf-8")


def _hash(content):
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _embed(value):
    """JSON for use between script tags: without `<` nothing in it can end the element or open a comment."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def utf16_offsets(text: str) -> list[int]:
    """Of each character of a text, and of its end, the offset in UTF-16 code units, which is how JavaScript counts."""
    return list(accumulate((1 + (character > "\uffff") for character in text), initial=0))


def _page_data(record: PredictionRecord):
    """The data of a record for the page."""
    units = utf16_offsets(record["text"])
    return {
        "id": str(record.get("id", "")),
        "title": record["title"],
        "text": record["text"],
        "sentences": [[units[start], units[end]] for start, end in record["sentences"]],
        "entities": [
            {
                "name": entity["name"],
                "type": entity["type"],
                "mentions": [[units[mention["start"]], units[mention["end"]]] for mention in entity["mentions"]],
            }
            for entity in record["entities"]
        ],
        "triples": [
            {
                "head": triple["head"],
                "tail": triple["tail"],
                "relation": triple["relation"],
                "name": triple["relation_name"],
                "score": triple["score"],
                "explanation": [[sentence["sentence"], sentence["weight"]] for sentence in triple["explanation"]],
                **{name: triple[name] for name in ("evidence", "symmetric") if name in triple},
            }
            for triple in record["triples"]
        ],
        "lost": record["lost"],
    }
