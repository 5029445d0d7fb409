"""Training copies in which words for their types replace names of entities."""

import json

import pytest
from helpers import random_document, run_script, save_backbone

from dataset_scripts.builder import load_splits, to_document
from dataset_scripts.masking import with_masked_copies
from modeling_comm import SettingError
from modeling_comm.data import DatasetEntry, available_datasets, get_dataset
from modeling_comm.data.masked_names import mask_names, type_word
from modeling_comm.documents import validate_document
from modeling_comm.incomplete_labels.rules import facts_of


def mention(name, start, kind, sent_id=0):
    return {"name": name, "sent_id": sent_id, "pos": [start, start + len(name.split())], "type": kind}


DOCUMENT = {
    "title": "A",
    "sents": [
        ["Ada", "Lovelace", "wrote", "to", "the", "Royal", "Society", "of", "London", "."],
        ["Ada", "knew", "aspirin", "and", "aspirin", "users", "."],
    ],
    "vertexSet": [
        [mention("Ada Lovelace", 0, "PER"), mention("Ada", 0, "PER", 1)],
        [mention("Royal Society of London", 5, "ORG")],
        [mention("London", 8, "LOC")],
        [mention("aspirin", 2, "ChemicalEntity", 1), mention("aspirin", 4, "ChemicalEntity", 1)],
        [mention("aspirin", 4, "ChemicalEntity", 1)],
    ],
    "labels": [{"h": 0, "t": 2, "r": "P19", "evidence": [0]}],
    "entity_ids": [["a"], ["b"], ["c"], ["d"], ["e"]],
}


def test_all_names_are_masked():
    masked = mask_names(DOCUMENT, 1.0, words={"ChemicalEntity": "active drug"})
    assert masked["sents"] == [
        ["person", "wrote", "to", "the", "Royal", "Society", "of", "London", "."],
        ["person", "knew", "active", "drug", "and", "active", "drug", "users", "."],
    ], "names within names stay"
    assert masked["vertexSet"] == [
        [mention("person", 0, "PER"), mention("person", 0, "PER", 1)],
        [mention("Royal Society of London", 4, "ORG")],
        [mention("London", 7, "LOC")],
        [mention("active drug", 2, "ChemicalEntity", 1), mention("active drug", 5, "ChemicalEntity", 1)],
        [mention("active drug", 5, "ChemicalEntity", 1)],
    ]
    assert all(masked[field] == DOCUMENT[field] for field in ("title", "labels", "entity_ids"))
    validate_document(masked)


def test_untyped_entities_and_no_share():
    assert mask_names(DOCUMENT, 0.0) == DOCUMENT
    masked = mask_names({**DOCUMENT, "untyped_entities": [0]}, 1.0)
    assert masked["sents"][0] == DOCUMENT["sents"][0]
    assert masked["sents"][1] == ["Ada", "knew", "chemical", "entity", "and", "chemical", "entity", "users", "."]
    # One of the two entities that the second mention belongs to has no type.
    masked = mask_names({**DOCUMENT, "untyped_entities": [4]}, 1.0)
    assert masked["sents"][1] == ["person", "knew", "chemical", "entity", "and", "aspirin", "users", "."]
    nameless = [[{**mention, "type": " "} for mention in of_entity] for of_entity in DOCUMENT["vertexSet"]]
    assert mask_names({**DOCUMENT, "vertexSet": nameless}, 1.0)["sents"] == DOCUMENT["sents"]
    for share in (-0.1, 1.1, True, "0.5"):
        with pytest.raises(SettingError, match="mask_names: share"):
            mask_names(DOCUMENT, share)


def test_masked_documents_are_valid_and_drawn_by_seed():
    documents = [random_document(6, seed=seed, title=f"Document {seed}") for seed in range(40)]
    masked = [mask_names(one, 0.5, "1-0") for one in documents]
    gone = kept = 0
    for one, new in zip(documents, masked, strict=True):
        validate_document(new)
        assert set(facts_of(new)) == set(facts_of(one))
        for of_entity, of_new in zip(one["vertexSet"], new["vertexSet"], strict=True):
            for before, after in zip(of_entity, of_new, strict=True):
                start, end = after["pos"]
                words = new["sents"][after["sent_id"]][start:end]
                if after["name"] == before["name"]:
                    assert words == one["sents"][before["sent_id"]][slice(*before["pos"])]
                    kept += 1
                else:
                    assert " ".join(words) == after["name"]
                    assert after["name"] in {type_word(entity[0]["type"]) for entity in one["vertexSet"]}
                    gone += 1
    assert gone > 50 and kept > 50
    assert masked == [mask_names(one, 0.5, "1-0") for one in documents]
    assert masked != [mask_names(one, 0.5, "1-1") for one in documents]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("PER", "person"),
        ("GPE", "place"),
        ("CellLine", "cell line"),
        ("type::location", "type location"),
        ("DNARegion_2", "dna region 2"),
        ("疾病", "疾病"),
        ("व्यक्ति", "व्यक्ति"),
        ("KÖRPERTEIL", "körperteil"),
        ("ORGANIZAÇÃO", "organização"),
        ("ЛицоИмя", "лицо имя"),
        ("-", "-"),
    ],
)
def test_words_for_types(kind, word):
    assert type_word(kind) == word
    assert type_word(kind, {kind: "x"}) == "x"


def test_words_of_data_sets_are_of_their_types():
    for name in available_datasets():
        entry = get_dataset(name)
        assert not entry.type_words or set(entry.type_words) == set(entry.entity_types)


@pytest.fixture
def folder(tmp_path):
    documents = [random_document(4, seed=seed, title=f"Document {seed}") for seed in range(3)]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(documents), encoding="utf-8")
    return tmp_path


def test_rows_of_a_data_set(folder):
    files = {"train": str(folder / "train.json")}
    rows = load_splits("local", data_files=files, cache_dir=str(folder / "cache"))["train"]
    copied, counts = with_masked_copies(rows, 2, 0.5, 7, {"PER": "someone"})
    found = list(map(to_document, copied))
    documents = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    assert found[:3] == documents
    for copy in range(2):
        expected = [mask_names(one, 0.5, f"7-{copy}", {"PER": "someone"}) for one in documents]
        assert found[3 * copy + 3 : 3 * copy + 6] == expected

    def names(some):
        return [mention["name"] for one in some for of_entity in one["vertexSet"] for mention in of_entity]

    gone = sum(old != new for old, new in zip(2 * names(documents), names(found[3:]), strict=True))
    assert counts == {"mentions": 2 * len(names(documents)), "masked_mentions": gone} and gone
    with pytest.raises(ValueError, match="--masked_copies: found no name to mask among"):
        with_masked_copies(rows, 1, 0.0, 7, {})


def test_words_of_an_entry_are_checked():
    def entry(words, types=("PER",)):
        return DatasetEntry(name="mine", title="Mine", files={}, entity_types=types, type_words=words)

    assert entry({"ORG": "firm"}, types=()).type_words == {"ORG": "firm"}
    for words in ({"PER": 7}, {"PER": " "}):
        with pytest.raises(SettingError, match="DatasetEntry: type_words"):
            entry(words)
    with pytest.raises(SettingError, match=r"type_words is \['PERS'\]; expected entity_types, which are PER"):
        entry({"PERS": "someone"})


def test_the_script_trains_on_copies_and_scores_by_the_documents(folder):
    flags = [
        "--data_dir",
        folder,
        "--model_name_or_path",
        save_backbone(folder / "encoder"),
        "--use_cpu",
        "--emb_size",
        16,
    ]
    flags += [
        "--block_size",
        8,
        "--num_train_epochs",
        1,
        "--per_device_train_batch_size",
        1,
        "--do_train",
        "--do_predict",
    ]
    flags += ["--output_dir", folder / "out"]
    run_script(*flags, "--masked_copies", 2)
    record = json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["encoding"]["train"]["documents"] == 9 and record["best_checkpoint_step"] == 9
    assert record["data"]["encoding"]["test"]["documents"] == 3
    found = record["data"]["masked"]
    assert (found["copies"], found["share"]) == (2, 0.5) and 0 < found["masked_mentions"] < found["mentions"]
    assert "each document and 2 further copies of it" in (folder / "out" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="masked_copies"):
        run_script(*flags, "--masked_copies", 1)
    with pytest.raises(ValueError, match="masked_share"):
        run_script(*flags, "--masked_copies", 2, "--masked_share", 0.1)
    run_script(*flags, "--masked_copies", 2)  # finished
    other = json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))
    assert other["data"]["encoding"]["train"]["documents"] == 9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--masked_copies", 0, "--do_train"), "--masked_copies is 0; expected an integer of 1 or more"),
        (("--masked_copies", 1, "--do_predict"), "--masked_copies needs --do_train"),
        (("--masked_copies", 1, "--do_train", "--streaming"), "neither --streaming nor --teacher_logits"),
        (("--masked_share", 0.3, "--do_train"), "--masked_share needs --masked_copies"),
        (("--masked_copies", 1, "--do_train", "--masked_share", 0), "--masked_share is 0.0; expected a share"),
    ],
)
def test_refused(folder, flags, message):
    with pytest.raises(ValueError, match=message):
        run_script("--data_dir", folder, "--model_name_or_path", folder, "--output_dir", folder / "out", *flags)
