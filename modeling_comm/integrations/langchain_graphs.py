"""Graphs for LangChain without a language model: `GraphDocument`s, as its `LLMGraphTransformer` gives them.

The classes are those of `langchain-neo4j`, where they live since `langchain-community` is no longer maintained. Graph stores of
other packages read the same attributes.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ..utils.imports import of_extra

try:
    from langchain_core.documents import Document
    from langchain_neo4j.graphs.graph_document import GraphDocument, Node, Relationship
except ImportError as error:
    raise ImportError(f"the graph transformer needs 'langchain-neo4j'{of_extra('langchain')}") from error

from ..prediction_record import PredictionRecord, marked_sentences


class CommGraphTransformer:
    """
    Turns documents into graphs: a node for each entity, an edge for each relation.

    Args:
        extractor (`DocumentRelationExtractionPipeline`): predicts the relations.
        ner (`Callable`, *optional*): finds the entities of a text, as in a call of the extractor; not needed where the
            extractor was made with one.
        batch_size (`int`, defaults to 8): documents that the model sees at once.
        settings: further arguments of the extractor's calls, such as `min_score=0.8`.

    Example:

    ```python
    >>> import spacy
    >>> from langchain_core.documents import Document
    >>> from transformers import pipeline
    >>> from modeling_comm.integrations.langchain_graphs import CommGraphTransformer
    >>> extractor = pipeline("document-relation-extraction", model="outputs/demo")
    >>> transformer = CommGraphTransformer(extractor, ner=spacy.load("en_core_web_sm"))
    >>> graphs = transformer.convert_to_graph_documents([Document(page_content="Oslo is the capital of Norway.")])
    ```
    """

    def __init__(self, extractor: Callable, ner: Callable | None = None, batch_size: int = 8, **settings: Any):
        self.extractor, self.batch_size = extractor, batch_size
        self.settings = settings if ner is None else {"ner": ner, **settings}

    def convert_to_graph_documents(self, documents: Sequence[Document]) -> list[GraphDocument]:
        """
        A graph for each document. A node's `id` is the entity's name and its `type` the entity's type; entities of the same
        name and type are one node. A relationship's `type` is the relation's name in capitals with `_` for spaces, as LangChain
        writes it; its properties are `relation` (the id), `relation_name`, `score`, and `sentences`, those that prove the
        relation (of a model that was trained for evidence) or else those that the model attended to.

        Args:
            documents (`Sequence[Document]`): texts, in `page_content`.

        Raises:
            DocumentError: a document cannot be predicted.
        """
        texts = [document.page_content for document in documents]
        records = self.extractor(texts, batch_size=self.batch_size, **self.settings)
        return [_graph(record, document) for record, document in zip(records, documents, strict=True)]

    async def aconvert_to_graph_documents(self, documents: Sequence[Document]) -> list[GraphDocument]:
        """The same in a thread, so that an event loop is not held up."""
        return await asyncio.to_thread(self.convert_to_graph_documents, documents)


def _graph(record: PredictionRecord, source: Document) -> GraphDocument:
    nodes, of_entity = {}, []
    for entity in record["entities"]:
        node = Node(id=entity["name"], type=entity["type"])
        of_entity.append(nodes.setdefault((node.id, node.type), node))
    relationships = []
    for triple in record["triples"]:
        sentences = [record["text"][slice(*record["sentences"][number])] for number in marked_sentences(triple)]
        properties = {name: triple[name] for name in ("relation", "relation_name", "score")}
        relationships.append(
            Relationship(
                source=of_entity[triple["head"]],
                target=of_entity[triple["tail"]],
                type=triple["relation_name"].replace(" ", "_").upper(),
                properties={**properties, "sentences": sentences},
            )
        )
    return GraphDocument(nodes=list(nodes.values()), relationships=relationships, source=source)
