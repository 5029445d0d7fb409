"""The forms of documents that named-entity tools, annotation tools and data frames hand over."""

import json
import math

import numpy as np
import pytest
from helpers import LABELS, SHARED, random_document, requires_shared, tiny_model, tiny_system
from transformers import BertJapaneseTokenizer

from modeling_comm import CommProcessor, DocumentRelationExtractionPipeline
from modeling_comm.document_input import NoEntitiesError, read_document_input
from modeling_comm.documents import DocumentError

TEXT = "Ada Vale lives in Oslo. She likes it."
SPANS = [{"start": 0, "end": 8, "label": "PERSON"}, {"start": 18, "end": 22, "label": "GPE"}]
ENTITIES = [("Ada Vale", "PER"), ("Oslo", "LOC")]


def entities(document):
    return [(entity["name"], entity["type"]) for entity in document.entities]


def with_key(key, **more):
    return [{"start": one["start"], "end": one["end"], key: one["label"], **more} for one in SPANS]


@pytest.mark.parametrize(
    "item",
    [
        {"mentions": SPANS},
        {"mentions": with_key("type")},
        {"mentions": with_key("entity_group", score=0.98)},
        {"mentions": [(one["start"], one["end"], one["label"]) for one in SPANS]},
        {"entities": [{"label": one["label"], "mentions": [(one["start"], one["end"])]} for one in SPANS]},
        {"entities": [{"type": one["label"], "mentions": [one], "label": None} for one in SPANS]},
        {"ents": SPANS, "tokens": [{"id": 0, "start": 0, "end": 3}], "spans": {"ruler": [{"start": 0, "end": 3}]}},
        {"spans": [{**one, "token_start": 0, "token_end": 1} for one in SPANS], "relations": [], "answer": "accept"},
        {"spans": [{**one, "type": "span"} for one in SPANS]},
        {"entities": [{"mentions": [one]} for one in SPANS]},
        {"mentions": np.array(SPANS), "title": math.nan},
        {"mentions": [{**SPANS[0], "start": np.int64(0)}, SPANS[1]], "entities": math.nan},
    ],
    ids=[
        "label",
        "type",
        "group",
        "tuples",
        "by_label",
        "by_type",
        "spacy",
        "prodigy",
        "relations",
        "by_mention",
        "arrays",
        "numbers",
    ],
)
def test_forms_of_entities(item):
    read = read_document_input({"text": TEXT, **item}, ner=lambda text: pytest.fail("entities are given"))
    assert entities(read) == ENTITIES
    assert read.title == ""


@pytest.mark.parametrize("form", ["mentions", "entities", "ner"])
def test_a_type_that_the_model_knows_stays(form):
    item = {"text": TEXT}
    if form == "mentions":
        item["mentions"] = SPANS
    elif form == "entities":
        item["entities"] = [{"mentions": [SPANS[0]]}, {"mentions": [SPANS[1]], "type": SPANS[1]["label"]}]
    read = read_document_input(item, ner=lambda text: SPANS, known_types={"GPE", "DATE"})
    assert entities(read) == [("Ada Vale", "PER"), ("Oslo", "GPE")]
    assert read.document["vertexSet"][1][0]["type"] == "GPE"


def test_the_checkpoint_says_which_types_stay():
    # "GPE" is what the training documents called it: the constraint holds for a text as for a document in their format.
    types = {"types": ["GPE", "PER"], "pairs": {label: [["PER", "GPE"]] for label in LABELS.values() if label != "Na"}}
    config, processor = tiny_system(relation_types=types, type_constraint="hard")
    extract = DocumentRelationExtractionPipeline(tiny_model(config), processor, threshold_offset=-100.0)
    record = extract({"text": TEXT, "mentions": SPANS})
    assert [entity["type"] for entity in record["entities"]] == ["PER", "GPE"]
    assert {(one["head"], one["tail"]) for one in record["triples"]} == {(0, 1)}
    config, processor = tiny_system(markers="entity_type", marker_types=["PERSON", "GPE"])
    marked = DocumentRelationExtractionPipeline(tiny_model(config), processor)
    assert [one["type"] for one in marked({"text": TEXT, "mentions": SPANS})["entities"]] == ["PERSON", "GPE"]


def test_sentences_of_spacy_are_used():
    sents = [{"start": 0, "end": 17}, {"start": 17, "end": len(TEXT)}]
    assert read_document_input({"text": TEXT, "ents": SPANS, "sents": sents}).sentences == [(0, 17), (18, len(TEXT))]
    with pytest.raises(DocumentError) as error:
        read_document_input({"text": TEXT, "ents": SPANS, "sents": [{"start": 0, "end": 17}]})
    assert error.value.field == "sentence_splitter"
    # Any other `sents` beside a text is the user's own field.
    assert len(read_document_input({"text": TEXT, "ents": SPANS, "sents": ["Ada ..."]}).sentences) == 2


def test_docs_of_spacy():
    spacy = pytest.importorskip("spacy", reason="needs spaCy, which the extra `text` brings")
    nlp = spacy.blank("en")
    bare = nlp(TEXT)
    with pytest.raises(NoEntitiesError):
        read_document_input(bare)
    assert entities(read_document_input(bare, ner=lambda text: SPANS)) == ENTITIES
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Ada Vale"}, {"label": "GPE", "pattern": "Oslo"}])
    nlp.add_pipe("sentencizer")
    doc = nlp(TEXT)
    for item in (doc, doc.to_json()):
        read = read_document_input(item)
        assert entities(read) == ENTITIES and read.sentences == [(0, 23), (24, len(TEXT))]
    assert read_document_input(nlp("It rained.")).entities == []  # looked for, and none found
    extractor = DocumentRelationExtractionPipeline(*reversed(make()), device="cpu")
    assert extractor(doc) == extractor([doc])[0]  # a Doc is one document, though it iterates over its tokens


def make():
    config, processor = tiny_system("bert")
    return processor, tiny_model(config)


@pytest.mark.parametrize(
    "field",
    [
        *("relations", "sections", "questions", "dimensions", "source"),
        *("amenities", "identity", "identities", "entries", "mentioned", "entity_id"),
    ],
)
def test_fields_of_ones_own(field):
    assert read_document_input({"text": TEXT, field: ["anything"]}, ner=lambda text: SPANS).entities


def test_a_field_of_ones_own_may_nest_deep():
    deep = json.loads("[" * 600 + "]" * 600)
    assert read_document_input({"text": TEXT, "mentions": SPANS, "own": deep}).entities
    for item, field in (({"text": deep}, "text"), ({"text": TEXT, "mentions": deep}, "mentions[0]")):
        with pytest.raises(DocumentError) as error:
            read_document_input(item, ner=lambda text: [])
        assert error.value.field == field


@pytest.mark.parametrize(
    "field", ["entites", "Entities", "enities", "entitys", "entity", "mention", "metions", "Mentions"]
)
def test_misspelt_fields(field):
    with pytest.raises(DocumentError) as error:
        read_document_input({"text": TEXT, field: SPANS}, ner=lambda text: [])
    assert error.value.field == field


@pytest.mark.parametrize(
    "text, names",
    [
        ("#TeamOslo meets #TeamBergen tonight", ["Oslo", "Bergen"]),
        ("Der Neunorweger und die Altbergener", ["norweger", "bergener"]),
        ("LiFePO4 and LiCoO2 were compared", ["FePO4", "CoO2"]),
        ("anti-hTNF and anti-hEGFR antibodies", ["TNF", "EGFR"]),
        ("Der Neuösterreicher und die Altzürcher", ["österreicher", "zürcher"]),
    ],
    ids=["hashtags", "compounds", "formulas", "genes", "umlauts"],
)
def test_right_offsets_inside_words(text, names):
    mentions = [{"start": text.index(name), "end": text.index(name) + len(name)} for name in names]
    assert [name for name, _ in entities(read_document_input({"text": text, "mentions": mentions}))] == names


LONG = "preOslo is subBergen or nonLima. " + "And so on. " * 20


def test_a_mapping_of_columns_is_no_list_of_mentions():
    columns = {"start": [0, 18], "end": [8, 22]}
    with pytest.raises(DocumentError, match=r"field mentions: found .*, expected a list of mentions"):
        read_document_input({"text": TEXT, "mentions": columns})


def test_offsets_that_may_count_words_need_the_text():
    """In a long text, small offsets may be indices of words; the text of each mention proves that they are not."""
    names = ["Oslo", "Bergen", "Lima"]
    mentions = [{"start": LONG.index(name), "end": LONG.index(name) + len(name)} for name in names]
    with pytest.raises(DocumentError) as error:
        read_document_input({"text": LONG, "mentions": mentions})
    assert "indices of words" in error.value.expected
    confirmed = [{**mention, "text": name} for mention, name in zip(mentions, names, strict=True)]
    for item in ({"mentions": confirmed}, {"entities": [{"mentions": [one]} for one in confirmed]}):
        assert [name for name, _ in entities(read_document_input({"text": LONG, **item}))] == names


@pytest.mark.parametrize(
    "encoding, unit, text",
    [
        ("utf-8", "bytes", "Çağ: Ümraniye, Şişli and Üsküdar, now"),
        ("utf-16-le", "UTF-16", "👍👍👍 Oslo, Bergen and Lima, now"),
    ],
)
def test_offsets_that_count_bytes_or_utf_16(encoding, unit, text):
    size = len("a".encode(encoding))
    names = [word.strip(",") for word in text.split() if word[0].isupper()][-3:]
    starts = [len(text[: text.index(name)].encode(encoding)) // size for name in names]
    mentions = [
        {"start": start, "end": start + len(name.encode(encoding)) // size}
        for start, name in zip(starts, names, strict=True)
    ]
    with pytest.raises(DocumentError) as error:
        read_document_input({"text": text + " and more words" * 2, "mentions": mentions})
    assert unit in error.value.expected


def test_a_mentions_text_must_be_there():
    with pytest.raises(DocumentError) as error:
        read_document_input({"text": TEXT, "mentions": [{"start": 1, "end": 9, "text": "Ada Vale"}]})
    assert error.value.field == "mentions[0]" and "Ada Vale" in error.value.expected


@pytest.mark.parametrize("without", ["title", "name", "type"])
def test_fields_of_docred_that_may_be_left_out(without):
    document = random_document(3, 30, seed=1)
    document.pop("labels", None)
    mentions = [
        [{k: v for k, v in mention.items() if k != without} for mention in entity] for entity in document["vertexSet"]
    ]
    bare = {**{k: v for k, v in document.items() if k != without}, "vertexSet": mentions}
    read = read_document_input(bare)
    for entity, expected in zip(read.document["vertexSet"], document["vertexSet"], strict=True):
        for mention, full in zip(entity, expected, strict=True):
            assert mention == {**full, "type": "MISC" if without == "type" else full["type"]}
    assert read.document["title"] == ("untitled" if without == "title" else document["title"])
    assert read.title == ("" if without == "title" else document["title"])


def test_a_mention_without_type_has_that_of_its_entity():
    def types(*given):
        mentions = [{"sent_id": 0, "pos": [0, 1], **({} if kind is None else {"type": kind})} for kind in given]
        read = read_document_input({"sents": [["Oslo"]], "vertexSet": [mentions]})
        return [one["type"] for one in read.document["vertexSet"][0]], read.document.get("untyped_entities")

    assert types(None, "LOC") == (["LOC", "LOC"], None)
    assert types("PER", "LOC", None, "LOC") == (["PER", "LOC", "LOC", "LOC"], None)
    assert types(None, None) == (["MISC", "MISC"], [0])
    assert types("", "LOC") == (["LOC", "LOC"], None)  # as a table has it
    assert types("", "") == (["MISC", "MISC"], [0])


def test_entities_without_type_join_those_that_the_document_names():
    sents, place = [["Ada", "met", "Bob"]], {"sent_id": 0}
    entities = [[{**place, "pos": [0, 1], "type": "MISC"}], [{**place, "pos": [2, 3]}]]
    read = read_document_input({"sents": sents, "vertexSet": entities, "untyped_entities": [0]})
    assert read.document["untyped_entities"] == [0, 1]
    with pytest.raises(DocumentError, match="untyped_entities"):
        read_document_input({"sents": sents, "vertexSet": entities, "untyped_entities": "0"})


@pytest.mark.parametrize("broken", [{"pos": [5, 999]}, {"pos": 3}, {"sent_id": 99}, {"sent_id": "0"}])
def test_what_is_left_out_hides_no_fault(broken):
    document = random_document(2, 20, seed=1)
    document["vertexSet"][0][0] = {"sent_id": 0, "pos": [0, 1], **broken}
    with pytest.raises(DocumentError) as error:
        read_document_input(document)
    assert error.value.field.startswith("vertexSet[0][0].")


def test_a_data_frame_is_its_rows(tmp_path):
    pandas = pytest.importorskip("pandas", reason="needs pandas, which the extra `training` brings")
    documents = [random_document(3, 20, seed=seed) for seed in range(3)]
    pandas.DataFrame(documents).to_parquet(tmp_path / "documents.parquet")
    frame = pandas.read_parquet(tmp_path / "documents.parquet")
    processor, model = make()
    extractor = DocumentRelationExtractionPipeline(model, processor, device="cpu")
    expected = extractor(documents)
    assert list(extractor(frame)) == expected
    assert extractor(frame.to_dict("records")[0]) == expected[0]
    texts = pandas.DataFrame({"text": [TEXT, TEXT], "mentions": [SPANS, SPANS], "title": ["Ada", None]})
    assert [record["title"] for record in extractor(texts)] == ["Ada", ""]


def test_tokenizers_written_in_python(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "*", *"東京は日本"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = BertJapaneseTokenizer(
        str(tmp_path / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="character"
    )
    processor = CommProcessor(tokenizer, id2label=LABELS)
    tokyo = [{"name": "東京", "sent_id": 0, "pos": [0, 1], "type": "LOC"}]
    japan = [{"name": "日本", "sent_id": 0, "pos": [2, 3], "type": "LOC"}]
    document = {"title": "東京", "sents": [["東京", "は", "日本", "[SEP]"]], "vertexSet": [tokyo, japan]}
    processor.save_pretrained(tmp_path / "processor")
    for one in (processor, CommProcessor.from_pretrained(tmp_path / "processor")):
        # The text's own "[SEP]" is a word like others.
        assert one(document)["input_ids"].tolist() == [[2, 5, 6, 7, 5, 8, 5, 9, 10, 5, *[1] * 5, 3]]


def test_spans_in_the_field_of_entities():
    """As GLiNER gives them: with their text, a label in words and a score, which `mentions` takes."""
    given = [("Oslo", 0, 4, "location"), ("Norway", 11, 17, "country")]
    spans = [
        {"start": start, "end": end, "text": text, "label": label, "score": 0.9} for text, start, end, label in given
    ]
    text = "Oslo is in Norway."
    for item, ner in (({"text": text, "mentions": spans}, None), (text, lambda _: spans)):
        assert [entity["name"] for entity in read_document_input(item, ner=ner).entities] == ["Oslo", "Norway"]
    with pytest.raises(DocumentError, match="a list of spans has the field name mentions") as caught:
        read_document_input({"text": text, "title": "Oslo", "entities": spans}, index=3)
    assert (caught.value.index, caught.value.title, caught.value.field) == (3, "Oslo", "entities")


@requires_shared
@pytest.mark.parametrize(
    "case", ["05_spacy_and_prodigy", "08_spans_inside_words", "04_gliner_mentions", "03_gold_relations_field"]
)
def test_lines_of_the_cases(case):
    for line in (SHARED / "cases" / f"{case}.jsonl").read_text(encoding="utf-8").splitlines():
        read_document_input(json.loads(line), ner=lambda text: [])


def test_no_sentences_beside_a_text_are_none_given():
    item = {"text": "Oslo is in Norway. It rains.", "mentions": [(0, 4), (11, 17)]}
    assert read_document_input({**item, "sents": []}).document == read_document_input(item).document


def test_a_span_of_spacy_is_a_document_of_its_own():
    """Its entities count characters from the beginning of the document that it is a part of."""
    spacy = pytest.importorskip("spacy", reason="needs spaCy, which the extra `text` brings")
    doc = spacy.blank("en")("It rains. Oslo is in Norway.")
    doc.ents = [doc.char_span(10, 14, "LOC"), doc.char_span(21, 27, "LOC")]
    read = read_document_input(doc[3:])
    assert read.text == "Oslo is in Norway."
    assert [entity["name"] for entity in read.entities] == ["Oslo", "Norway"]


@pytest.mark.parametrize(
    ("item", "tool"),
    [
        ({"id": 1, "data": {"text": TEXT}, "annotations": [{"result": []}]}, "label-studio"),
        ({"text": TEXT, "entities": [{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 8}]}, "doccano"),
    ],
)
def test_exports_of_annotation_tools_are_referred_to_the_import(item, tool):
    with pytest.raises(DocumentError, match=f"comm-docre import --format {tool}"):
        read_document_input(item)


def test_a_mention_of_several_fragments_is_said(caplog):
    mention = {"start": 0, "end": 5, "fragments": [[0, 5], [16, 23]]}
    read_document_input(
        {"text": "North and South America", "mentions": [mention, {"start": 10, "end": 23, "fragments": 1}]}
    )
    (warning,) = caplog.messages
    assert "mentions[0]" in warning and "of 2 fragments, 'North' is taken" in warning
