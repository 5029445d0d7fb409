"""Self-training: what models of folds add to labels, and that the same command resumes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import SAMPLE, learning_backbone, random_document, tiny_model, tiny_processor, whole_word_tokenizer
from transformers import AutoModel

from experiments import label_documents, self_training
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.decoding import DecisionSettings, Predictions
from modeling_comm.incomplete_labels.rules import facts_of
from modeling_comm.probabilities import ProbabilityMap


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The script's work on a few documents, each of them three times: what labels lack, copies have."""
    folder = tmp_path_factory.mktemp("self_training")
    documents = read(SAMPLE / "dev_revised.json")
    # Every fold has one copy of each; those of the second have half of the labels.
    copies = [{**one, "title": f"{one['title']} {number}"} for one in documents[:3] for number in range(3)]
    incomplete = [{**one, "labels": one["labels"][:: 2 if index % 3 == 1 else 1]} for index, one in enumerate(copies)]
    (folder / "train.json").write_text(json.dumps(incomplete))
    (folder / "complete.json").write_text(json.dumps(copies))
    tokenizer = whole_word_tokenizer(documents)
    torch.manual_seed(0)
    AutoModel.from_config(learning_backbone(tokenizer)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    flags = [
        *(
            "--dataset_config",
            "local",
            "--train_file",
            folder / "train.json",
            "--model_name_or_path",
            folder / "encoder",
        ),
        *("--validation_file", SAMPLE / "dev_revised.json", "--emb_size", 128, "--block_size", 32, "--use_cpu"),
        *(
            "--learning_rate",
            "1e-3",
            "--head_learning_rate",
            "2e-3",
            "--num_train_epochs",
            20,
            "--disable_tqdm",
            "true",
        ),
        *("--per_device_train_batch_size", 2, "--eval_strategy", "no", "--save_strategy", "no"),
        *("--load_best_model_at_end", "false", "--cache_dir", folder / "cache"),
    ]
    own = [
        "--work_dir",
        folder / "work",
        "--folds",
        3,
        "--least_probability",
        0.3,
        "--complete",
        folder / "complete.json",
    ]
    words = [str(word) for word in (*own, "--", *flags)]
    self_training.main(["--labels_only", *words])
    assert not (folder / "work" / "final").exists()
    self_training.main(words)
    return folder, words


def test_models_of_folds_find_what_labels_lack(work):
    folder, _ = work
    given, found = read(folder / "train.json"), read(folder / "work" / "round-1" / "labels.json")
    assert [one["title"] for one in found] == [one["title"] for one in given]
    for before, after in zip(given, found, strict=True):
        assert facts_of(before) <= facts_of(after)
        added = after["labels"][len(before["labels"]) :]
        assert all(one["probability"] >= 0.3 for one in added)
    report = read(folder / "work" / "round-1" / "report.json")
    assert (
        report["added"]["added"]
        == sum(len(facts_of(one)) for one in found) - sum(len(facts_of(one)) for one in given)
        > 0
    )
    assert report["after"]["recall"] > report["before"]["recall"]
    assert read(folder / "work" / "final" / "run.json")["data"]["files"]["train"]["source"].endswith("labels.json")


def test_the_same_command_trains_nothing_again(work):
    folder, words = work
    files = sorted(folder.glob("work/**/model.safetensors"))
    before = [file.stat().st_mtime_ns for file in files]
    self_training.main(words)
    assert len(files) == 4 and [file.stat().st_mtime_ns for file in files] == before


def test_other_settings_are_refused_where_folds_are(work):
    _, words = work
    with pytest.raises(ValueError, match=r"least_probability was 0\.3, is 0\.8"):
        self_training.main(["0.8" if word == "0.3" else word for word in words])


def test_what_labels_say_in_the_other_direction_and_what_types_exclude_is_not_added():
    pairs = torch.tensor([[0, 1], [1, 0]])
    logits = torch.tensor([[0, 5.0, -9.0], [0, -1000.0, 5.0]])
    excluded = np.array([[False, False], [False, True]])
    document = {**random_document(2), "labels": [{"h": 1, "t": 0, "r": "sibling"}]}
    relations, map_ = ["sibling", "born in"], ProbabilityMap(1.0, (0.0, 0.0))

    def added(excluded=None, **candidates):
        result = Predictions.from_logits(logits, pairs, DecisionSettings(), excluded)
        found = self_training.facts_above(result, map_, relations, 0.5)
        found = self_training.completed(document, found, CandidatePairs(**candidates))
        return [(one["h"], one["t"], one["r"]) for one in found["labels"][1:]]

    assert added() == [(0, 1, "sibling"), (1, 0, "born in")]
    assert added(symmetric=["sibling"]) == [(1, 0, "born in")]
    assert added(excluded) == [(0, 1, "sibling")]


def test_documents_are_labelled_as_they_are_trained(monkeypatch, tmp_path):
    seen, encode = {}, self_training.encode_dataset

    def load(arguments):
        seen["attention"] = arguments.attn_implementation
        return tiny_model(), tiny_processor(probability_map=ProbabilityMap(1.0, (0.0,) * 4))

    def encode_cut(documents, processor, max_length=None, **options):
        seen["max_length"] = max_length
        return encode(documents, processor, max_length, **options)

    monkeypatch.setattr(self_training, "load_checkpoint", load)
    monkeypatch.setattr(self_training, "encode_dataset", encode_cut)
    flags = ["--max_length", "30", "--attn_implementation", "eager", "--use_cpu"]
    assert len(self_training.label(tmp_path, [random_document(3)], flags, 0.5)) == 1
    assert seen == {"attention": "eager", "max_length": 30}


def test_a_model_labels_documents_by_its_own_decisions(work, tmp_path, capsys):
    folder, _ = work
    model, documents, output = folder / "work" / "final", SAMPLE / "dev_revised.json", tmp_path / "labelled.json"
    bare = [{key: one[key] for key in ("title", "sents", "vertexSet")} for one in read(documents)]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    label_documents.main([str(model), str(tmp_path / "bare.json"), str(output), "--", "--use_cpu"])
    processor = CommProcessor.from_pretrained(model)
    inputs = processor(bare)
    with torch.no_grad():
        outputs = CommForDocumentRelationExtraction.from_pretrained(model).eval()(**inputs)
    triples = processor.post_process_relation_extraction(outputs, bare)
    expected = [{(one["head"], one["tail"], one["relation"]) for one in found} for found in triples]
    assert [facts_of(one) for one in read(output)] == expected and any(expected)
    assert capsys.readouterr().out.startswith(f"{sum(map(len, expected))} facts added to 0 in ")


def test_documents_are_not_labelled_in_their_own_file(tmp_path):
    documents = tmp_path / "documents.json"
    documents.write_text("[]")
    with pytest.raises(ValueError, match="would be written over the input"):
        label_documents.main([str(tmp_path), str(documents), str(documents), "--", "--use_cpu"])


def test_labelled_documents_of_one_title_are_labelled_in_chunks(work, tmp_path, monkeypatch):
    """Nothing is scored, for which titles have to differ, and no margins are kept."""
    folder, _ = work
    kept, predict = [], self_training.CommTrainer.predict

    def predict_chunk(self, dataset, *given, keep_margins=False):
        kept.append((len(dataset), keep_margins))
        return predict(self, dataset, *given, keep_margins=keep_margins)

    monkeypatch.setattr(self_training, "CHUNK", 2)
    monkeypatch.setattr(self_training.CommTrainer, "predict", predict_chunk)
    first, *_ = read(SAMPLE / "dev_revised.json")
    (tmp_path / "twins.json").write_text(json.dumps([first, first, {**first, "labels": None}]))
    words = [folder / "work" / "final", tmp_path / "twins.json", tmp_path / "out.json", "--", "--use_cpu"]
    label_documents.main(list(map(str, words)))
    assert kept == [(2, False), (1, False)]
    labelled = [facts_of(one) for one in read(tmp_path / "out.json")]
    assert labelled[0] == labelled[1] == facts_of(first) | labelled[2] and labelled[2]


def test_the_script_by_itself_knows_the_data_sets(tmp_path):
    words = [self_training.__file__, "--work_dir", tmp_path, "--", "--dataset_config", "docred_mixed"]
    found = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert "--train_file is missing" in found.stderr


@pytest.mark.parametrize("given", [None, "none", "facts.json"])
def test_the_ign_reference_of_the_flags_stays(tmp_path, monkeypatch, given):
    """The default is the given training file, not that of a fold."""
    trained = []
    monkeypatch.setattr(self_training, "train", lambda flags, file, folder, reference: trained.append(reference))
    monkeypatch.setattr(self_training, "label", lambda folder, documents, flags, least: documents)
    train_file = tmp_path / "train.json"
    train_file.write_text(json.dumps([{**random_document(2), "labels": []}] * 2))
    flags = ["--train_file", str(train_file), "--use_cpu", *(["--ign_reference", given] if given else [])]
    self_training.main(["--work_dir", str(tmp_path / "work"), "--folds", "2", "--", *flags])
    assert trained == [given or str(train_file)] * 3


def test_a_training_file_is_needed(tmp_path):
    with pytest.raises(ValueError, match="--train_file"):
        self_training.main(["--work_dir", str(tmp_path), "--", "--do_train"])
