"""The pipeline: every kind of input and of collection, its record, explanations, errors, saving and the Hub."""

import itertools
import json
import multiprocessing
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh_process import run_fresh
from helpers import (
    LABELS,
    SHARED,
    entity_attention,
    random_document,
    requires_shared,
    small_encoder,
    tiny_model,
    tiny_system,
)
from hub_server import HubServer
from transformers import AutoModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import modeling_comm
from modeling_comm import CommProcessor, DocumentRelationExtractionPipeline
from modeling_comm.backbone_attention import without_capturing_hooks
from modeling_comm.documents import DocumentError
from modeling_comm.pipeline_comm import TASK
from modeling_comm.prediction_record import parse_record
from modeling_comm.relation_encoders import available_relation_encoders
from modeling_comm.settings import SettingError
from modeling_comm.text_to_document import text_from_document

NAMES = {"P17": "country"}
TEXT = "Anna wrote in Oslo. Omar died near the Nile (Cairo)."
ENTITIES = [
    {"type": "PER", "mentions": [{"start": 0, "end": 4}]},
    {"type": "GPE", "mentions": [{"start": 14, "end": 18}], "name": "Oslo, Norway"},
    {"type": "PERSON", "mentions": [{"start": 20, "end": 24}]},
]


def make(kind="bert", **fields):
    config, processor = tiny_system(kind, relation_names=NAMES, **fields)
    return DocumentRelationExtractionPipeline(tiny_model(config), processor, device="cpu")


@pytest.fixture(scope="module")
def extractor():
    return make()


@pytest.fixture(scope="module")
def documents():
    """Of many lengths, long ones among them."""
    return [random_document(2 + seed % 4, 10 * (1 + 7 * seed % 11), seed=seed) for seed in range(20)]


@pytest.fixture(scope="module")
def records(extractor, documents):
    return extractor(documents)


@pytest.fixture(scope="module")
def saved(extractor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    extractor.save_pretrained(folder)
    return folder


def assert_same(found, expected, tolerance=1e-4):
    """Equal but for what another batch changes in the last digits."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance)
    elif isinstance(expected, (dict, list)):
        assert type(found) is type(expected) and len(found) == len(expected)
        for key in expected if isinstance(expected, dict) else range(len(expected)):
            assert_same(found[key], expected[key], tolerance)
    else:
        assert found == expected


# ------------------------------------------------------------------------------------------------------------- records


def test_the_record_is_what_model_and_processor_say(extractor, documents, records):
    assert any(record["triples"] for record in records)
    for document, record in zip(documents, records, strict=True):
        with torch.no_grad():
            outputs = extractor.model(**extractor.processor(document))
        (expected,) = extractor.processor.post_process_relation_extraction(outputs, document)
        assert json.loads(json.dumps(record)) == record
        assert parse_record(record) is record
        assert list(record) == ["version", "title", "text", "sentences", "entities", "triples", "lost"]
        there = text_from_document(document)
        assert (record["title"], record["text"]) == (document["title"], there.text)
        assert record["entities"] == without_texts(there.entities)
        for entity, same in zip(record["entities"], there.entities, strict=True):
            texts = [record["text"][mention["start"] : mention["end"]] for mention in entity["mentions"]]
            assert texts == [mention["text"] for mention in same["mentions"]]
        for triple, wanted in zip(record["triples"], expected, strict=True):
            assert list(triple) == ["head", "tail", "relation", "relation_name", "score", "explanation"]
            assert (triple["relation"], triple["score"]) == (
                wanted["relation"],
                pytest.approx(wanted["score"], abs=1e-5),
            )
            assert triple["relation_name"] == NAMES.get(wanted["relation"], wanted["relation"])
            assert (triple["head"], triple["tail"]) == (wanted["head"], wanted["tail"])
            for end in ("head", "tail"):
                assert record["entities"][triple[end]]["name"] == wanted[f"{end}_name"]


def without_texts(entities):
    """Entities as a record has them."""
    return [
        {**entity, "mentions": [{k: m[k] for k in ("start", "end", "sentence")} for m in entity["mentions"]]}
        for entity in entities
    ]


def test_the_four_kinds_of_input_agree(extractor, documents):
    document = documents[3]
    expected = extractor(document)
    there = text_from_document(document)
    flat = [
        {"start": mention["start"], "end": mention["end"], "type": entity["type"], "entity": number}
        for number, entity in enumerate(there.entities)
        for mention in entity["mentions"]
    ]
    assert len({(mention["start"], mention["end"]) for mention in flat}) == len(flat) > len(there.entities)
    entity_of = {(mention["start"], mention["end"]): mention["entity"] for mention in flat}

    def coreference(text, mentions):
        groups = [[] for _ in there.entities]
        for number, mention in enumerate(mentions):
            groups[entity_of[mention["start"], mention["end"]]].append(number)
        return groups

    def ner(text):
        assert text == there.text
        return flat

    options = {"sentence_splitter": lambda text: there.sentences}
    with_entities = extractor({"text": there.text, "entities": there.entities, "title": there.title}, **options)
    assert with_entities == expected
    options |= {"coreference": coreference}
    with_mentions = extractor({"text": there.text, "mentions": flat, "title": None}, **options)
    assert with_mentions["title"] == "" and with_mentions["text"] == there.text
    assert extractor(there.text, ner=ner, **options) == with_mentions
    assert extractor({"text": there.text, "title": "T"}, ner=ner, **options) == {**with_mentions, "title": "T"}
    places = [entity["mentions"][0] for entity in with_mentions["entities"]]  # in another order
    order = [entity_of[mention["start"], mention["end"]] for mention in places]
    pairs = {(order[triple["head"]], order[triple["tail"]], triple["relation"]) for triple in with_mentions["triples"]}
    assert pairs == {(triple["head"], triple["tail"], triple["relation"]) for triple in expected["triples"]}


def test_a_text(extractor):
    record = extractor({"text": TEXT, "entities": ENTITIES})
    assert record["sentences"] == [[0, 19], [20, 52]]
    assert [(entity["name"], entity["type"]) for entity in record["entities"]] == [
        ("Anna", "PER"),
        ("Oslo, Norway", "LOC"),
        ("Omar", "PER"),
    ]
    assert record["entities"][2]["mentions"] == [{"start": 20, "end": 24, "sentence": 1}]
    entities = record["entities"]
    ends = {(entities[triple["head"]]["name"], entities[triple["tail"]]["type"]) for triple in record["triples"]}
    assert ("Oslo, Norway", "PER") in ends


@pytest.mark.parametrize("encoder", available_relation_encoders())
def test_few_entities_and_empty_texts(encoder):
    extractor = make(**small_encoder(encoder))
    inputs = [
        {"text": text, "entities": ENTITIES[:count]} for count in (0, 1) for text in (TEXT, "", " \n")[: 3 - 2 * count]
    ]
    found = extractor(inputs, batch_size=2)
    assert [len(record["entities"]) for record in found] == [0, 0, 0, 1]
    assert all(record["triples"] == [] and record["lost"] == {} for record in found)
    assert found[1]["sentences"] == found[2]["sentences"] == []


def test_labels_are_not_looked_at(extractor, documents, records):
    document = {**documents[0], "labels": [{"h": 0, "t": 1, "r": "a relation of another data set"}]}
    assert_same(extractor([document, {**documents[1], "labels": None}]), records[:2])


def test_what_the_cap_leaves_out_is_counted(documents, records):
    capped = make(max_relations_per_pair=1)(documents)
    assert any(record["lost"].get("relations_over_cap") for record in capped)
    for record, whole in zip(capped, records, strict=True):
        pairs = [(triple["head"], triple["tail"]) for triple in record["triples"]]
        assert len(set(pairs)) == len(pairs)
        assert record["lost"].get("relations_over_cap", 0) == len(whole["triples"]) - len(pairs)


def test_what_encoding_loses_is_reported(extractor):
    document = random_document(8, 300, mentions=1, seed=1)  # windows of 32 subword tokens
    feature = extractor.processor.encode([document])[0]
    assert feature["pairs_without_context"] > 0
    record = extractor(document)
    assert record["lost"] == {"pairs_without_context": feature["pairs_without_context"]}
    assert any(not triple["explanation"] for triple in record["triples"])


def test_threshold_offset(extractor, documents, records):
    def keys(record):
        return {(t["head"], t["tail"], t["relation"]): t["score"] for t in record["triples"]}

    least = torch.sigmoid(torch.tensor(1.0)).item()
    for record, stricter in zip(records, extractor(documents, threshold_offset=1.0), strict=True):
        assert keys(stricter).keys() == {key for key, score in keys(record).items() if score > least}
    assert all(not record["triples"] for record in extractor(documents, threshold_offset=1e4))
    assert_same(make(threshold_offset=1.0)(documents), extractor(documents, threshold_offset=1.0))
    assert_same(make(threshold_offset=1.0)(documents, threshold_offset=0), records)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(saved, documents, records, dtype):
    half = pipeline(TASK, model=str(saved), device="cpu", dtype=dtype)
    assert half.dtype == getattr(torch, dtype)
    tolerance = 0.05 if dtype == "float16" else 0.3
    for record, expected in zip(half(documents, batch_size=4), records, strict=True):
        scores = {(t["head"], t["tail"], t["relation"]): t["score"] for t in record["triples"]}
        for triple in expected["triples"]:
            key = (triple["head"], triple["tail"], triple["relation"])
            assert scores.get(key, 0.5) == pytest.approx(triple["score"], abs=tolerance)


def test_a_model_in_training_predicts_as_in_evaluation(extractor, documents, records):
    extractor.model.train()
    assert_same(extractor(documents[:3]), records[:3])


# --------------------------------------------------------------------------------------------------------- collections


def as_rows(documents):
    datasets = pytest.importorskip("datasets", reason="needs datasets, which the extra `training` brings")
    rows = [{key: document[key] for key in ("title", "sents", "vertexSet")} for document in documents]
    return datasets.Dataset.from_list(rows)


def as_column(documents):
    rows = as_rows(documents)
    return type(rows).from_list([{"document": row} for row in rows])


class Indexed(torch.utils.data.Dataset):
    def __init__(self, documents):
        self.documents = documents

    def __len__(self):
        return len(self.documents)

    def __getitem__(self, index):
        return self.documents[index % len(self.documents)]  # no IndexError tells where the end is


COLLECTIONS = {
    "list": (list, list),
    "tuple": (tuple, list),
    "generator": (iter, None),
    "rows": (as_rows, None),
    "column": (lambda documents: as_column(documents)["document"], None),
    "key_dataset": (lambda documents: KeyDataset(as_column(documents), "document"), None),
    "iterable_rows": (lambda documents: as_rows(documents).to_iterable_dataset(), None),
    "torch_dataset": (Indexed, None),
}


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collections_keep_their_order(extractor, documents, records, collection, batch_size):
    build, kind = COLLECTIONS[collection]
    found = extractor(build(documents), batch_size=batch_size)
    assert isinstance(found, kind) if kind else iter(found) is found
    assert_same(list(found), records)


@pytest.mark.parametrize("inputs", [[], (), iter([])], ids=["list", "tuple", "generator"])
def test_empty_collections(extractor, inputs):
    assert list(extractor(inputs, batch_size=4)) == []


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_generators_are_read_a_little_ahead(extractor, documents, batch_size):
    """The first result comes before the input, which has no end, is read; and no more than a window is ever held."""
    read = 0

    def endless():
        nonlocal read
        for document in itertools.cycle(documents[:5]):
            read += 1
            yield document

    ahead = 8 * batch_size if batch_size > 1 else 1
    found = extractor(endless(), batch_size=batch_size)
    assert read == 0
    for number, _ in enumerate(itertools.islice(found, 60), start=1):
        assert number <= read < number + ahead


def test_batches_hold_documents_of_similar_length(extractor, documents):
    lengths = []

    def record_length(module, arguments, inputs):
        lengths.append(inputs["document_mask"].sum(-1).tolist())

    handle = extractor.model.register_forward_pre_hook(record_length, with_kwargs=True)
    extractor(documents, batch_size=4)
    handle.remove()
    assert [len(batch) for batch in lengths] == [4] * 5
    flat = list(itertools.chain(*lengths))
    assert flat == sorted(flat) and len(set(flat)) > 5


def test_progress_bar(extractor, documents, capfd):
    extractor(documents[:4], show_progress_bar=True)
    assert "4/4" in capfd.readouterr().err
    assert len(list(extractor(iter(documents[:4]), show_progress_bar=True))) == 4
    assert "4document" in capfd.readouterr().err
    extractor(documents[:4])
    assert not capfd.readouterr().err


# -------------------------------------------------------------------------------------------------------------- errors


def with_bad(documents, bad, index=5):
    return [*documents[:index], bad, *documents[index : index + 3]]


BAD = {
    "offsets": ({"text": TEXT, "title": "T", "entities": [{"mentions": [{"start": 40, "end": 99}], "type": "LOC"}]},
                r"document 5 \('T'\), field entities\[0\].mentions\[0\]: found \[40, 99\], where the text is '.*Cairo\).'"),
    "no_entities": ({"text": TEXT}, r"document 5, field entities: found None, expected .*ner="),
    "both": ({"text": TEXT, "entities": ENTITIES, "mentions": []}, "document 5, field mentions: found"),
    "no_text": ({"title": "T"}, r"document 5 \('T'\), field text: found no such field, expected a text, or sents"),
    "no_document": (7, "document 5: found 7, expected a text"),
    "docred": ({"title": "T", "sents": [["a"]], "vertexSet": [[]]}, r"document 5 \('T'\), field vertexSet\[0\]: found \[\]"),
}  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_is_named_and_those_before_it_are_kept(extractor, documents, records, case, batch_size):
    bad, message = BAD[case]
    inputs = with_bad(documents, bad)
    with pytest.raises(DocumentError, match=message) as error:
        extractor(inputs, batch_size=batch_size)
    assert error.value.index == 5
    found = extractor(iter(inputs), batch_size=batch_size)
    before = list(itertools.islice(found, 5))
    assert_same(before, records[:5])
    with pytest.raises(DocumentError, match=message):
        next(found)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_document_that_the_model_refuses_is_named(documents, batch_size, caplog):
    limits = {"relation_encoder": "docunet", "fixed_grid": 6, "unet_down_dim": 4, "unet_out_dim": 4}
    extractor = make(**limits)
    found = extractor(iter(with_bad(documents, random_document(7, seed=1))), batch_size=batch_size)
    assert len(list(itertools.islice(found, 5))) == 5
    with pytest.raises(ValueError, match=r"\b7\b.*\b6\b") as error:
        next(found)
    assert error.value.__notes__ == ["This happened with document 5."]
    assert any("trying them one by one" in message for message in caplog.messages) == (batch_size > 1)


@pytest.mark.parametrize(
    ("batch_size", "failing", "computed"),
    [
        (1, 1, [[0], [1]]),
        (3, 3, [[0, 1, 2], [3]]),  # the longest one, alone in the last batch
        (3, 1, [[0, 1, 2], [0], [1]]),
    ],
)
def test_only_documents_that_failed_together_are_tried_again(monkeypatch, batch_size, failing, computed, caplog):
    extractor = make()
    documents = [random_document(3, 20 + 10 * index, seed=index, title=str(index)) for index in range(4)]
    whole, tried = extractor.postprocess, []

    def postprocess(outputs, **arguments):
        titles = [int(example["document"].title) for example in outputs["examples"]]
        tried.append(titles)
        if failing in titles:
            raise RuntimeError("no")
        return whole(outputs, **arguments)

    monkeypatch.setattr(extractor, "postprocess", postprocess)
    found = extractor(iter(documents), batch_size=batch_size)
    assert [record["title"] for record in itertools.islice(found, failing)] == list("0123"[:failing])
    with pytest.raises(RuntimeError, match="no") as error:
        next(found)
    assert error.value.__notes__ == [f"This happened with document {failing}."]
    assert tried == computed
    assert any("failed together" in message for message in caplog.messages) == (
        computed[-2:] == [[0], [1]] != computed
    )


def test_an_input_that_breaks_off_loses_nothing(extractor, documents, records):
    def broken():
        yield from documents[:3]
        raise OSError("the disk is gone")

    found = extractor(broken(), batch_size=4)
    assert_same(list(itertools.islice(found, 3)), records[:3])
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": True}, ValueError, "batch_size is True"),
        (
            {"ner": "en_core_web_sm"},
            ValueError,
            "ner.*'en_core_web_sm'.*spacy.load",
        ),
        ({"threshold_offset": float("nan")}, ValueError, "threshold_offset is nan"),
        ({"threshold_offset": "1"}, ValueError, "threshold_offset is '1'"),
        ({"threshold_offset": True}, ValueError, "threshold_offset is True"),
        ({"max_sentences": -1}, ValueError, "max_sentences is -1"),
        ({"batchsize": 2}, TypeError, "batchsize"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_wrong_arguments(extractor, arguments, error, message):
    with pytest.raises(error, match=message):
        extractor(iter([]), **arguments)  # at once, not when the first result is wanted


def test_numbers_of_numpy(extractor, documents):
    of_numpy = {"threshold_offset": np.float32(0.5), "min_score": np.float32(0.25), "top_k": np.int64(2)}
    plain = {name: value.item() for name, value in of_numpy.items()}
    assert extractor(documents[:2], batch_size=np.int64(2), **of_numpy) == extractor(
        documents[:2], batch_size=2, **plain
    )


@pytest.mark.parametrize("inputs", [None, 5, Path("documents.jsonl"), b"text"], ids=str)
def test_what_is_no_input_is_refused_at_once(extractor, inputs):
    with pytest.raises(ValueError, match=f"inputs.*{re.escape(repr(inputs))}"):
        extractor(inputs)


@pytest.mark.parametrize(
    ("field", "meant"), [("mention", "mentions"), ("Entities", "entities"), ("entity", "entities")]
)
def test_a_misspelt_field_is_refused(extractor, field, meant):
    given = {"text": TEXT, "url": "https://example.org", "sentiment": 1, "sentences": [[0, 3]]}
    extractor(given, ner=lambda text: [])
    with pytest.raises(DocumentError, match=f"field {field}: found .*; is '{meant}' meant?"):
        extractor({**given, field: []}, ner=lambda text: [])


def test_wrong_components(extractor, saved):
    config, other = tiny_system(id2label={0: "Na", 1: "P17"})
    with pytest.raises(ValueError, match="id2label"):
        pipeline(TASK, model=str(saved), processor=other, device="cpu")
    with pytest.raises(ValueError, match="expected processor="):
        pipeline(TASK, model=str(saved), tokenizer=other.tokenizer, device="cpu")
    with pytest.raises(ValueError, match="processor"):
        pipeline(TASK, model=tiny_model(config), device="cpu")
    with pytest.raises(ValueError, match="found the processor 5"):
        pipeline(TASK, model=str(saved), processor=5, device="cpu")
    with pytest.raises(ValueError, match="BertModel"):
        pipeline(TASK, model=AutoModel.from_config(config.text_config), processor=other, device="cpu")


# --------------------------------------------------------------------------------------------------------- explanation


@pytest.mark.parametrize("encoder", available_relation_encoders())
@pytest.mark.parametrize("words", [30, 200], ids=["one_window", "many_windows"])
def test_explanations_are_the_pairs_attention(encoder, words):
    """Against plain loops over eager attention, or over the model's own entity attention where windows are merged."""
    long = {"text_fields": {"max_position_embeddings": 200}, "window_size": 150} if words == 30 else {}
    extractor = make(**small_encoder(encoder), **long)
    documents = [random_document(entities, words, mentions=3, seed=entities) for entities in (3, 5)]
    model, processor = extractor.model, extractor.processor
    features = processor.encode(documents)
    with torch.no_grad():
        outputs = model(**processor.collate(features), output_documents=True)
    found = extractor(documents, batch_size=2, max_sentences=100)
    assert any(record["triples"] for record in found)
    if words == 30:
        model.set_attn_implementation("eager")
    for index, (feature, record) in enumerate(zip(features, found, strict=True)):
        length = len(feature["input_ids"])
        if words == 30:
            with torch.no_grad():
                ids = torch.tensor([feature["input_ids"]])
                attention = model(input_ids=ids, output_attentions=True).attentions[-1][0]
            rows = [
                torch.stack([attention[:, position] for position, owner in mentions if owner == entity]).mean(0)
                for mentions in [list(zip(feature["mention_positions"], feature["mention_entities"], strict=True))]
                for entity in range(feature["num_entities"])
            ]
        else:
            rows = list(entity_attention(outputs.documents)[index, :, :, :length])
        starts = [*feature["sentence_starts"], length - 1]
        for triple in record["triples"]:
            one, other = (rows[triple[end]] for end in ("head", "tail"))
            total = sum(float((one[:, c] * other[:, c]).mean()) for c in range(starts[0], starts[-1]))
            expected = {}
            for sentence, (start, end) in enumerate(itertools.pairwise(starts)):
                weight = sum(float((one[:, c] * other[:, c]).mean()) for c in range(start, end))
                if weight:
                    expected[sentence] = weight / total
            weights = [sentence["weight"] for sentence in triple["explanation"]]
            assert weights == sorted(weights, reverse=True) and sum(weights) == pytest.approx(1 if total else 0)
            assert {s["sentence"]: s["weight"] for s in triple["explanation"]} == pytest.approx(expected, abs=1e-5)
    model.set_attn_implementation("sdpa")
    few = extractor(documents, batch_size=2, max_sentences=2)
    for record, whole in zip(few, found, strict=True):
        for triple, same in zip(record["triples"], whole["triples"], strict=True):
            assert triple["explanation"] == same["explanation"][:2]


def test_without_explanation_nothing_is_computed(extractor, documents):
    batch = extractor.processor(documents[:3])
    with torch.no_grad():
        plain, more = extractor.model(**batch), extractor.model(**batch, output_documents=True)
    assert plain.documents is None and torch.equal(plain.logits, more.logits)
    assert more.documents.pair_contexts(batch["pair_index"]).shape == (len(plain.logits), 32)
    seen = []
    handle = extractor.model.register_forward_hook(lambda module, arguments, outputs: seen.append(outputs.documents))
    found = extractor(documents[:3], max_sentences=0)
    handle.remove()
    assert seen == [None] * 3
    assert all(triple["explanation"] == [] for record in found for triple in record["triples"])


# ----------------------------------------------------------------------------------------------------- raw text to triples


def test_bare_text_with_spacy(extractor):
    spacy = pytest.importorskip("spacy", reason="needs spaCy, which the extra `text` brings")
    nlp = spacy.blank("en")
    patterns = {"PERSON": ["Anna", "Omar"], "GPE": ["Oslo", "Cairo"], "LOC": ["the Nile", "Nile"]}
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": name} for label, found in patterns.items() for name in found])
    record = DocumentRelationExtractionPipeline(extractor.model, extractor.processor, device="cpu", ner=nlp)(
        f"👍 {TEXT}\n\nThe Nile, says Anna."
    )
    assert [
        [record["text"][mention["start"] : mention["end"]] for mention in entity["mentions"]]
        for entity in record["entities"]
    ] == [
        ["Anna", "Anna"],
        ["Oslo"],
        ["Omar"],
        ["the Nile", "Nile"],
        ["Cairo"],
    ]
    assert [entity["type"] for entity in record["entities"]] == ["PER", "LOC", "PER", "LOC", "LOC"]
    assert record["text"][record["entities"][1]["mentions"][0]["start"] :].startswith("Oslo")
    assert record["triples"]


def test_a_source_that_finds_nothing_is_warned_of(extractor, caplog):
    found = [{"start": 0, "end": 4}]
    extractor([TEXT, TEXT], ner=lambda text: found)
    assert "no entity" not in caplog.text
    extractor([TEXT, TEXT], ner=lambda text: [])
    assert "no entity in 2 documents" in caplog.text


def test_entities_that_are_given_are_not_looked_for(extractor):
    def ner(text):
        raise AssertionError("called")

    assert extractor({"text": TEXT, "entities": []}, ner=ner)["entities"] == []
    assert extractor({"text": TEXT, "mentions": []}, ner=ner)["entities"] == []


def test_types_that_markers_do_not_know_are_refused():
    extractor = make(markers="entity_type")
    gene = [{"type": "GENE", "mentions": [{"start": 0, "end": 4}]}]
    with pytest.raises(ValueError, match="'GENE'") as error:
        extractor([{"text": TEXT, "entities": ENTITIES}, {"text": TEXT, "entities": gene}])
    assert error.value.__notes__ == ["This happened with document 1."]


@requires_shared
def test_real_documents_as_text(extractor):
    """Documents as their authors' tokens and as text give the same pairs, whatever the rules for words make of the text."""
    for document in json.loads((SHARED / "data/redocred-mini/dev_revised.json").read_text(encoding="utf-8"))[:5]:
        record = extractor(document)
        again = extractor({"text": record["text"], "entities": record["entities"], "title": record["title"]})
        assert again["text"] == record["text"]
        for entity, same in zip(again["entities"], record["entities"], strict=True):
            spans = [[(m["start"], m["end"]) for m in e["mentions"]] for e in (entity, same)]
            assert spans[0] == spans[1] and (entity["name"], entity["type"]) == (same["name"], same["type"])


# ------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize(("kind", "encoder"), [("bert", "atlop"), ("bert", "docunet"), ("roberta", "kd_docre")])
def test_it_is_pickled_before_and_after_its_first_call(kind, encoder, documents):
    extractor = make(kind, **small_encoder(encoder))
    before = pickle.loads(pickle.dumps(extractor))
    expected = extractor(documents[:4])
    assert any(record["triples"] for record in expected)
    after = pickle.loads(pickle.dumps(extractor))
    assert before(documents[:4]) == after(documents[:4]) == expected
    assert extractor(documents[:4]) == expected, "the original is as it was"


def test_a_worker_process_predicts_with_it(extractor, documents, records):
    """A spawned process has built no model before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(extractor, (documents,))
    assert_same(found, records)


def test_a_module_in_two_places_stays_one_when_pickled():
    shared = torch.nn.Linear(2, 2)
    both = torch.nn.Sequential(shared, torch.nn.ReLU(), torch.nn.Sequential(shared))
    copied = without_capturing_hooks(both)
    assert copied[0] is copied[2][0] and copied[0] is not shared
    assert copied[0].weight is shared.weight


def test_the_task_is_registered():
    from transformers.pipelines import PIPELINE_REGISTRY

    assert PIPELINE_REGISTRY.check_task(TASK)[1]["impl"] is DocumentRelationExtractionPipeline


def test_a_loaded_model_brings_its_processor(saved, documents, records):
    model = modeling_comm.CommForDocumentRelationExtraction.from_pretrained(saved)
    assert_same(pipeline(TASK, model=model, device="cpu")(documents[:3]), records[:3])
    with pytest.raises(SettingError) as error:
        pipeline(TASK, model=model, device="cpu").save_pretrained(saved, push_to_hub=True, repo_id="org/x")
    assert error.value.field == "push_to_hub"


def test_a_processor_from_another_place(saved, tmp_path):
    """The model's subfolder and revision are of the model's place."""
    shutil.copytree(saved, tmp_path / "model" / "sub")
    model = AutoModel.from_pretrained(tmp_path / "model", subfolder="sub", revision="main")
    extractor = pipeline(TASK, model=model, processor=saved, device="cpu")
    assert isinstance(extractor.processor, CommProcessor)
    assert isinstance(pipeline(TASK, model=model, device="cpu").processor, CommProcessor)


def test_what_is_saved(saved):
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    impl = {"impl": "pipeline_comm.DocumentRelationExtractionPipeline", "pt": ["AutoModel"]}
    assert config["custom_pipelines"] == {TASK: impl}
    assert not hasattr(modeling_comm.CommConfig.from_pretrained(saved), "custom_pipelines")
    source = (saved / "pipeline_comm.py").read_text(encoding="utf-8")
    assert re.search(r"^class DocumentRelationExtractionPipeline\b", source, re.MULTILINE)
    assert (saved / "processor_config.json").is_file()


PREDICT = """
from transformers import pipeline
name, expected, again = sys.argv[1:4]
documents, records = json.loads(Path(expected).read_text(encoding="utf-8"))
torch.set_num_threads(1)
extractor = pipeline("document-relation-extraction", model=name, device="cpu", **options)
assert extractor(documents) == records
extractor.save_pretrained(again)
"""


@pytest.fixture(scope="module")
def expected(extractor, documents, tmp_path_factory):
    """A file with inputs and records."""
    inputs = [
        *documents[:2],
        {"text": TEXT, "entities": ENTITIES},
        {"text": TEXT, "mentions": ENTITIES[1]["mentions"]},
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a fresh process
    records = extractor(inputs)
    torch.set_num_threads(threads)
    assert all(record["triples"] for record in records[:3])
    file = tmp_path_factory.mktemp("expected") / "records.json"
    file.write_text(json.dumps([inputs, records]), encoding="utf-8")
    return file


def test_it_loads_with_and_without_the_package_and_saved_again(saved, expected, tmp_path):
    run_fresh(f"import modeling_comm\noptions = {{}}{PREDICT}", saved, expected, tmp_path / "one", home=tmp_path)
    run_fresh(
        f"""
from transformers import pipeline
message = refused(pipeline, "document-relation-extraction", model=sys.argv[1], device="cpu")
assert "`trust_remote_code=True`" in message, message
options = {{"trust_remote_code": True}}{PREDICT}
assert type(extractor).__module__.startswith("transformers_modules.")
# A model object brings its processor too.
assert type(extractor)(extractor.model, device="cpu")(documents) == records
# What was saved again loads again; without the package its task is known from it.
assert pipeline(model=again, trust_remote_code=True, device="cpu")(documents) == records
""",
        *(saved, expected, tmp_path / "two"),
        home=tmp_path,
        package=False,
    )
    for again in ("one", "two"):
        assert {file.name for file in (tmp_path / again).iterdir()} == {file.name for file in saved.iterdir()}


def test_it_is_pushed_and_loads_by_its_name(saved, expected, tmp_path):
    with HubServer(tmp_path / "server") as server:
        run_fresh(
            """
from hub_server import use_hub
use_hub(sys.argv[1])
import modeling_comm
from transformers import pipeline
pipeline("document-relation-extraction", model=sys.argv[2], device="cpu").push_to_hub("org/comm-pipeline")
""",
            *(server.address, saved),
            home=tmp_path,
        )
        pushed = server.files("org/comm-pipeline")
        assert pushed.keys() >= {file.name for file in saved.iterdir()}
        assert pushed["model.safetensors"] == (saved / "model.safetensors").read_bytes()
        for package, options in ((True, {}), (False, {"trust_remote_code": True})):
            run_fresh(
                f"""
from hub_server import use_hub
use_hub(sys.argv.pop(1))
{"import modeling_comm" if package else ""}
options = {options}{PREDICT}""",
                *(server.address, "org/comm-pipeline", expected, tmp_path / f"again_{package}"),
                home=tmp_path,
                package=package,
            )


def test_labels_of_the_model_are_the_relations(records):
    found = {triple["relation"] for record in records for triple in record["triples"]}
    assert found <= set(LABELS.values()) - {"Na"} and "P17" in found


@pytest.mark.parametrize(("name", "meant"), [("min_scor", "'min_score'"), ("thresholdoffset", "'threshold_offset'")])
def test_a_misspelt_argument_names_the_right_one(name, meant):
    config, processor = tiny_system()
    extractor = pipeline(TASK, model=tiny_model(config), processor=processor)
    with pytest.raises(TypeError, match=f"{TASK}.*{name}.*{meant}"):
        extractor([], **{name: 0.5})
    with pytest.raises(TypeError, match="batch_size"):
        extractor([], zzz=1)


def test_labels_that_changed_inside_a_pipeline_are_refused():
    config, processor = tiny_system()
    extractor = pipeline(TASK, model=tiny_model(config), processor=processor)
    document = random_document(4, 30, labels=False)
    extractor(document)
    extractor.model.set_labels({0: "Na", 1: "treats"})
    with pytest.raises(ValueError, match=r"treats.*processor"):
        extractor(document)
    again = CommProcessor.from_config(processor.tokenizer, extractor.model.config, window_size=32, window_stride=8)
    record = pipeline(TASK, model=extractor.model, processor=again)(document, threshold_offset=-100.0)
    assert {triple["relation"] for triple in record["triples"]} == {"treats"}
