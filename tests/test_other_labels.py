"""A trained checkpoint as the start for other relations, and scores for some of the pairs."""

import json
from functools import partial

import pytest
import torch
from helpers import LABELS, random_document, run_script, save_backbone, tiny_config, tiny_model, tiny_system
from transformers import AutoModel, AutoProcessor

from modeling_comm import CommConfig, CommForDocumentRelationExtraction, CommProcessor
from modeling_comm.documents import DocumentError
from modeling_comm.relation_encoders import available_relation_encoders
from modeling_comm.settings import SettingError

NEW = {0: "no_relation", 1: "treats", 2: "P131", 3: "causes"}


@pytest.fixture(params=available_relation_encoders())
def saved(request, tmp_path):
    config, processor = tiny_system(relation_encoder=request.param, relation_names={"P17": "country"})
    model = tiny_model(config)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return model, processor, tmp_path / "model"


@pytest.mark.parametrize("loader", [CommForDocumentRelationExtraction, AutoModel])
@pytest.mark.parametrize(
    "labels", [NEW, {0: "Na", 1: "P27", 2: "P17", 3: "P569", 4: "P131"}], ids=["fewer", "as_many"]
)
def test_other_labels(saved, loader, labels):
    model, processor, folder = saved
    other = loader.from_pretrained(folder, id2label=labels, ignore_mismatched_sizes=True)
    assert other.config.id2label == labels and other.config.num_labels == len(labels)
    document = random_document(4, 30, seed=2)
    document.pop("labels", None)
    own = CommProcessor.from_config(processor.tokenizer, other.config, **processor.settings | {"relation_names": {}})
    with torch.no_grad():
        before, after = model(**processor(document)).logits, other.eval()(**own(document)).logits
    kept = {label: index for index, label in LABELS.items() if index}
    for index, label in labels.items():
        same = torch.allclose(after[:, index], before[:, kept.get(label, 0)], atol=1e-5)
        assert same == (index == 0 or label in kept), label
    other.save_pretrained(folder / "again")
    assert AutoModel.from_pretrained(folder / "again").config.id2label == labels


def test_other_labels_have_to_be_asked_for(saved):
    _, _, folder = saved
    renamed = {**LABELS, 1: "treats"}  # as many, so that the sizes alone would not tell
    with pytest.raises(ValueError, match="ignore_mismatched_sizes=True"):
        CommForDocumentRelationExtraction.from_pretrained(folder, id2label=renamed)
    assert CommForDocumentRelationExtraction.from_pretrained(folder, id2label=LABELS).config.id2label == LABELS


def test_labels_of_a_configuration_elsewhere(tmp_path):
    """Whether it is given as an object or by its path, its labels are compared with the checkpoint's."""
    renamed = {**LABELS, 1: "treats"}
    model, elsewhere = tiny_model(), tmp_path / "elsewhere"
    model.save_pretrained(tmp_path)
    tiny_config(id2label=renamed).save_pretrained(elsewhere)
    load = partial(CommForDocumentRelationExtraction.from_pretrained, tmp_path)
    for config in (elsewhere, elsewhere / "config.json", CommConfig.from_pretrained(elsewhere)):
        with pytest.raises(ValueError, match="ignore_mismatched_sizes=True"):
            load(config=config)
        other = load(config=config, ignore_mismatched_sizes=True)
        assert other.config.id2label == renamed and other.config.label2id["treats"] == 1
        new, old = (one.relation_encoder.classifier.linear.weight for one in (other, model))
        assert [torch.equal(*rows) for rows in zip(new, old, strict=True)] == [True, False, True, True, True]
    assert load(config=elsewhere, id2label=LABELS).config.id2label == LABELS
    same = load(config=str(tmp_path), averaged_layers=2)
    assert same.config.id2label == LABELS and same.config.averaged_layers == 2


@pytest.mark.parametrize("loader", [CommForDocumentRelationExtraction, AutoModel])
def test_attention_implementation_stays_with_other_labels(tmp_path, loader):
    tiny_model().save_pretrained(tmp_path)
    given = {"ignore_mismatched_sizes": True, "attn_implementation": "eager"}
    model = loader.from_pretrained(tmp_path, id2label=NEW, **given)
    assert model.config._attn_implementation == model.backbone.config._attn_implementation == "eager"


def test_documents_with_other_relations_need_the_flag():
    """The document is right: the error says that the relations are the model's, and what trains it for others."""
    _, processor = tiny_system()
    document = {**random_document(3, seed=1), "labels": [{"h": 0, "t": 1, "r": "P580"}]}
    expected = r"field labels\[0\]\.r: found 'P580', expected one of the 4 relations of the model \(P131, P17, P27, \.\.\.\); "
    with pytest.raises(DocumentError, match=f"{expected}--ignore_mismatched_sizes"):
        processor([document])


def test_labels_that_do_not_fit():
    with pytest.raises(SettingError) as error:
        tiny_model().set_labels({0: "Na", 2: "P17"})
    assert error.value.field == "id2label"


def test_run_docre_trains_a_checkpoint_for_other_relations(tmp_path):
    backbone = save_backbone(tmp_path / "backbone")
    sizes = ["--emb_size", 16, "--block_size", 8]
    flags = ["--use_cpu", "--disable_tqdm", True, "--report_to", "none", "--num_train_epochs", 1, "--do_train"]
    for name, relations in (("first", ["P17", "P27"]), ("second", ["P27", "treats"])):
        folder = tmp_path / name
        folder.mkdir()
        for split, seed in (("train", 1), ("dev", 2)):
            documents = [random_document(4, 20, seed=10 * seed + number) for number in range(3)]
            for document in documents:
                facts = zip([(0, 1), (1, 2)], relations, strict=True)
                document["labels"] = [{"h": h, "t": t, "r": r, "evidence": []} for (h, t), r in facts]
            (folder / f"{split}.json").write_text(json.dumps(documents), encoding="utf-8")
    run_script(
        *("--data_dir", tmp_path / "first", "--model_name_or_path", backbone, "--output_dir", tmp_path / "one"),
        *sizes,
        *flags,
    )
    trained = AutoModel.from_pretrained(tmp_path / "one")
    run_script(
        *(
            "--data_dir",
            tmp_path / "second",
            "--model_name_or_path",
            tmp_path / "one",
            "--output_dir",
            tmp_path / "two",
        ),
        *("--ignore_mismatched_sizes", "--learning_rate", 1e-12, "--head_learning_rate", 1e-12, *flags),
    )
    further, processor = AutoModel.from_pretrained(tmp_path / "two"), AutoProcessor.from_pretrained(tmp_path / "two")
    assert processor.id2label == further.config.id2label == {0: "Na", 1: "P27", 2: "treats"}
    rows = [model.relation_encoder.classifier.linear.weight for model in (trained, further)]
    assert torch.allclose(rows[0][trained.config.label2id["P27"]], rows[1][1], atol=1e-6)
    assert torch.allclose(rows[0][0], rows[1][0], atol=1e-6)


def test_some_of_the_pairs(caplog):
    config, processor = tiny_system()
    documents = [random_document(4, 30, seed=seed) for seed in (1, 2)]
    for document in documents:
        document.pop("labels", None)
    batch, model = processor(documents), tiny_model(config)
    with torch.no_grad():
        everything = processor.decide(model(**batch), documents)
        batch["pair_index"] = batch["pair_index"][::3]
        outputs = model(**batch)
    some = processor.decide(outputs, documents, threshold_offset=-100.0)
    assert "8 of the 24 pairs" in caplog.text
    for found, full, rows in zip(some, everything, (slice(0, 12, 3), slice(0, 12, 3)), strict=True):
        assert found.pairs.tolist() == full.pairs[rows].tolist()
        torch.testing.assert_close(torch.tensor(found.margins), torch.tensor(full.margins[rows]), atol=1e-4, rtol=0)
    outputs["pair_index"][0] = outputs["pair_index"][1]
    with pytest.raises(ValueError, match="not all of them different pairs"):
        processor.decide(outputs, documents)


def test_labels_in_another_order_are_other_labels(saved):
    *_, folder = saved
    permuted = {0: LABELS[0], **{index: LABELS[len(LABELS) - index] for index in range(1, len(LABELS))}}
    with pytest.raises(ValueError, match="ignore_mismatched_sizes=True"):
        AutoModel.from_pretrained(folder, id2label=permuted)
    with pytest.raises(ValueError, match="id2label"):
        CommForDocumentRelationExtraction.from_pretrained(folder, id2label=list(LABELS.values()))


def test_a_processor_for_other_labels_has_nothing_that_was_tuned(tmp_path, caplog):
    _, processor = tiny_system()
    processor.decision.threshold_offset = 0.5
    processor.save_pretrained(tmp_path)
    assert CommProcessor.from_pretrained(tmp_path).decision.threshold_offset == 0.5
    for same in (LABELS, dict(reversed(LABELS.items()))):
        assert CommProcessor.from_pretrained(tmp_path, id2label=same).decision.threshold_offset == 0.5
    renamed = CommProcessor.from_pretrained(tmp_path, id2label={**LABELS, 1: "treats"})
    assert renamed.decision.threshold_offset == 0 and "threshold_offset" in caplog.text


def test_a_processor_for_other_labels_says_nothing_of_those_that_are_gone(tmp_path, caplog):
    names = {"P17": "country", "P27": "citizenship", "P150": "contains"}
    _, processor = tiny_system(relation_names=names, symmetric=["P27"], inverse={"P150": "P131", "P1": "P17"})
    processor.save_pretrained(tmp_path)
    other = CommProcessor.from_pretrained(tmp_path, id2label={0: "Na", 1: "P17", 2: "P150", 3: "treats"})
    assert other.relation_names == {"P17": "country", "P150": "contains"}
    assert (other.candidates.symmetric, other.candidates.inverse) == ((), {"P1": "P17"})
    assert "relation_names, symmetric, inverse say of other labels" in caplog.text
    same = CommProcessor.from_pretrained(tmp_path, id2label={**LABELS, 5: "treats"})
    assert (same.relation_names, same.candidates) == (names, processor.candidates)


@pytest.mark.parametrize("loader", [CommForDocumentRelationExtraction, AutoModel])
def test_settings_of_the_loss_by_relation_come_with_the_labels(tmp_path, loader):
    """They name relations that the checkpoint does not have."""
    tiny_model(tiny_system()[0]).save_pretrained(tmp_path)
    by_relation = {"treats": 3.0, "P131": 2.0}
    given = {"loss": "pu_cmm", "pu_cmm_weight_by_relation": by_relation}
    model = loader.from_pretrained(tmp_path, id2label=NEW, ignore_mismatched_sizes=True, **given)
    assert (model.config.loss, model.config.pu_cmm_weight_by_relation, model.config.id2label) == (
        "pu_cmm",
        by_relation,
        NEW,
    )
    model.save_pretrained(tmp_path / "new")
    further = {0: "Na", 1: "cures"}
    with pytest.raises(SettingError) as error:
        loader.from_pretrained(tmp_path / "new", id2label=further, ignore_mismatched_sizes=True)
    assert error.value.field == "pu_cmm_weight_by_relation"
    again = loader.from_pretrained(
        tmp_path / "new", id2label=further, ignore_mismatched_sizes=True, pu_cmm_weight_by_relation={"cures": 4.0}
    )
    assert again.config.pu_cmm_weight_by_relation == {"cures": 4.0} and again.config.loss == "pu_cmm"
    with pytest.raises(TypeError, match="emb_size"):
        again.set_labels(NEW, emb_size=3)
    assert again.set_labels(NEW, loss="atl").config.loss == "atl"
