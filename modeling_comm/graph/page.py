"""A graph as one self-contained page for the browser: search, filters, table, drawing, and the sentences behind each edge."""

from pathlib import Path

from ..reporting.html_page import fill_page, utf16_offsets
from ..utils.counted_nouns import DOCUMENTS, ENTITIES, FACTS, counted
from ..utils.writer import write_text
from .united_graph import Graph

_STYLES = ("page.css", "united.css")
_SCRIPTS = ("layout.js", "parts.js", "graph.js", "table.js", "united.js")


def render_graph(graph: Graph, title: str = "Graph") -> str:
    """
    One HTML page of a graph, which needs no network and allows itself none, as that of
    [`~modeling_comm.reporting.html_page.render_html`]. It draws the strongest 60 of the edges that pass its filters, says how
    many those are, and lists all of them.

    Args:
        graph ([`~modeling_comm.graph.united_graph.Graph`]): what [`~modeling_comm.graph.unite.build_graph`] gave.
        title (`str`, defaults to `"Graph"`): the page's title.

    Returns:
        `str`: the page, to be written as UTF-8.
    """
    return fill_page("united.html", _STYLES, _SCRIPTS, {"title": title, **_PageData(graph).fields()})


class _PageData:
    """What the page shows. Documents and sentences are in it once, and places point to them by index."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._index = {identifier: index for index, identifier in enumerate(graph.entities)}
        self._documents, self._sentences = {}, {}  # by what tells them apart, their index
        self._texts, self._units, self._marks = [], [], []  # of each sentence

    def fields(self):
        triples = [self._edge(edge) for edge in self._graph.edges]
        counts = self._graph.counts
        return {
            "summary": ", ".join(
                counted(number, nouns)
                for number, nouns in (
                    (counts.documents, DOCUMENTS),
                    (len(self._graph.entities), ENTITIES),
                    (len(triples), FACTS),
                )
            ),
            "entities": [
                {
                    "name": entity.name,
                    "names": [name for name, _ in entity.names.most_common()],
                    "type": entity.type,
                    "documents": entity.documents,
                }
                for entity in self._graph.entities.values()
            ],
            "triples": triples,
            "documents": [{"id": document.id, "title": document.title} for document in self._documents],
            "sentences": [
                {"number": sentence.number, "text": sentence.text, "mentions": sorted(marks)}
                for sentence, marks in zip(self._texts, self._marks, strict=True)
            ],
        }

    def _edge(self, edge):
        return {
            **{"head": self._index[edge.head], "tail": self._index[edge.tail]},
            **{"relation": edge.relation, "name": edge.relation_name, "score": edge.score, "support": edge.support},
            **({} if edge.probability is None else {"probability": edge.probability}),
            **({"symmetric": True} if edge.symmetric else {}),
            "places": [self._place(edge, place) for place in edge.provenance],
        }

    def _place(self, edge, place):
        document = self._documents.setdefault(place.document, len(self._documents))
        sentences = [self._sentence(document, sentence) for sentence in place.sentences]
        for end, mentions in ((edge.head, place.head_mentions), (edge.tail, place.tail_mentions)):
            for mention in mentions:
                if (index := self._sentences.get((document, mention.sentence))) is not None:
                    self._marks[index].add((*self._within(index, mention), self._index[end]))
        return {
            **{"document": document, "score": place.score, "by": place.marked_by, "sentences": sentences},
            **({} if place.rule is None else {"rule": place.rule}),
        }

    def _sentence(self, document, sentence):
        index = self._sentences.setdefault((document, sentence.number), len(self._texts))
        if index == len(self._texts):
            self._texts.append(sentence)
            self._units.append(utf16_offsets(sentence.text))
            self._marks.append(set())
        return index

    def _within(self, index, mention):
        """Where a mention is in its sentence, as the page counts."""
        sentence, units = self._texts[index], self._units[index]
        start, end = (
            min(max(offset - sentence.start, 0), len(sentence.text)) for offset in (mention.start, mention.end)
        )
        return units[start], units[end]


def write_page(graph: Graph, file: Path) -> None:
    """Writes what [`render_graph`] gives, under the file's name."""
    write_text(file, render_graph(graph, file.stem))
