"""LangChain: `CommGraphTransformer` gives the `GraphDocument`s that graph stores take."""

import asyncio

import pytest
from helpers import tiny_model, tiny_system
from transformers import pipeline

pytest.importorskip("langchain_neo4j", reason='needs LangChain: pip install -e ".[langchain]"')

from langchain_core.documents import Document
from langchain_neo4j.graphs.graph_document import GraphDocument, Node

from modeling_comm.integrations.langchain_graphs import CommGraphTransformer

TEXTS = ["Anna was born in Oslo. The town is near the river Nile.", "Omar left Lima in 1945. Lima is near Cairo.", ""]
NAMES = {"Anna": "PER", "Omar": "PER", "Oslo": "LOC", "Nile": "LOC", "Lima": "LOC", "Cairo": "LOC", "1945": "TIME"}


def find_names(text):
    return [
        {"start": start, "end": start + len(name), "type": kind}
        for name, kind in NAMES.items()
        for start in range(len(text))
        if text.startswith(name, start)
    ]


@pytest.fixture(scope="module")
def extractor():
    config, processor = tiny_system(relation_names={"P17": "country", "P27": "country of citizenship"})
    return pipeline("document-relation-extraction", model=tiny_model(config), processor=processor, device="cpu")


def test_graphs_are_what_the_pipeline_predicts(extractor):
    documents = [Document(page_content=text, metadata={"source": n}) for n, text in enumerate(TEXTS)]
    graphs = CommGraphTransformer(extractor, ner=find_names).convert_to_graph_documents(documents)
    records = extractor(TEXTS, ner=find_names)
    assert [type(graph) for graph in graphs] == [GraphDocument] * 3
    assert [graph.source for graph in graphs] == documents
    for graph, record in zip(graphs, records, strict=True):
        assert graph.nodes == [Node(id=e["name"], type=e["type"]) for e in record["entities"]]
        edges = [(r.source.id, r.properties["relation"], r.target.id) for r in graph.relationships]
        names = [entity["name"] for entity in record["entities"]]
        assert edges == [(names[t["head"]], t["relation"], names[t["tail"]]) for t in record["triples"]]
        for edge, triple in zip(graph.relationships, record["triples"], strict=True):
            assert edge.properties["score"] == pytest.approx(triple["score"]) and edge.properties["sentences"]
            assert set(edge.properties["sentences"]) <= {record["text"][slice(*span)] for span in record["sentences"]}
            assert edge.source in graph.nodes and edge.target in graph.nodes
    types = {edge.type for graph in graphs for edge in graph.relationships}
    assert "COUNTRY_OF_CITIZENSHIP" in types and graphs[2].relationships == []
    # Graph stores write properties as they are: numbers, texts and lists of texts alone.
    kinds = {type(value) for graph in graphs for edge in graph.relationships for value in edge.properties.values()}
    assert kinds == {float, str, list}


def test_settings_and_event_loops(extractor):
    transformer = CommGraphTransformer(extractor, find_names, relations=["country"], top_k=1)
    (graph,) = asyncio.run(transformer.aconvert_to_graph_documents([Document(page_content=TEXTS[0])]))
    assert [edge.type for edge in graph.relationships] == ["COUNTRY"]


def test_two_entities_of_one_name_are_one_node(extractor):
    """A graph store merges them anyway."""

    def apart(text, mentions):
        return [[number] for number in range(len(mentions))]

    transformer = CommGraphTransformer(extractor, find_names, coreference=apart)
    (graph,) = transformer.convert_to_graph_documents([Document(page_content=TEXTS[1])])
    assert [node.id for node in graph.nodes] == ["Omar", "Lima", "1945", "Cairo"]
