"""A component of spaCy's pipelines: `nlp.add_pipe("comm_docre", config={"model": ...})`, then `doc._.relations`.

Importing this module registers the component and the extensions. spaCy finds it by itself where this package is installed (entry
point `spacy_factories`); a program that only reads documents which were saved with relations imports it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..utils.imports import of_extra

try:
    from spacy.language import Language
    from spacy.tokens import Doc, Span
    from spacy.util import raise_error
except ImportError as error:
    raise ImportError(f"the component needs 'spacy'{of_extra('text')}") from error
from transformers import pipeline

from ..configuration_comm import TASK
from ..formats.spacy_docs import RECORD
from ..pipeline_comm import LOOKAHEAD_BATCHES  # registers the task, too
from ..prediction_record import PredictionRecord
from ..settings import SettingError


@dataclass(frozen=True)
class SpacyEntity:
    """
    An entity of a document.

    Attributes:
        name (`str`): its name.
        type (`str`): its type, of DocRED's such as `"LOC"` where it is one of these.
        mentions (`list[Span]`): where it is mentioned. A mention that ends within a token is the whole token.
    """

    name: str
    type: str
    mentions: list[Span]


@dataclass(frozen=True)
class SpacyRelation:
    """
    A relation between two entities of a document.

    Attributes:
        head, tail (`SpacyEntity`): the entities.
        relation (`str`): the relation's id, such as `"P17"`.
        relation_name (`str`): its readable name, or else the id.
        score (`float`): the probability, where the model has a map to it, else not calibrated.
        evidence (`list[Span]`): sentences that prove it; empty unless the model was trained for evidence.
        explanation (`list[tuple[Span, float]]`): sentences that the model looked at, with their weight, heaviest first.
    """

    head: SpacyEntity
    tail: SpacyEntity
    relation: str
    relation_name: str
    score: float
    evidence: list[Span]
    explanation: list[tuple[Span, float]]


def relations_of(doc: Doc) -> list[SpacyRelation]:
    """The relations of a document, `doc._.relations`, none where the component has not seen it."""
    record: PredictionRecord | None = doc._.get(RECORD)
    if record is None:
        return []

    def span(start, end, label=""):
        return doc.char_span(start, end, label=label, alignment_mode="expand")

    entities = [
        SpacyEntity(
            entity["name"],
            entity["type"],
            [span(mention["start"], mention["end"], entity["type"]) for mention in entity["mentions"]],
        )
        for entity in record["entities"]
    ]
    sentences = [span(start, end) for start, end in record["sentences"]]
    return [
        SpacyRelation(
            entities[triple["head"]],
            entities[triple["tail"]],
            triple["relation"],
            triple["relation_name"],
            triple["score"],
            [sentences[number] for number in triple.get("evidence") or ()],
            [(sentences[one["sentence"]], one["weight"]) for one in triple["explanation"]],
        )
        for triple in record["triples"]
    ]


for _name, _settings in ((RECORD, {"default": None}), ("relations", {"getter": relations_of})):
    if not Doc.has_extension(_name):
        Doc.set_extension(_name, **_settings)


@Language.factory(
    "comm_docre",
    default_config={
        "model": None,
        "device": None,
        "dtype": "float32",
        "batch_size": 8,
        "threshold_offset": None,
        "max_sentences": 3,
        "min_score": None,
        "top_k": None,
        "relations": None,
    },
    assigns=["doc._.relations", f"doc._.{RECORD}"],
    requires=["doc.ents"],
)
def make_component(
    nlp: Language,
    name: str,
    model: str | None,
    device: str | None,
    dtype: str,
    batch_size: int,
    threshold_offset: float | None,
    max_sentences: int,
    min_score: float | None,
    top_k: int | None,
    relations: list[str] | None,
) -> "RelationComponent":
    """
    The component; its arguments are the keys of `config`.

    Args:
        nlp (`Language`), name (`str`): given by spaCy.
        model (`str`): folder or Hub name of a COMM checkpoint.
        device (`str`, *optional*): such as `"cuda"`; a GPU if there is one by default.
        dtype (`str`, defaults to `"float32"`): of the model.
        batch_size (`int`, defaults to 8): documents that the model sees at once in `nlp.pipe`.
        threshold_offset, max_sentences, min_score, top_k, relations: as in a call of
            [`~modeling_comm.pipeline_comm.DocumentRelationExtractionPipeline`].

    Raises:
        ValueError: there is no `model`, or an argument does not fit.
    """
    if model is None:
        raise ValueError('comm_docre: found no model, expected config={"model": "..."}, the folder or name of one')
    extractor = pipeline(TASK, model=model, dtype=dtype, **({} if device is None else {"device": device}))
    settings = {
        "threshold_offset": threshold_offset,
        "max_sentences": max_sentences,
        "min_score": min_score,
        "top_k": top_k,
        "relations": relations,
    }
    extractor._sanitize_parameters(**settings)  # now, not at the first document
    return RelationComponent(name, extractor, batch_size, settings)


class RelationComponent:
    """
    Predicts the relations of documents whose entities are known.

    Args:
        name (`str`): in spaCy's pipeline.
        extractor (`DocumentRelationExtractionPipeline`): predicts.
        batch_size (`int`): documents that it sees at once in [`pipe`].
        settings (`dict`): of each call of it.

    Raises:
        SettingError: `batch_size` is less than 1.
    """

    def __init__(self, name: str, extractor: Callable, batch_size: int, settings: dict):
        if batch_size < 1:  # no document would be read
            raise SettingError("comm_docre", "batch_size", batch_size, "an integer >= 1")
        self.name, self.extractor, self.batch_size, self.settings = name, extractor, batch_size, settings
        self._handle_error = raise_error

    def set_error_handler(self, handler: Callable) -> None:
        """What becomes of documents that cannot be predicted; spaCy calls this in `nlp.set_error_handler`."""
        self._handle_error = handler

    def __call__(self, doc: Doc) -> Doc:
        """
        Sets `doc._.relations`.

        Raises:
            NoEntitiesError: nothing has looked for entities in the document.
        """
        doc._.set(RECORD, self.extractor(doc, **self.settings))
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 0) -> Iterator[Doc]:
        """
        Documents with their relations, in their order.

        Args:
            stream (`Iterable[Doc]`): the documents. Some batches of them are read ahead, as documents of similar length are
                predicted together.
            batch_size (`int`): spaCy's own, not used: the component has a setting for the documents that the model sees at once.
        """
        stream = iter(stream)
        while docs := list(itertools.islice(stream, LOOKAHEAD_BATCHES * self.batch_size)):
            try:
                records = self.extractor(docs, batch_size=self.batch_size, **self.settings)
            except Exception:  # of one of them; spaCy's error handler may leave that out and go on
                yield from self._one_by_one(docs)
                continue
            for doc, record in zip(docs, records, strict=True):
                doc._.set(RECORD, record)
                yield doc

    def _one_by_one(self, docs):
        for doc in docs:
            try:
                yield self(doc)
            except Exception as error:
                self._handle_error(self.name, self, [doc], error)
