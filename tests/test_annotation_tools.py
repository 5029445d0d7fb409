"""Annotation tools: what they export becomes documents, and documents and predictions become what they import."""

import itertools
import json
import os
import random
import re
import xml.etree.ElementTree as ElementTree

import pytest
from helpers import ROOT, SAMPLE, SHARED, random_document, requires_shared

import comm_docre
from modeling_comm import document_from_text
from modeling_comm.commands import export as export_command
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.formats import (
    ImportReport,
    MarkedTextOptions,
    OriginalDocuments,
    collect_labels,
    format_registry,
    get_writer,
    pre_annotation,
    read_documents,
    register_writer,
)
from modeling_comm.formats.annotated_text import document_of_text
from modeling_comm.formats.marked_text import ENTITY_WAYS, MarkedSpan, MarkedText, finish_marked_text
from modeling_comm.formats.original_documents import annotate_original
from modeling_comm.formats.pre_annotation import safe_names
from modeling_comm.formats.spacy_docs import _marked
from modeling_comm.formats.text_offsets import OFFSET_UNITS, Utf16Offsets, find_span, unit_of_spans
from modeling_comm.prediction_record import parse_record
from modeling_comm.settings import NameTakenError, SettingError
from modeling_comm.text_to_document import text_from_document

FIXTURES = ROOT / "tests" / "fixtures" / "formats"
TOOLS = ("label-studio", "doccano", "brat")
ASTRAL = (
    "😀 Ada Vale lives in Oslo.\n東京は日本の首都です。 👩‍🚀 Ada  left 𝓐rendal, the\ntown of Dr. Ibsen. Naïve Łódź."
)


def read(source, form=None, **options):
    report = ImportReport()
    documents = list(read_documents(source, form, report, options=MarkedTextOptions(**options)))
    for document in documents:
        validate_document(document)
    return documents, report


def facts(document):
    """Facts with all mentions of their entities."""
    names = [" / ".join(mention["name"] for mention in mentions) for mentions in document["vertexSet"]]
    return {(names[label["h"]], label["r"], names[label["t"]]) for label in document["labels"]}


def spans_of(text, *words):
    """Characters of words, each behind the one before."""
    spans, last = [], 0
    for word in words:
        start = text.index(word, last)
        last = start + len(word)
        spans.append((start, last))
    return spans


def record_of(text, entities, triples, **fields):
    """A record of a prediction: entities are a type and spans, triples (head, relation, tail)."""
    sentences = [[match.start(), match.end()] for match in re.finditer(r"[^.]+\.?", text)]
    mentions = [
        [{"start": start, "end": end, "sentence": sum(last <= start for _, last in sentences)} for start, end in spans]
        for _, spans in entities
    ]
    return parse_record(
        {
            "version": 1,
            "title": "vale",
            "text": text,
            "sentences": sentences,
            "entities": [
                {"name": text[slice(*spans[0])], "type": kind, "mentions": found}
                for (kind, spans), found in zip(entities, mentions, strict=True)
            ],
            "triples": [
                {"head": h, "tail": t, "relation": r, "relation_name": r, "score": 0.5, "explanation": []}
                for h, r, t in triples
            ],
            "lost": {},
            **fields,
        }
    )


def labelled(text, title, entities, facts):
    """A document of a text: entities are lists of words and their type, facts (head, relation, tail, evidence)."""
    marked = [
        {"type": kind, "mentions": [{"start": start, "end": end} for start, end in spans_of(text, *words)]}
        for *words, kind in entities
    ]
    labels = [{"h": h, "t": t, "r": r, "evidence": evidence} for h, r, t, evidence in facts]
    return {**document_from_text(text, marked, title).document, "labels": labels}


@pytest.fixture
def astral():
    entities = [
        ("Ada Vale", "Ada", "PER"),
        ("Oslo", "LOC"),
        ("東京", "LOC"),
        ("日本", "LOC"),
        ("𝓐rendal", "LOC"),
        ("town of Dr. Ibsen", "LOC"),
    ]
    relations = [(0, "P551", 1, [0]), (2, "P1376", 3, [1]), (0, "P19", 4, []), (4, "P361", 5, [2, 3])]
    return labelled(ASTRAL, "😀: a/b", entities, relations)


def export(tmp_path, form, documents, **options):
    """What is written for a tool: the path of its file or folder."""
    output = tmp_path / {"label-studio": "tasks.json", "doccano": "lines.jsonl", "brat": "brat"}[form]
    labels = collect_labels(documents, options.get("names", {}), options.get("coreference", "coreference"))
    get_writer(form)(output, (pre_annotation(d, n)[0] for n, d in enumerate(documents, 1)), labels, "test")
    return output


def as_the_tool_returns_it(path, form, seed=0):
    """Results in another order, and ids that the tool has given: nothing relies on either."""
    draw = random.Random(seed)
    if form == "label-studio":
        tasks = json.loads(path.read_text(encoding="utf-8"))
        for number, task in enumerate(tasks):
            (prediction,) = task.pop("predictions")
            draw.shuffle(prediction["result"])
            task |= {"id": number + 50, "annotations": [{"id": number, "result": prediction["result"]}]}
        path.write_text(json.dumps(tasks), encoding="utf-8")
    elif form == "doccano":
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            numbers = {entity["id"]: 1000 - entity["id"] for entity in line["entities"]}
            for entity in line["entities"]:
                entity["id"] = numbers[entity["id"]]
            for relation in line["relations"]:
                relation |= {end: numbers[relation[end]] for end in ("from_id", "to_id")}
            draw.shuffle(line["entities"])
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    else:
        for file in path.glob("*.ann"):
            lines = file.read_text(encoding="utf-8").splitlines()
            draw.shuffle(lines)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------- there and back without loss


@pytest.mark.parametrize("form", TOOLS)
def test_documents_come_back_as_they_were(form, tmp_path, astral):
    """Words, sentences, entities, their order, facts, evidence and further fields; also where entities share a mention, or have
    one twice."""
    documents = [random_document(n, 20 + 5 * n, mentions=4, seed=n) for n in range(12)]
    for number, document in enumerate(documents):
        if number > 1:
            document["vertexSet"].append([mentions[0] for mentions in document["vertexSet"][:2]])
        document["source"] = number
    documents[3]["vertexSet"][0].append(dict(documents[3]["vertexSet"][0][0]))
    documents[4]["ignored_pairs"] = [[3, 1]]
    documents[5]["labels"][0]["novelty"] = "Novel"
    documents += [
        astral,
        {"title": "空", "sents": [["A", "", "\xa0", "b c"], [], ["d"]], "vertexSet": [], "labels": []},
    ]
    path = as_the_tool_returns_it(export(tmp_path, form, documents), form)
    found, report = read(path, form, original=OriginalDocuments(documents))
    assert sorted(found, key=lambda d: d["title"]) == sorted(documents, key=lambda d: d["title"])
    assert not report.dropped and not report.noted


@pytest.mark.parametrize("form", TOOLS)
def test_without_the_originals_the_text_is_split_again(form, tmp_path, astral):
    sample = json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))
    path = as_the_tool_returns_it(export(tmp_path, form, [astral, *sample]), form)
    found, report = read(path, form)
    found = {document["title"]: document for document in found}
    for document in (astral, *sample):
        assert facts(found[document["title"]]) == facts(document)
    assert report.facts == sum(len(document["labels"]) for document in (astral, *sample))
    assert not report.dropped and not report.noted


@pytest.mark.parametrize("identifier", ["d-17", 17, 0])
@pytest.mark.parametrize("form", TOOLS)
def test_predictions_of_a_document_with_an_id_come_back_as_the_document(form, identifier, tmp_path, astral):
    """The tool knows it by its id, as the record does."""
    document = {**astral, "id": identifier, "source": "mine"}
    record = {**as_spacy_has_it(document)["_"]["comm_docre"], "id": identifier, "title": document["title"]}
    other = {**document, "title": "another", "id": None, "sents": [["A"]], "vertexSet": [], "labels": []}
    path = as_the_tool_returns_it(export(tmp_path, form, [record]), form)
    found, report = read(path, form, original=OriginalDocuments([other, document]))
    assert found == [document]
    assert not report.dropped and not report.noted


def test_an_original_is_found_by_its_title_first(astral):
    titled, numbered = {**astral, "title": "1984"}, {**astral, "id": 1984}
    originals = OriginalDocuments([numbered, titled, {**astral, "title": "", "id": None}])
    assert originals.find("1984") is titled and originals.find(astral["title"]) is numbered
    assert originals.find("None") is None


def as_prodigy_has_it(document):
    """Prodigy knows a span by where it is."""
    marked = pre_annotation(document, 1)[0].marked
    spans = {span.id: {"start": span.start, "end": span.end, "label": span.type} for span in marked.spans}
    arrows = [(link.head, link.tail, link.relation) for link in marked.links]
    arrows += [(one, other, "COREF") for chain in marked.chains for one, other in itertools.pairwise(chain)]
    relations = [{"head_span": spans[head], "child_span": spans[tail], "label": kind} for head, tail, kind in arrows]
    meta = {"title": document["title"]}
    return {
        "text": marked.text,
        "spans": list(spans.values()),
        "relations": relations,
        "meta": meta,
        "answer": "accept",
    }


def as_spacy_has_it(document):
    """JSON of a `Doc` with the record of this library's component."""
    marked = pre_annotation(document, 1)[0].marked
    whole = text_from_document(document)
    spans = [[(mention["start"], mention["end"]) for mention in entity["mentions"]] for entity in whole.entities]
    entities = [(entity["type"], of_entity) for entity, of_entity in zip(whole.entities, spans, strict=True)]
    triples = [(label["h"], label["r"], label["t"]) for label in document["labels"]]
    record = record_of(marked.text, entities, triples)
    ents = [{"start": span.start, "end": span.end, "label": span.type} for span in marked.spans]
    return {"text": marked.text, "title": document["title"], "ents": ents, "tokens": [], "_": {"comm_docre": record}}


@pytest.mark.parametrize(("form", "convert"), [("prodigy", as_prodigy_has_it), ("spacy", as_spacy_has_it)])
def test_documents_that_others_wrote_come_back_as_they_were(form, convert, tmp_path, astral):
    documents = [astral, *json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))]
    lines = [json.dumps(convert(document), ensure_ascii=False) + "\n" for document in documents]
    (tmp_path / "all.jsonl").write_text("".join(lines), encoding="utf-8")
    found, report = read(tmp_path / "all.jsonl", form, original=OriginalDocuments(documents))
    assert found == documents and not report.dropped


@requires_shared
@pytest.mark.parametrize("form", TOOLS)
def test_real_documents_come_back_as_they_were(form, tmp_path):
    documents = json.loads((SHARED / "data/redocred-mini/dev_revised.json").read_text(encoding="utf-8"))[:40]
    path = as_the_tool_returns_it(export(tmp_path, form, documents), form)
    found, _ = read(path, form, original=OriginalDocuments(documents))
    assert sorted(found, key=lambda d: d["title"]) == sorted(documents, key=lambda d: d["title"])


# ------------------------------------------------------------------------------------------------- offsets of each tool


def test_offsets_in_utf16():
    offsets = Utf16Offsets("a😀b𝓐")
    assert [offsets.from_characters(place) for place in range(5)] == [0, 1, 3, 4, 6]
    assert [offsets.to_characters(place) for place in range(7)] == [0, 1, None, 2, 3, None, 4]
    assert find_span("😀 Oslo", 3, 7, "characters", "Oslo") == (2, 6, "utf16")
    assert find_span("😀 Oslo", 2, 6, "utf16", "Oslo") == (2, 6, "characters")
    assert find_span("😀 Oslo", 3, 7, "utf16", None) == (2, 6, "utf16")
    assert find_span("😀 Oslo", 3, 6, "characters", "Oslo") is None
    assert find_span("Oslo", 1, 4, "characters", "Oslo") is None
    # One span may fit both ways; those of a text are all in one unit.
    assert unit_of_spans("😀aaOslo", [(2, 3, "a")], "characters") == "characters"
    assert unit_of_spans("😀aaOslo", [(2, 3, "a"), (4, 8, "Oslo")], "characters") == "utf16"
    assert unit_of_spans("😀aaOslo", [(2, 3, "a"), (3, 7, "Oslo")], "characters") == "characters"


def test_label_studio_counts_characters(tmp_path, astral):
    (task,) = json.loads(export(tmp_path, "label-studio", [astral]).read_text(encoding="utf-8"))
    text, (prediction,) = task["data"]["text"], task["predictions"]
    regions = [result for result in prediction["result"] if result["type"] == "labels"]
    assert len(regions) == 7 and {text[r["value"]["start"] : r["value"]["end"]] for r in regions} == {
        r["value"]["text"] for r in regions
    } == {"Ada Vale", "Ada", "Oslo", "東京", "日本", "𝓐rendal", "town of Dr. Ibsen"}
    configuration = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    assert [one.get("value") for one in configuration.iter("Label")] == ["LOC", "PER"]
    assert [one.get("value") for one in configuration.iter("Relation")] == [
        "P1376",
        "P19",
        "P361",
        "P551",
        "coreference",
    ]
    assert prediction["model_version"] == "test" and "score" not in prediction


def test_doccano_counts_utf16_units(tmp_path, astral):
    path = export(tmp_path, "doccano", [astral])
    assert path.read_bytes().isascii()  # doccano guesses encodings
    line = json.loads(path.read_bytes())
    units = line["text"].encode("utf-16-le")
    found = {units[2 * e["start_offset"] : 2 * e["end_offset"]].decode("utf-16-le") for e in line["entities"]}
    assert found == {"Ada Vale", "Ada", "Oslo", "東京", "日本", "𝓐rendal", "town of Dr. Ibsen"}
    for entity in line["entities"]:
        entity["start_offset"], entity["end_offset"] = (
            len(units[: 2 * entity[end]].decode("utf-16-le")) for end in ("start_offset", "end_offset")
        )
    path.write_text(json.dumps(line))
    (document,), _ = read(path, "doccano", offset_unit="characters")
    assert facts(document) == facts(astral)
    line["entities"][0]["start_offset"] = 1
    path.write_text(json.dumps(line))
    with pytest.raises(DocumentError, match="--offset_unit characters"):
        read(path, "doccano")


def test_brat_counts_characters_and_divides_at_line_breaks(tmp_path, astral):
    record = record_of("😀 New\nYork lies in the USA.", [("LOC", [(2, 10)]), ("LOC", [(23, 26)])], [(0, "in", 1)])
    folder = export(tmp_path, "brat", [record])
    assert (folder / "vale.ann").read_text(encoding="utf-8").splitlines() == [
        "T1\tLOC 2 5;6 10\tNew York",
        "T2\tLOC 23 26\tUSA",
        "R1\tin Arg1:T1 Arg2:T2",
    ]
    assert (folder / "vale.txt").read_bytes().decode("utf-8") == record["text"]
    (document,), report = read(folder)
    assert facts(document) == {("New\nYork", "in", "USA")} or [m["name"] for m in document["vertexSet"][0]] == [
        "New\nYork"
    ]
    assert not report.noted


# --------------------------------------------------------------------------------------------------------- each reader


def test_label_studio():
    (vale, lima), report = read(FIXTURES / "label_studio.json")
    assert vale["title"] == "Vale" and facts(vale) == {
        ("Ada Vale / She / Vale", "born in", "Oslo"),
        ("Ada Vale / She / Vale", "studied in", "Bergen"),  # drawn from the town, with the direction "left"
    }
    assert facts(lima) == {
        ("Lima", "twin of", "Cusco"),
        ("Cusco", "twin of", "Lima"),
        ("Lima", "country", "Peru"),
        ("Lima", "in", "Peru"),
    }
    assert report.dropped == {
        "cancelled annotations": 1,
        "annotations of documents that have another one": 1,
        "results of the type choices": 1,
        "relations of mentions that are not there": 1,
        "facts that are listed twice": 1,
        "further labels of a mention": 1,
        "relations without a label": 1,
        "documents without an annotation": 1,
    }


def changed(path, name, change):
    """A copy of a JSON file, changed."""
    content = json.loads((FIXTURES / name).read_text(encoding="utf-8"))
    change(content)
    (path / name).write_text(json.dumps(content), encoding="utf-8")
    return path / name


def test_what_label_studio_counts_is_seen_by_the_text_of_a_region(tmp_path):
    def in_utf16(tasks):  # as it was until 2022
        for result in tasks[0]["annotations"][1]["result"]:
            if result["type"] == "labels":
                result["value"] = {
                    **result["value"],
                    "start": result["value"]["start"] + 1,
                    "end": result["value"]["end"] + 1,
                }

    assert read(changed(tmp_path, "label_studio.json", in_utf16))[0] == read(FIXTURES / "label_studio.json")[0]


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("value", {"start": 3, "end": 10, "text": "Ada Vale", "labels": ["PER"]}), None, "result[0].value"),
        (("value", {"start": 4, "end": "10", "labels": ["PER"]}), None, "result[0].value.end"),
        (("value", None), None, "result[0].value"),
        (("type", "relation"), "up", "result[0].direction"),
    ],
)
def test_what_is_wrong_in_label_studio_is_named(place, value, field, tmp_path):
    def change(tasks):
        result = tasks[0]["annotations"][1]["result"][0]
        result[place[0]] = place[1]
        result["direction"] = value

    with pytest.raises(DocumentError) as error:
        read(changed(tmp_path, "label_studio.json", change))
    assert (error.value.field, error.value.title, error.value.index) == (field, "Vale", 0)
    # The other documents are read where that is wanted.
    report = ImportReport()
    found = read_documents(tmp_path / "label_studio.json", None, report, on_bad_document="skip")
    assert [document["title"] for document in found] == ["Lima"] and len(report.skipped) == 1
    with pytest.raises(DocumentError, match="--text_field"):
        read(FIXTURES / "label_studio.json", text_field="body")


DOCCANO = {"text": "Oslo.", "entities": []}
PRODIGY = {"text": "Oslo.", "spans": []}
SPACY = {"text": "Oslo.", "ents": [], "tokens": []}
ANNOTATION = {"data": {"text": "Oslo."}, "annotations": [{"result": []}]}


@pytest.mark.parametrize(
    ("form", "item", "field"),
    [
        ("label-studio", {**ANNOTATION, "annotations": 3}, "annotations"),
        ("label-studio", {**ANNOTATION, "annotations": [{"result": 3}]}, "result"),
        *(
            ("label-studio", {**ANNOTATION, "annotations": [{"result": [{"type": "relation", **wrong}]}]}, field)
            for wrong, field in (
                ({"labels": 5}, "result[0].labels"),
                ({"labels": ["in"], "direction": []}, "result[0].direction"),
            )
        ),
        ("doccano", {**DOCCANO, "Comments": 3}, "Comments"),
        ("prodigy", {**PRODIGY, "relations": 3}, "relations"),
        ("spacy", {**SPACY, "sents": [{"start": 0}]}, "sents[0].end"),
        ("spacy", {**SPACY, "ents": [3]}, "ents[0]"),
        ("spacy", {**SPACY, "spans": {"sc": [3]}}, "spans.sc[0]"),
        ("spacy", {**SPACY, "spans": {"sc": 3}}, "spans.sc"),
        ("spacy", {**SPACY, "_": 3}, "_"),
        ("spacy", {**SPACY, "_": {"rel": {"(0, 1)": {"in": 1.0}}}}, "_.rel"),
    ],
)
def test_a_field_of_another_type_is_named(form, item, field, tmp_path):
    right = {"label-studio": ANNOTATION, "doccano": DOCCANO, "prodigy": PRODIGY, "spacy": SPACY}[form]
    items = [item, right]
    array, lines = json.dumps(items), "".join(f"{json.dumps(one)}\n" for one in items)
    (tmp_path / "all.jsonl").write_text(array if form == "label-studio" else lines)
    with pytest.raises(DocumentError) as error:
        read(tmp_path / "all.jsonl", form)
    assert error.value.field.removeprefix("annotations[].") == field and error.value.index == 0
    report = ImportReport()
    found = read_documents(tmp_path / "all.jsonl", form, report, on_bad_document="skip")
    assert len(list(found)) == 1 and len(report.skipped) == 1


def test_relations_of_spacys_tutorial_are_checked():
    item = {**SPACY, "ents": [{"start": 0, "end": 4}], "tokens": [{"start": 0}, {"start": 4}]}
    for relations in ({(0, 9): {}}, {(0,): {}}, {(0, 1): 3}, {(0, 1): {"in": "high"}}):
        with pytest.raises(DocumentError) as error:
            _marked({**item, "_": {"rel": relations}}, 0, "all.spacy", ImportReport())
        assert error.value.field == "_.rel"


def test_what_has_no_relations_is_refused(tmp_path):
    (tmp_path / "min.json").write_text(json.dumps([{"id": 1, "text": "Oslo.", "label": [{"start": 0, "end": 4}]}]))
    with pytest.raises(DocumentError, match="JSON-MIN"):
        read(tmp_path / "min.json", "label-studio")


def test_doccano():
    (vale, lima), report = read(FIXTURES / "doccano.jsonl")
    assert facts(vale) == {
        ("Ada Vale / She / Vale", "born in", "Oslo"),
        ("Ada Vale / She / Vale", "studied in", "Bergen"),
    }
    assert facts(lima) == {("Lima", "country", "Peru")}
    assert report.dropped == {"facts that are listed twice": 1, "comments": 1}


def test_doccano_without_relations(tmp_path):
    line = {"id": 3, "text": "Oslo 😀 Lima.", "label": [[0, 4, "LOC"], [8, 12, "LOC"]], "Comments": []}
    (tmp_path / "all.jsonl").write_text(json.dumps(line) + "\n")
    (document,), _ = read(tmp_path / "all.jsonl", "doccano")
    assert [m[0]["name"] for m in document["vertexSet"]] == ["Oslo", "Lima"] and document["labels"] == []
    assert document["title"] == "document 3"


def test_brat(caplog):
    documents, report = read(FIXTURES / "brat")
    america, vale = documents
    assert facts(vale) == {
        ("Ada Vale / She / Vale", "born_in", "Oslo"),
        ("Ada Vale / She / Vale", "studied_in", "Bergen"),
    }
    # It spans a line break, which is no gap; the other one is not shortened in silence.
    assert facts(america) == {("North and South\nAmerica", "borders", "South\nAmerica")}
    assert report.noted == {"discontinuous mentions, taken from their first to their last character": 1}
    (warning,) = caplog.messages
    assert "'North America' is discontinuous" in warning and "line 1" in warning
    assert report.dropped == {
        "events": 1,
        "attributes": 1,
        "normalizations": 1,
        "notes": 1,
        "triggers of events": 1,
        "sets of the type Team": 1,
        "facts that are listed twice": 1,
    }


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("PER 2 10\tAda Vale", "PER 3 10\tAda Vale", 1),
        ("PER 2 10\tAda Vale", "PER 2\tAda Vale", 1),
        ("PER 2 10\tAda Vale", "PER 2 10;11 14\tAda Vale", 1),
        ("R1\tborn_in Arg1:T1 Arg2:T2", "R1\tborn_in Arg1:T1", 15),
        ("A1\tSure T1", "X1\tSure T1", 9),
        ("*\tTeam T2 T4", "*\t", 14),
    ],
)
def test_what_is_wrong_in_brat_is_named_by_its_line(old, new, line, tmp_path):
    for file in (FIXTURES / "brat").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "vale.ann"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(DocumentError) as error:
        read(tmp_path, "brat")
    assert (error.value.field, error.value.source, error.value.title) == (f"line {line}", str(path), "vale")


def test_a_pair_of_brat_that_cannot_be_read_can_be_left_out(tmp_path):
    for name in ("a.ann", "a.txt", "b.ann", "b.txt", "c.ann", "vale.ann", "vale.txt"):
        (tmp_path / name).write_bytes((FIXTURES / "brat" / f"vale{name[-4:]}").read_bytes())
    (tmp_path / "a.txt").write_bytes("Łódź".encode("iso-8859-2"))
    (tmp_path / "b.ann").write_bytes("T1\tLOC 0 4\tŁódź".encode("iso-8859-2"))
    with pytest.raises(DocumentError, match=r"a\.txt"):
        read(tmp_path, "brat")
    report = ImportReport()
    (document,) = read_documents(tmp_path, "brat", report, on_bad_document="skip")
    assert document["title"] == "vale"
    found = [(os.path.basename(error.source), error.title) for error in report.skipped]
    assert found == [("a.txt", "a"), ("b.ann", "b"), ("c.txt", "c")]


@pytest.mark.parametrize("beginning", [b"\xef\xbb\xbf", b"\r\n \n", b"\xef\xbb\xbf\n"])
def test_an_ann_of_an_editor_is_known(beginning, tmp_path):
    for name in ("vale.ann", "vale.txt"):
        content = (FIXTURES / "brat" / name).read_bytes()
        (tmp_path / name).write_bytes(beginning + content if name.endswith(".ann") else content)
    assert read(tmp_path)[0] == read(FIXTURES / "brat" / "vale.ann")[0]


def test_equal_titles_are_noted(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for suffix in ("txt", "ann"):
            name = f"vale.{suffix}"
            (tmp_path / folder / name).write_bytes((FIXTURES / "brat" / name).read_bytes())
    documents, report = read(tmp_path, "brat")
    assert [document["title"] for document in documents] == ["vale", "vale"]
    assert report.noted == {"documents with the title of an earlier one": 1}


def test_prodigy():
    (vale,), report = read(FIXTURES / "prodigy.jsonl")
    assert vale["title"] == "Vale" and facts(vale) == {
        ("Ada Vale / She / Vale", "born in", "Oslo"),
        ("Ada Vale / She / Vale", "studied in", "Bergen"),
    }
    assert report.dropped == {
        "tasks with the answer reject": 1,
        "tasks with the answer ignore": 1,
        "facts that are listed twice": 1,
    }


def test_spacy_json():
    (document, lima), report = read(FIXTURES / "spacy_doc.json")
    assert facts(lima) == {("Lima / It", "P17", "Peru")}  # of this library's component
    assert [[m["name"] for m in mentions] for mentions in document["vertexSet"]] == [
        ["Ada Vale", "She"],
        ["Oslo"],
        ["Norway"],
    ]
    assert [mentions[0]["type"] for mentions in document["vertexSet"]] == ["PER", "LOC", "LOC"]
    assert report.dropped == {"chains of coreference without an entity": 1}


def test_further_labels_of_a_span_are_counted(tmp_path):
    spans = [{"start": 0, "end": 4, "label": label} for label in ("CITY", "CAPITAL", "CITY")]
    spans.append({"start": 13, "end": 17})
    town, land = {"start": 0, "end": 4, "label": "CAPITAL"}, {"start": 13, "end": 17, "label": "LAND"}
    relations = [{"head_span": town, "child_span": land, "label": "in"}]
    prodigy = {"text": "Oslo lies in Peru.", "spans": spans, "relations": relations, "_input_hash": 1}
    groups = {"sc": [*spans[:3], land], "coref_clusters_1": [{"start": 0, "end": 4}, {"start": 13, "end": 17}]}
    spacy = {"text": prodigy["text"], "ents": [], "spans": groups, "tokens": []}
    for form, item in (("prodigy", prodigy), ("spacy", spacy)):
        (tmp_path / "all.jsonl").write_text(json.dumps(item) + "\n")
        (document,), report = read(tmp_path / "all.jsonl", form)
        types = {m["name"]: m["type"] for mentions in document["vertexSet"] for m in mentions}
        assert types["Oslo"] == "CITY" and (form == "spacy" or types["Peru"] == "LAND")
        assert report.dropped == {"further labels of a mention": 1}


def test_members_of_a_set_that_are_not_there_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("Oslo. Oslo.")
    (tmp_path / "a.ann").write_text("T1\tLOC 0 4\tOslo\nT2\tLOC 6 10\tOslo\n*\tEquiv T1 T9 T2\n")
    (document,), report = read(tmp_path)
    assert entities_of(document) == [["Oslo", "Oslo"]]
    assert report.dropped == {"members of chains that are not there": 1}


def brat_of(tmp_path, *lines):
    """What is read of a text, `Ada left Oslo.`, with mentions T1 and T2 and further lines."""
    (tmp_path / "a.txt").write_text("Ada left Oslo.")
    (tmp_path / "a.ann").write_text("\n".join(["T1\tPER 0 3\tAda", "T2\tLOC 9 13\tOslo", *lines]))
    (document,), report = read(tmp_path)
    return document, report


@pytest.mark.parametrize("arguments", ["Arg1:T1 Arg2:T2", "Arg2:T2 Arg1:T1", "Who:T1 Where:T2"])
def test_arguments_of_brat_may_be_in_any_order(arguments, tmp_path):
    document, _ = brat_of(tmp_path, f"R1\tleft {arguments}")
    assert facts(document) == {("Ada", "left", "Oslo")}


def test_a_relation_of_a_mention_that_is_not_there_is_named(tmp_path, capsys):
    _, report = brat_of(tmp_path, "R1\tleft Arg1:T1 Arg2:T9")
    assert report.dropped == {"relations of mentions that are not there": 1}
    assert run("import", "--input", tmp_path, "--output", tmp_path / "out" / "train.json") == 0
    assert "a.ann: document ('a'), field line 3: found ['T9'], expected the ids of two" in capsys.readouterr().err


def test_an_id_that_two_mentions_have_is_refused(tmp_path):
    with pytest.raises(DocumentError, match="found the id 'T2', which line 2 has too") as error:
        brat_of(tmp_path, "T2\tPER 0 3\tAda", "R1\tleft Arg1:T1 Arg2:T2")
    assert error.value.field == "line 3"
    # One region with two labels is one mention; what has no id is linked to nothing.
    brat_of(tmp_path, "T2\tORG 9 13\tOslo")
    entities = [
        {"label": "PER", "start_offset": 0, "end_offset": 3},
        {"label": "LOC", "start_offset": 9, "end_offset": 13},
    ]
    line = {"text": "Ada left Oslo.", "entities": entities, "relations": [{"from_id": None, "type": "left"}]}
    (tmp_path / "one.jsonl").write_text(json.dumps(line) + "\n")
    (document,), report = read(tmp_path / "one.jsonl", "doccano")
    assert document["labels"] == [] and report.dropped == {"relations of mentions that are not there": 1}


@requires_shared
@pytest.mark.parametrize(("name", "form"), [("30_label_studio.json", "label-studio"), ("30_doccano.jsonl", "doccano")])
def test_exports_without_coreference(name, form):
    (document,), report = read(SHARED / "cases" / name)
    assert facts(document) == {("Ada Vale", "born in", "Oslo")} and not report.dropped
    assert [found for found, _ in [(form, report)]] == [form]


# ------------------------------------------------------------------------------------------ from mentions to entities

NAMES = "Ada Vale met Bo. Ada Vale and he left; Ada Vale stayed."


def with_links(tmp_path, *relations):
    """A doccano export of five mentions: 0, 2 and 4 are `Ada Vale`, 1 is `Bo`, 3 is `he`."""
    words = spans_of(NAMES, "Ada Vale", "Bo", "Ada Vale", "he", "Ada Vale")
    entities = [
        {"id": n, "label": "PER", "start_offset": start, "end_offset": end} for n, (start, end) in enumerate(words)
    ]
    relations = [{"id": n, "from_id": h, "to_id": t, "type": kind} for n, (h, kind, t) in enumerate(relations)]
    line = {"text": NAMES, "title": "names", "entities": entities, "relations": relations}
    path = tmp_path / "names.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "title": "not linked", "relations": []}) + "\n")
    return path


def entities_of(document):
    return [[mention["name"] for mention in mentions] for mentions in document["vertexSet"]]


BY_NAME = [["Ada Vale", "Ada Vale", "Ada Vale"], ["Bo"], ["he"]]
ALONE = [["Ada Vale"], ["Bo"], ["Ada Vale"], ["he"], ["Ada Vale"]]


@pytest.mark.parametrize(
    ("entities", "linked", "other"),
    [
        ("auto", [["Ada Vale"], ["Bo", "he"], ["Ada Vale"], ["Ada Vale"]], ALONE),
        ("links", [["Ada Vale"], ["Bo", "he"], ["Ada Vale"], ["Ada Vale"]], ALONE),
        ("names", BY_NAME, BY_NAME),
        ("both", [["Ada Vale", "Ada Vale", "Ada Vale"], ["Bo", "he"]], BY_NAME),
    ],
)
def test_ways_to_entities(entities, linked, other, tmp_path):
    documents, report = read(with_links(tmp_path, (1, "COREF", 3)), entities=entities)
    assert [entities_of(document) for document in documents] == [linked, other]
    assert report.facts == 0


def test_names_make_entities_where_nothing_is_linked(tmp_path):
    documents, report = read(with_links(tmp_path, (0, "met", 1), (2, "met", 1), (0, "is", 2)))
    assert [entities_of(document) for document in documents] == [BY_NAME, BY_NAME]
    assert facts(documents[0]) == {("Ada Vale / Ada Vale / Ada Vale", "met", "Bo")}
    assert report.dropped == {"facts that are listed twice": 1, "facts of an entity with itself": 1}


def test_the_relation_of_coreference_has_any_name(tmp_path):
    path = with_links(tmp_path, (0, "is", 2), (0, "coreference", 1))
    (document, _), _ = read(path, coreference_relation="is")
    assert entities_of(document) == [["Ada Vale", "Ada Vale"], ["Bo"], ["he"], ["Ada Vale"]]
    assert facts(document) == {("Ada Vale / Ada Vale", "coreference", "Bo")}
    with pytest.raises(SettingError, match="entities"):
        MarkedTextOptions(entities="all")


@pytest.mark.parametrize("form", TOOLS)
def test_an_own_export_says_how_mentions_are_linked(form, tmp_path):
    """Also where no entity has two mentions, and two have the same name."""
    text = "Paris is in Texas. Paris is in France."
    documents = [labelled(text, "towns", [("Paris", "LOC"), ("Texas", "LOC"), ("France", "LOC")], [(0, "in", 1, [])])]
    other = {**documents[0]["vertexSet"][0][0], "sent_id": 1}
    documents[0]["vertexSet"].append([other])
    path = as_the_tool_returns_it(export(tmp_path, form, documents, coreference="same"), form)
    (document,), _ = read(path, form)
    assert entities_of(document) == [["Paris"], ["Texas"], ["Paris"], ["France"]]


# ----------------------------------------------------------------------------------------------- documents that were sent


def back(tmp_path, original, change):
    """A document that was corrected in Label Studio."""
    path = as_the_tool_returns_it(export(tmp_path, "label-studio", [original]), "label-studio")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    change(tasks[0], tasks[0]["annotations"][0]["result"])
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return read(path, original=OriginalDocuments([original]))


def region(text, name, word, kind):
    ((start, end),) = spans_of(text, word)
    return {"id": name, "type": "labels", "value": {"start": start, "end": end, "text": word, "labels": [kind]}}


def test_corrections_keep_the_rest_of_the_original(tmp_path, astral):
    original = {**astral, "ignored_pairs": [[1, 2], [5, 0]], "untyped_entities": [1, 5]}
    original["entity_ids"] = [[f"Q{entity}"] for entity in range(len(astral["vertexSet"]))]

    def change(task, results):
        text = task["data"]["text"]
        gone = [
            one["id"] for one in results if one["type"] == "labels" and one["value"]["text"] == "town of Dr. Ibsen"
        ]
        results[:] = [one for one in results if not set(gone) & {one.get("id"), one.get("from_id"), one.get("to_id")}]
        results += [region(text, "new", "Łód", "LOC"), region(text, "alone", "Ibsen", "PER")]
        ada = next(one["id"] for one in results if one["type"] == "labels" and one["value"]["text"] == "Ada Vale")
        results.append({"type": "relation", "from_id": ada, "to_id": "new", "direction": "right", "labels": ["P27"]})

    (document,), report = back(tmp_path, original, change)
    assert entities_of(document) == [*entities_of(original)[:5], ["Ibsen"], ["Łód"]]
    sent_id = document["vertexSet"][6][0]["sent_id"]
    assert document["sents"][sent_id][:3] == ["Naïve", "Łód", "ź"]  # the token in which a mention ends is cut
    assert document["sents"][:sent_id] == original["sents"][:sent_id]
    assert document["labels"] == [*original["labels"][:3], {"h": 0, "t": 6, "r": "P27", "evidence": []}]
    assert document["ignored_pairs"] == [[1, 2]]
    lost = len(original["vertexSet"]) - 5
    assert document["entity_ids"] == [*([f"Q{entity}"] for entity in range(5)), [], []]
    assert document["untyped_entities"] == [1]
    assert report.dropped == {
        "ignored pairs of an entity without a mention": 1,
        "ids of an entity without a mention": lost,
    }


def test_what_does_not_fit_the_original_is_named(tmp_path, astral):
    def other_text(task, results):
        task["data"]["text"] = task["data"]["text"].replace("lives", "lived")
        for result in results:
            result.get("value", {}).pop("text", None)

    def over_a_border(task, results):
        results.append(region(task["data"]["text"], "new", "Oslo .\n東京", "LOC"))

    def outside(task, results):
        results.append({"id": "new", "type": "labels", "value": {"start": 5, "end": 900, "labels": ["LOC"]}})

    for change, field, expected in (
        (other_text, "text", "lives"),
        (over_a_border, "result", "within a sentence"),
        (outside, "result", "characters"),
    ):
        with pytest.raises(DocumentError) as error:
            back(tmp_path, astral, change)
        assert error.value.field.startswith(field) and expected in error.value.expected
    with pytest.raises(ValueError, match="two documents called"):
        OriginalDocuments([astral, dict(astral)])


def test_what_does_not_fit_the_original_can_be_left_out(tmp_path, astral):
    def change(task, results):
        results.append(region(task["data"]["text"], "new", "Oslo .\n東京", "LOC"))
        results.append({"id": "far", "type": "labels", "value": {"start": 5, "end": 900, "labels": ["LOC"]}})
        results.append({"type": "relation", "from_id": "far", "to_id": "new", "direction": "right", "labels": ["P27"]})

    with pytest.raises(DocumentError):
        back(tmp_path, astral, change)
    report, options = ImportReport(), MarkedTextOptions(original=OriginalDocuments([astral]))
    path = next(tmp_path.glob("*.json"))
    (document,) = read_documents(path, None, report, on_bad_document="drop_part", options=options)
    assert document == astral
    assert report.dropped == {"mentions that do not fit": 2, "relations of mentions that are not there": 1}


def test_a_document_that_is_not_among_the_originals(tmp_path, astral):
    path = as_the_tool_returns_it(export(tmp_path, "label-studio", [astral]), "label-studio")
    (document,), report = read(path, original=OriginalDocuments([]))
    assert facts(document) == facts(astral)
    assert report.noted == {"documents that are not among the original ones": 1}


def test_a_new_entity_without_a_type_is_untyped_with_and_without_the_original():
    original = labelled("Ada met Bob", "sent", [("Ada", "PER")], [])
    spans = [MarkedSpan("1", 0, 3, "PER"), MarkedSpan("2", 8, 11, None)]
    with_original = annotate_original(
        original, "Ada met Bob", dict(enumerate(map(list, zip(spans)))), [], ImportReport()
    )
    marked = MarkedText("sent", "Ada met Bob", spans)
    report = ImportReport()
    without = document_of_text(finish_marked_text(marked, report, MarkedTextOptions(), None, "file"), report)
    assert with_original["untyped_entities"] == without["untyped_entities"] == [1]


def test_types_are_the_same_with_and_without_the_original(tmp_path, capsys):
    """Also in one import, of which only some documents are among the originals."""
    text = "Ada Vale built the Vale in Oslo under the Oslo Act ."
    entities = [("Ada Vale", "PER"), ("Vale", "MISC"), ("Oslo", "LOC")]
    original = labelled(text, "sent", [*entities, ("Oslo Act", "GPE")], [])
    words = ("Ada Vale", "PERSON"), ("Vale", "PRODUCT"), ("Oslo", "GPE"), ("Oslo Act", "LAW"), ("built", "Deed")
    places = [(0, 8), (19, 23), (27, 31), (42, 50), (9, 14)]
    marked = [
        {"id": number, "label": kind, "start_offset": start, "end_offset": end}
        for number, ((_, kind), (start, end)) in enumerate(zip(words, places, strict=True))
    ]
    lines = [{"text": text, "title": title, "entities": marked, "relations": []} for title in ("sent", "new")]
    (tmp_path / "all.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "sent.json").write_text(json.dumps([original]))

    def types(document):
        return {mentions[0]["name"]: mentions[0]["type"] for mentions in document["vertexSet"]}

    expected = {"Ada Vale": "PER", "Vale": "MISC", "Oslo": "LOC", "Oslo Act": "MISC", "built": "Deed"}
    arguments = ["--input", tmp_path / "all.jsonl", "--output", tmp_path / "out.json"]
    arguments += ["--report", tmp_path / "report.json"]
    for more in ((), ("--original", tmp_path / "sent.json")):
        assert run("import", *arguments, *more) == 0
        documents = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert [types(document) for document in documents] == [expected, expected]
        assert "mentions whose type LAW became MISC (2)" in capsys.readouterr().out
        noted = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["noted"]
        pairs = {"PERSON": "PER", "PRODUCT": "MISC", "GPE": "LOC", "LAW": "MISC"}
        counts = {f"mentions whose type {given} became {read}": 2 for given, read in pairs.items()}
        assert {kind: number for kind, number in noted.items() if "type" in kind} == counts


def test_a_mention_without_a_type_has_its_entitys(tmp_path, astral):
    def change(task, results):
        new = region(task["data"]["text"], "new", "town", "LOC")
        del new["value"]["labels"]
        ada = next(one["id"] for one in results if one["type"] == "labels" and one["value"]["text"] == "Ada Vale")
        link = {"type": "relation", "from_id": ada, "to_id": "new", "direction": "right", "labels": ["coreference"]}
        results += [new, link]

    (document,), report = back(tmp_path, astral, change)
    assert [mention["type"] for mention in document["vertexSet"][0]] == ["PER", "PER", "PER"] and not report.noted


# ------------------------------------------------------------------------------------------------ predictions to a tool


def test_a_relation_is_drawn_between_the_nearest_mentions():
    text = "Vale met Bo. Vale saw Bo in Oslo. Oslo is far."
    vale, bo = [(0, 4), (13, 17)], [(9, 11), (22, 24)]
    record = record_of(
        text, [("PER", vale), ("PER", bo), ("LOC", [(34, 38), (28, 32)])], [(0, "met", 1), (1, "in", 2)]
    )
    annotation, names, left_out = pre_annotation(record, 1)
    spans = {span.id: (span.start, span.end) for span in annotation.marked.spans}
    assert [(spans[x.head], x.relation, spans[x.tail]) for x in annotation.marked.links] == [
        ((0, 4), "met", (9, 11)),
        ((22, 24), "in", (28, 32)),
    ]
    assert [[spans[name] for name in chain] for chain in annotation.marked.chains] == [vale, bo, [(28, 32), (34, 38)]]
    assert (names, left_out, annotation.score) == ({"met": "met", "in": "in"}, {}, 0.5)
    record["triples"][0]["evidence"] = [1]
    (link, _) = pre_annotation(record, 1)[0].marked.links
    assert (spans[link.head], spans[link.tail]) == ((13, 17), (22, 24))


def test_what_has_no_character_is_counted():
    record = record_of("Vale  met Bo.", [("PER", [(5, 5)]), ("PER", [(10, 12)])], [(0, "met", 1)])
    labels = collect_labels([record], {}, "coreference")
    assert labels.left_out == {"mentions without a character": 1, "relations of entities without a mention": 1}
    assert labels.counts == {"documents": 1, "mentions": 1, "relations": 0} and labels.types == ["PER"]


def test_labels_have_readable_names_that_are_ids_again():
    triples = [(0, relation, 1) for relation in ("P1", "P2", "P3", "P4")]
    record = record_of("Vale met Bo.", [("PER", [(0, 4)]), ("PER", [(9, 11)])], triples)
    names = {"P1": "met", "P2": "saw", "P3": "saw", "P4": "P1", "P9": "other"}
    labels = collect_labels([record], names, "coreference")
    # A name that two share, or that is an id, cannot be told again.
    assert labels.relations == {"P1": "met", "P2": "P2", "P3": "P3", "P4": "P4", "P9": "other"}
    # An import looks at the names of all relations, those of the other documents, too.
    assert collect_labels([record], {**names, "P8": "met"}, "coreference").relations["P1"] == "P1"
    with pytest.raises(ValueError, match="--coreference_relation"):
        collect_labels([record], names, "met")
    with pytest.raises(ValueError, match="two documents called 'vale'"):
        collect_labels([record, record], {}, "coreference")
    records = [{**record, "id": 7}, {**record, "title": ""}, {**record, "id": 0}]
    assert collect_labels(records, {}, "coreference").titles == ["7", "document 2", "0"]


def test_brat_has_names_of_letters_alone(tmp_path):
    assert safe_names(["a b", "a_b", "東京", "大阪", ""], "x") == {
        "a b": "a_b_2",
        "a_b": "a_b",
        "東京": "x",
        "大阪": "x_2",
        "": "x_3",
    }
    assert safe_names(["Oslo", "oslo", "oslo_2", "a/B", "A/b"], "x") == {
        "Oslo": "Oslo",
        "oslo": "oslo_3",  # of files that differ in capitals alone, one would overwrite the other
        "oslo_2": "oslo_2",
        "a/B": "a_B",
        "A/b": "A_b_2",
    }
    record = record_of(
        "Vale met Bo.", [("Sea lion", [(0, 4)]), ("PER", [(9, 11)])], [(0, "met with | 1", 1)], title="A/B: 東"
    )
    folder = export(tmp_path, "brat", [record], names={"met with | 1": "met with"})
    assert {file.name for file in folder.iterdir()} == {
        *("A_B.txt", "A_B.ann", "annotation.conf", "visual.conf", "comm_docre.json")
    }
    for word in re.findall(r"(?m)^[TR]\d+\t(\S+) ", (folder / "A_B.ann").read_text(encoding="utf-8")):
        assert re.fullmatch(r"[\w-]+", word, re.ASCII) and word in (folder / "annotation.conf").read_text()
    assert "met_with_1 | met with\n" in (folder / "visual.conf").read_text()
    (document,), _ = read(folder)
    assert document["title"] == "A/B: 東" and facts(document) == {("Vale", "met with | 1", "Bo")}
    assert document["vertexSet"][0][0]["type"] == "Sea lion"
    with pytest.raises(ValueError, match="empty folder"):
        export(tmp_path, "brat", [record])
    (folder / "comm_docre.json").write_text("[]")
    with pytest.raises(ValueError, match=r"comm_docre\.json"):
        read(folder)


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
def test_an_export_to_brat_that_is_ended_can_be_repeated(is_killed, existed, tmp_path):
    documents = [labelled(f"{name} .", f"{name}: 1", [(name, "LOC")], []) for name in ("Oslo", "Lima")]
    labels, folder = collect_labels(documents, {}, "coreference"), tmp_path / "brat"
    if existed:
        folder.mkdir()

    def ended_after_the_first():
        yield pre_annotation(documents[0], 1)[0]
        if is_killed:
            os._exit(9)
        raise KeyboardInterrupt

    if not is_killed:
        with pytest.raises(KeyboardInterrupt):
            get_writer("brat")(folder, ended_after_the_first(), labels, "test")
        assert [path.name for path in tmp_path.iterdir()] == ["brat"] * existed and not list(tmp_path.glob("brat/*"))
    elif (process := os.fork()) == 0:
        try:
            get_writer("brat")(folder, ended_after_the_first(), labels, "test")
        finally:
            os._exit(1)
    else:
        os.waitpid(process, 0)
        assert not list(folder.glob("*.ann"))
    assert sorted(document["title"] for document in read(export(tmp_path, "brat", documents))[0]) == [
        "Lima: 1",
        "Oslo: 1",
    ]
    assert len(list(folder.iterdir())) == 7


def test_each_free_number_is_looked_for_once():
    made = []

    class Other(str):
        def __format__(self, spec):
            made.append(spec)
            return str(self)

    titles = [chr(0x4E00 + number) for number in range(1000)]
    safe = safe_names([*titles, "x_7"], Other("x"))
    assert safe[titles[-1]] == "x_1001" and len(set(safe.values())) == 1001
    assert len(made) <= len(titles)


def test_titles_that_differ_in_capitals_come_back(tmp_path):
    documents = [labelled(f"{name} .", name, [(name, "LOC")], []) for name in ("Oslo", "oslo")]
    folder = export(tmp_path, "brat", documents)
    assert len({file.name.lower() for file in folder.glob("*.txt")}) == 2
    assert {document["title"]: entities_of(document) for document in read(folder)[0]} == {
        "Oslo": [["Oslo"]],
        "oslo": [["oslo"]],
    }


def test_a_writer_has_its_name():
    with pytest.raises(SettingError, match="brat, doccano, label-studio"):
        get_writer("pubtator")
    with pytest.raises(NameTakenError):
        register_writer("brat")(print)


# -------------------------------------------------------------------------------------------------------- the commands


def run(*words):
    return comm_docre.main([str(word) for word in words])


@pytest.mark.parametrize("form", TOOLS)
def test_predictions_become_documents_to_train_on(form, tmp_path, capsys):
    text = "😀 Ada Vale was born in Oslo. Vale left."
    record = record_of(text, [("PER", [(2, 10), (29, 33)]), ("LOC", [(23, 27)])], [(0, "P19", 1)], id="vale")
    record["triples"][0] |= {"relation_name": "place of birth", "probability": 0.75}
    predictions, output = tmp_path / "triples.jsonl", tmp_path / "tool"
    predictions.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    names = tmp_path / "rel_info.json"
    names.write_text(
        json.dumps({"P19": "place of birth", "P20": "place of death", "NA": "nothing", "P0": "no relation"})
    )
    assert run("export", "--format", form, "--input", predictions, "--output", output, "--model_version", "v1") == 0
    assert "1 document, 3 mentions, 1 relation" in capsys.readouterr().out
    if form == "label-studio":
        (task,) = json.loads(output.read_text(encoding="utf-8"))
        (prediction,) = task["predictions"]
        assert (prediction["score"], prediction["model_version"]) == (0.75, "v1")
        assert [result["labels"] for result in prediction["result"] if result["type"] == "relation"] == [
            *(["place of birth"], ["coreference"])
        ]
    as_the_tool_returns_it(output, form)
    train = tmp_path / "train.json"
    assert run("import", "--format", form, "--input", output, "--output", train) == 0
    (document,) = json.loads(train.read_text(encoding="utf-8"))
    assert facts(document) == {("Ada Vale / Vale", "P19", "Oslo")} and document["title"] == "vale"
    assert json.loads(names.read_text())["P20"] == "place of death"
    if form == "brat":  # its folder has the names of relations, too
        names.unlink()
        assert run("import", "--format", form, "--input", output, "--output", train) == 0
        assert json.loads(names.read_text()) == {"P19": "place of birth"}
        names.write_text(
            json.dumps({"P19": "place of birth", "P20": "place of death", "NA": "nothing", "P0": "no relation"})
        )
    # The names of the relations are those of a file, too.
    other = tmp_path / "other"
    assert run("export", "--format", form, "--input", train, "--rel_info", names, "--output", other) == 0
    shown = other / "visual.conf" if form == "brat" else other
    assert "place of birth" in shown.read_text(encoding="utf-8")
    configuration = {"label-studio": other.with_suffix(".xml"), "brat": shown}.get(form)
    if configuration:  # an annotator may add a fact of a relation that was not predicted
        offered = configuration.read_text(encoding="utf-8")
        assert "place of death" in offered
        assert not any(name in offered for name in ("nothing", "no relation", "no_relation"))


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_pipe_is_refused_where_a_file_is_read_twice(command, tmp_path, capsys):
    source, target = os.pipe()
    os.write(target, json.dumps(record_of("Ada. Bo.", [], [], title="", id=1)).encode() + b"\n")
    os.close(target)
    words = ("--format", "doccano", "--input", f"/dev/fd/{source}", "--output", tmp_path / "tool")
    assert run(command, *words) == 2
    os.close(source)
    assert f"/dev/fd/{source}: found a pipe, which cannot be read twice; expected a file" in capsys.readouterr().err
    assert not (tmp_path / "tool").exists()


@pytest.mark.skipif(os.name == "nt", reason="/dev/stdout as POSIX has it")
def test_an_export_to_standard_output_is_nothing_else(tmp_path, capfd):
    predictions, output = tmp_path / "triples.jsonl", tmp_path / "lines.jsonl"
    predictions.write_text(json.dumps(record_of("Ada. Bo.", [("PER", [(0, 3)])], [], id=1)) + "\n", encoding="utf-8")
    words = ("export", "--format", "doccano", "--input", predictions, "--output")
    assert run(*words, output) == 0
    capfd.readouterr()
    assert run(*words, "/dev/stdout") == 0
    captured = capfd.readouterr()
    assert captured.out == output.read_text(encoding="utf-8")
    assert captured.err == "1 document, 1 mention, 0 relations: /dev/stdout\n"


@pytest.mark.skipif(os.name == "nt", reason="/dev/stdout as POSIX has it")
@pytest.mark.parametrize(
    "words",
    [
        ("--input", "i", "--format", "label-studio"),
        ("--input", "i", "--format", "brat"),
        ("--model", "m", "--format", "onnx"),
        ("--model", "m", "--format", "torch"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("output", ["/dev/stdout", "/dev/null"])
def test_what_export_writes_to_files_only(words, output, capfd):
    """What is several files, a folder, or a program, whose comparison with the model is printed."""
    assert run("export", "--output", output, *words) == 2
    captured = capfd.readouterr()
    expected = f"error: --output {output}: found standard output, a pipe or a device, expected a f"
    assert captured.err.startswith(expected) and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize("form", TOOLS)
def test_documents_without_text_are_not_exported(form, tmp_path, capsys):
    """Nobody can mark anything in them."""
    records = [record_of(text, [], [], title="", id=number) for number, text in enumerate(("", "Ada. Bo.", " \n"))]
    predictions, output = tmp_path / "triples.jsonl", tmp_path / "tool"
    predictions.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert run("export", "--format", form, "--input", predictions, "--output", output) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("1 document, 0 mentions, 0 relations")
    assert printed.err == "left out: documents without text (2)\n"
    files = sorted(output.glob("*.txt")) if form == "brat" else [output]
    assert [file.read_text(encoding="utf-8").count("Ada. Bo.") for file in files] == [1]
    if form != "brat":
        assert output.read_text(encoding="utf-8").count('"text"') == 1


def test_relations_that_an_import_adds_are_named(tmp_path, capsys):
    """One may be a known relation that was misspelt."""
    relations = ["born in", *(f"new {number:02}" for number in range(12))]

    def write(labels):
        entities = [
            {"id": number, "label": "PER", "start_offset": at, "end_offset": at + 1}
            for number, at in enumerate((0, 2))
        ]
        links = [{"id": n, "from_id": 0, "to_id": 1, "type": label} for n, label in enumerate(labels)]
        line = {"id": 1, "text": "A B.", "entities": entities, "relations": links, "coreference_relation": "same"}
        (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
        words = ("--input", tmp_path / "lines.jsonl", "--output", tmp_path / "out" / "train.json")
        assert run("import", *words, "--report", tmp_path / "report.json") == 0
        report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        return capsys.readouterr().out.splitlines()[-1].split("rel_info.json: ")[1], report["added_relations"]

    (tmp_path / "out").mkdir()
    assert write(["born in"]) == ("1 relation added: born in", ["born in"])
    assert write(["born in", "brn in", "died in"]) == ("2 relations added: brn in, died in", ["brn in", "died in"])
    assert write(["born in"]) == ("0 relations added", [])
    shown = ", ".join(relations[1:11])
    assert write(relations) == (f"12 relations added, the first 10 are {shown}", relations[1:])


def test_the_command_keeps_what_the_originals_have(tmp_path, capsys):
    source = SAMPLE / "dev_revised.json"
    assert run("export", "--format", "doccano", "--input", source, "--output", tmp_path / "lines.jsonl") == 0
    arguments = ("--input", tmp_path / "lines.jsonl", "--output", tmp_path / "dev.json", "--original", source)
    assert run("import", *arguments) == 0
    assert json.loads((tmp_path / "dev.json").read_text(encoding="utf-8")) == json.loads(
        source.read_text(encoding="utf-8")
    )
    (tmp_path / "dev.json").rename(tmp_path / "again.json")
    assert "format doccano" in capsys.readouterr().err
    names = ("--rel_info", SAMPLE / "rel_info.json")  # people see names, and the evidence of what they left stays
    words = ("export", "--format", "doccano", "--input", source, "--output", tmp_path / "names.jsonl", *names)
    assert run(*words) == 0 and "country" in (tmp_path / "names.jsonl").read_text(encoding="utf-8")
    (tmp_path / "rel_info.json").write_bytes((SAMPLE / "rel_info.json").read_bytes())
    assert run("import", "--input", tmp_path / "names.jsonl", *arguments[2:]) == 0
    assert (tmp_path / "dev.json").read_text(encoding="utf-8") == (tmp_path / "again.json").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run("import", *arguments[:2], "--output", source, "--original", source) == 2
    assert "would be written over the input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "found neither, expected --model"),
        (("--model", "m", "--input", "i"), "found both"),
        (("--input", "i"), "expected --format label-studio, doccano, brat or csv"),
        (("--input", "i", "--format", "onnx"), "expected --format label-studio, doccano, brat or csv"),
        (("--model", "m", "--format", "brat"), "expected --input"),
        (("--model", "m"), "expected a file name that ends with .onnx or .pt2, or --format"),
    ],
)
def test_what_export_cannot_do_is_one_line(words, expected, capsys):
    assert run("export", "--output", "o", *words) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_the_flags_know_what_is_registered():
    """The parsers are outside of the package, which is slow to import."""

    def choices(command, flag):
        return set(comm_docre.parser_of(command)._option_string_actions[flag].choices)

    assert choices("export", "--format") == {
        export_command.TABLE,
        *export_command.FORMATS.values(),
        *format_registry._WRITERS,
    }
    assert choices("import", "--entities") == set(ENTITY_WAYS)
    assert choices("import", "--offset_unit") == set(OFFSET_UNITS)
