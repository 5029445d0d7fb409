"""Texts of a graph as the formats can hold them, and the places of an edge as JSON."""

import json
import re

from .united_graph import GraphEdge, Provenance

# What XML 1.0 cannot hold, not even as an escape; nor may an xsd:string of RDF.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def utf8_text(text: str) -> str:
    """Text that UTF-8 can hold: half of a surrogate pair, which JSON can hold, is written as its escape, `\\ud83d`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def xml_text(text: str) -> str:
    """Text that XML can hold: control characters and the like are written as their escapes, such as `\\u0000`."""
    return _NOT_IN_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def provenance_json(edge: GraphEdge) -> str:
    """The places where an edge was found as JSON in ASCII, for formats whose edges have no lists of objects."""
    return json.dumps([provenance_fields(one) for one in edge.provenance])


def provenance_fields(provenance: Provenance) -> dict:
    """A place where an edge was found, as JSON has it; what there is not is left out."""
    mentions = {"head": provenance.head_mentions, "tail": provenance.tail_mentions}
    fields = {
        "document": provenance.document.id,
        "title": provenance.document.title,
        "score": provenance.score,
        "probability": provenance.probability,
        "marked_by": provenance.marked_by,
        "sentences": [sentence._asdict() for sentence in provenance.sentences],
        **{f"{end}_mentions": [mention._asdict() for mention in found] for end, found in mentions.items()},
        "rule": provenance.rule,
    }
    return {name: value for name, value in fields.items() if value is not None}
