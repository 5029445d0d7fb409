"""Documents as they come: other languages, types of any name, tokens of white space, very many entities, facts of an entity with
itself. They are checked, encoded and predicted like any other."""

import json

import pytest
from helpers import (
    SHARED,
    byte_level_tokenizer,
    requires_shared,
    tiny_config,
    tiny_model,
    tiny_processor,
    word_piece_tokenizer,
)

from dataset_scripts.builder import load_splits, to_document
from dataset_scripts.provenance import read_provenance
from modeling_comm import DocumentRelationExtractionPipeline
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.features import encoding_report

DWIE = SHARED / "data" / "dwie"
RELATIONS = {0: "Na", 1: "国", 2: "capital::of"}


def mention(name, sent_id, start, end, kind):
    return {"name": name, "sent_id": sent_id, "pos": [start, end], "type": kind}


JAPANESE = {
    "title": "東京",
    "sents": [
        ["東京", "は", "日本", "の", "首都", "で", "、", "人口", "は", "1400万", "人", "。"],
        ["物価", "は", "2", "%", "上昇", "し", "た", "。"],
    ],
    "vertexSet": [
        [mention("東京", 0, 0, 1, "LOC"), mention("首都", 0, 4, 5, "LOC")],
        [mention("日本", 0, 2, 3, "LOC")],
        [mention("2 %", 1, 2, 4, "%")],
        [mention("1400万 人", 0, 9, 11, "NUM")],
    ],
    "labels": [{"h": 0, "t": 1, "r": "国", "evidence": [0]}],
}
# Characters as tokens; names have no spaces between them.
CHINESE = {
    "title": "北京",
    "sents": [list("北京是中华人民共和国的首都。"), list("它位于华北。")],
    "vertexSet": [
        [mention("北京", 0, 0, 2, "地点"), mention("它", 1, 0, 1, "地点")],
        [mention("中华人民共和国", 0, 3, 10, "国家")],
        [mention("华北", 1, 3, 5, "地点")],
    ],
    "labels": [{"h": 0, "t": 1, "r": "capital::of"}],
}
# One "sentence" a document, line breaks among its tokens and one inside a mention.
NEWS = {
    "title": "DW_1",
    "sents": [["Berlin", "\n", "\n", "The", "Foreign", "\n", "Ministry", "met", "\u00a0", "in", "Berlin", ".", ""]],
    "vertexSet": [
        [mention("Berlin", 0, 0, 1, "type::location"), mention("Berlin", 0, 10, 11, "type::location")],
        [mention("Foreign \n Ministry", 0, 4, 7, "type::organization")],
        [mention("\n", 0, 1, 2, "type::other")],
    ],
    "labels": [{"h": 1, "t": 0, "r": "capital::of", "evidence": [0]}],
}
DOCUMENTS = [JAPANESE, CHINESE, NEWS]


def system(tokenizer):
    kind = "roberta" if tokenizer is byte_level_tokenizer else "bert"
    built = tokenizer()
    config = tiny_config(kind, {"tokenizer": built}, id2label=RELATIONS)
    return tiny_model(config), tiny_processor(config, built, relation_names={"国": "country"})


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer, word_piece_tokenizer])
def test_other_languages_are_encoded_and_predicted(tokenizer):
    model, processor = system(tokenizer)
    report = encoding_report(processor.encode(DOCUMENTS))
    assert (
        report["lost_mentions"] == report["lost_entities"] == report["unknown_facts"] == report["unasked_facts"] == 0
    )
    # What a vocabulary lacks is counted; bytes lack nothing.
    assert (report["unknown_tokens"] == 0) is (tokenizer is byte_level_tokenizer)
    extract = DocumentRelationExtractionPipeline(model, processor)
    records = extract(DOCUMENTS, threshold_offset=-100.0, batch_size=2)
    for record, document in zip(records, DOCUMENTS, strict=True):
        size = len(document["vertexSet"])
        assert len(record["triples"]) == 2 * size * (size - 1)
        assert record["text"] == " ".join(" ".join(sentence) for sentence in document["sents"])
        for entity, mentions in zip(record["entities"], document["vertexSet"], strict=True):
            assert entity["type"] == mentions[0]["type"]
            spans = [record["text"][one["start"] : one["end"]] for one in entity["mentions"]]
            tokens = [" ".join(document["sents"][m["sent_id"]][slice(*m["pos"])]) for m in mentions]
            assert spans == tokens
        json.dumps(record)


def test_a_sentence_that_is_not_known_is_an_error_that_says_so():
    document = {
        **CHINESE,
        "vertexSet": [[{**one, "sent_id": None} for one in mentions] for mentions in CHINESE["vertexSet"]],
    }
    with pytest.raises(DocumentError) as refused:
        validate_document(document, source="zh.json", index=3)
    assert refused.value.field == "vertexSet[0][0].sent_id" and "found None" in str(refused.value)


def test_a_fact_of_an_entity_with_itself_is_said_and_counted(tmp_path, caplog):
    own = {**NEWS, "labels": [*NEWS["labels"], {"h": 0, "t": 0, "r": "capital::of"}]}
    (tmp_path / "train.json").write_text(json.dumps([JAPANESE, own]), encoding="utf-8")
    files = {"train": str(tmp_path / "train.json")}
    with pytest.raises(DocumentError) as refused:
        load_splits("local", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert refused.value.field == "labels[1].t" and "an entity other than h" in str(refused.value)
    loaded = load_splits("local", data_files=files, on_bad_document="drop_part", cache_dir=str(tmp_path / "cache"))
    assert list(map(to_document, loaded["train"])) == [JAPANESE, NEWS]
    assert read_provenance(loaded)["train"]["dropped"] == {"facts": 1, "documents": 1}
    assert "left out 0 mentions, 0 entities, 1 fact of 1 document" in caplog.text


@requires_shared
def test_the_longest_and_richest_documents_of_dwie():
    documents = [
        one for file in ("dev", "test") for one in json.loads((DWIE / f"{file}.json").read_text(encoding="utf-8"))
    ]
    for document in documents:
        validate_document(document)
    richest = max(documents, key=lambda one: len(one["vertexSet"]))
    longest = max(documents, key=lambda one: sum(map(len, one["sents"])))
    assert (len(richest["vertexSet"]), sum(map(len, longest["sents"]))) == (81, 1651)
    relations = sorted({label["r"] for one in documents for label in one["labels"]})
    config = tiny_config("bert", id2label=dict(enumerate(["Na", *relations])))
    model, processor = tiny_model(config), tiny_processor(config, window_size=64, window_stride=16)
    chosen = [richest, longest]
    report = encoding_report(processor.encode(chosen))
    assert report["lost_mentions"] == report["lost_tokens"] == report["unknown_facts"] == 0 and report["windows"] > 20
    assert report["pairs_without_context"] > 0  # windows of 64 tokens are short; the model says so
    records = DocumentRelationExtractionPipeline(model, processor)(
        chosen, max_sentences=0, top_k=10, threshold_offset=-100.0
    )
    assert [len(record["entities"]) for record in records] == [len(one["vertexSet"]) for one in chosen]
    assert [len(record["triples"]) for record in records] == [10, 10]
