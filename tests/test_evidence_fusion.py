"""Inference-stage fusion: documents and decisions of DREEAM's code (`golden/more/dreeam` of the shared folder), the same answers
whatever the batch, and a threshold that is tuned, saved and used by trainer, script and pipeline."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers import requires_shared, run_script
from test_evidence import DREEAM, documents, dreeam_features, dreeam_system, dreeams_epsilon, evidence_system, trained  # noqa: F401
from transformers import pipeline

from modeling_comm import (
    CommForDocumentRelationExtraction,
    CommProcessor,
    CommTrainer,
    CommTrainingArguments,
    SettingError,
    available_relation_encoders,
)
from modeling_comm.evaluation.cutoffs import tune_offset
from modeling_comm.evidence_fusion import (
    MISSING_MARGIN,
    cut_documents,
    evidence_sentences,
    fuse_evidence,
    fuse_margins,
    rank_for_fusion,
)
from modeling_comm.features import pairs_of

# ------------------------------------------------------------------------------------------------------ DREEAM's numbers


@pytest.fixture(scope="module")
def golden():
    """Arrays and JSON of both passes, and features of the three documents."""
    with np.load(DREEAM / "isf_526_62_457.npz") as file:
        arrays = dict(file)
    info = json.loads((DREEAM / "isf_526_62_457.json").read_text(encoding="utf-8"))
    return arrays, info, [*dreeam_features("batch_526_62")[2], *dreeam_features("single_457")[2]]


def dreeams_rows(margins, pairs):
    """What DREEAM keeps of a pass: the top 4 classes of each pair, less the threshold class, for which the fourth less 1 stands
    where it is not among them."""
    rows = {}
    logits = torch.cat([torch.zeros(len(margins), 1), margins], 1)
    for pair, own in zip(pairs, logits, strict=True):
        scores, classes = own.topk(4)
        threshold = 0.0 if 0 in classes else scores[-1].item() - 1
        for relation, score in zip(classes.tolist(), scores.tolist(), strict=True):
            row = (*pair, relation)
            rows[row] = max(rows.get(row, -np.inf), score - threshold)
    return rows


def as_rows(array, scores):
    rows = {}
    for row, score in zip(map(tuple, array.tolist()), scores.tolist(), strict=True):
        rows[row] = max(rows.get(row, -np.inf), score)
    return rows


@requires_shared
def test_both_passes_are_dreeams(golden, dreeams_epsilon):  # noqa: F811
    arrays, info, features = golden
    model, processor = dreeam_system("batch_526_62")
    model, batch = model.double(), processor.collate(features)
    with torch.no_grad():
        output = model(**batch, output_documents=True)
    pairs = [tuple(pair) for pair in output.pair_index.tolist()]
    first = dreeams_rows(output.logits[:, 1:] - output.logits[:, :1], pairs)
    expected = as_rows(arrays["first_pass"], arrays["first_pass_score"])
    assert first.keys() == expected.keys()
    assert all(score == pytest.approx(expected[row], abs=2e-4) for row, score in first.items())

    # The documents of the second pass, in DREEAM's order of pairs.
    order = list(dict.fromkeys(map(tuple, arrays["first_pass"][:, :3].tolist())))
    sentences = evidence_sentences(output.documents.sentence_scores(torch.tensor(order)), 0.2)
    given = {
        tuple(row[:3]): np.flatnonzero(found)
        for row, found in zip(arrays["first_pass"].tolist(), arrays["first_pass_evidence"], strict=True)
    }
    assert [list(one) for one in sentences] == [given[pair].tolist() for pair in order]
    cut = []
    for index, feature in enumerate(features):
        own = [(pair[1:], one) for pair, one in zip(order, sentences, strict=True) if pair[0] == index]
        cut += [(index, one) for one in cut_documents(feature, *zip(*own, strict=True), processor)]
    assert len(cut) == len(info["pseudo_documents"]) == 27
    for (index, one), other in zip(cut, info["pseudo_documents"], strict=True):
        assert (index, list(one.sentences), one.entities) == (other["title"], other["sentences"], other["entity_map"])
        assert one.features["input_ids"] == other["input_ids"]
        assert [start - 1 for start in one.features["sentence_starts"]] == [start for start, _ in other["sent_pos"]]
        mentions = [(start + 1, entity) for entity, spans in enumerate(other["entity_pos"]) for start, _ in spans]
        assert list(zip(one.features["mention_positions"], one.features["mention_entities"], strict=True)) == mentions

    # Their scores: the highest of each pair, as the rule sees them.
    seen = {}
    fuse_evidence(model, processor, output, features, rule=lambda *margins: seen.update(both=margins) or margins[0])
    expected = as_rows(arrays["second_pass"], arrays["second_pass_score"])
    with torch.no_grad():
        second = {}
        for index, one in cut:
            again = model(**processor.collate([one.features]))
            own = [(index, one.entities[head], one.entities[tail]) for _, head, tail in again.pair_index.tolist()]
            margins = again.logits[:, 1:] - again.logits[:, :1]
            for row, score in dreeams_rows(margins, own).items():
                second[row] = max(second.get(row, -np.inf), score)
            for pair, row in zip(own, margins, strict=True):
                assert (seen["both"][1][pairs.index(pair)] >= row - 1e-4).all()
    assert second.keys() == expected.keys()
    assert all(score == pytest.approx(expected[row], abs=5e-4) for row, score in second.items())
    asked = {row[:3] for row in second}
    for pair, margins in zip(pairs, seen["both"][1], strict=True):
        assert (margins == MISSING_MARGIN).all() == (pair not in asked)


def decided(first, second, gold, threshold):
    """The facts that two lists predict together, and the threshold, chosen on gold facts where none is given."""
    facts = sorted({row[:-1] for row in (*first, *second) if row[-2] not in (0, "Na")}, key=str)
    lists = []
    for rows in (first, second):
        best = {}
        for *fact, score in rows:
            best[tuple(fact)] = max(best.get(tuple(fact), -np.inf), score)
        lists.append(torch.tensor([best.get(fact, MISSING_MARGIN) for fact in facts], dtype=torch.float64))
    if threshold is None:
        correct = [fact in gold for fact in facts]
        threshold, _ = tune_offset(rank_for_fusion(*lists).numpy(), correct, len(gold))
    fused = fuse_margins(*lists, threshold)
    return {fact for fact, margin in zip(facts, fused.tolist(), strict=True) if margin > 0}, threshold


@requires_shared
def test_decisions_are_dreeams(golden):
    """Of its own two passes, and of small invented ones; where its code is wrong, the sound answer."""
    arrays, info, _ = golden
    lists = [
        [(*row, score) for row, score in as_rows(arrays[name], arrays[f"{name}_score"]).items()]
        for name in ("first_pass", "second_pass")
    ]
    gold = {(index, *fact) for index, facts in enumerate(info["gold"]) for fact in facts}
    found, threshold = decided(*lists, gold, None)
    assert found == set(map(tuple, arrays["fused"].tolist()))
    assert (
        threshold < info["threshold"] < threshold + 0.5
    )  # DREEAM's is the lowest sum that passes, ours half-way below it
    compared = set()
    for case in json.loads((DREEAM / "fusion_cases.json").read_text(encoding="utf-8")):
        gold, result = {tuple(fact) for fact in case["gold"]["facts"]}, case.get("result", {})
        if case["name"] in WRONG_THERE or "fused" not in result:
            continue
        first, second = ([tuple(row) for row in case[name]] for name in ("first", "second"))
        titles = {
            row[0] for row in first if row[3] != "Na"
        }  # DREEAM's code looks at no other document; here there is none
        found, _ = decided(first, [row for row in second if row[0] in titles], gold, case["threshold_given"])
        assert found == {tuple(fact) for fact in result["fused"]}, case["name"]
        compared.add(case["name"])
    assert len(compared) >= 12, compared


# Cases in which DREEAM's code loses facts.
WRONG_THERE = {"given_threshold_with_gold", "given_threshold_equal_to_a_score", "random_1_threshold"}
WRONG_THERE |= {"selected_threshold_given_back", "selected_threshold_given_back_no_gold"}


# ------------------------------------------------------------------------------------------------------------- of its own


def fusing_system(encoder="atlop", **settings):
    model, processor = evidence_system(encoder)
    for name, value in {"fusion_threshold": -1.0, "evidence_threshold": 0.1, **settings}.items():
        setattr(processor.decision, name, value)
    return model, processor


def second_margins(model, processor, document):
    """`{(head, tail): margins}` of a second pass over documents that are cut before they are encoded."""
    with torch.no_grad():
        output = model(**processor([document]), output_documents=True)
        shares = output.documents.sentence_scores(output.pair_index)
    mentioned = [sorted({mention["sent_id"] for mention in entity}) for entity in document["vertexSet"]]
    best = {}
    for (_, *pair), row in zip(output.pair_index.tolist(), shares.tolist(), strict=True):
        sentences = {number for number, share in enumerate(row) if share > processor.decision.evidence_threshold}
        if not sentences:
            continue
        for entity in pair:
            if not sentences & set(mentioned[entity]):
                sentences.add(mentioned[entity][0])
        kept = sorted(sentences)
        entities = [entity for entity, places in enumerate(mentioned) if sentences & set(places)]
        part = {
            "title": "part",
            "sents": [document["sents"][sentence] for sentence in kept],
            "vertexSet": [
                [
                    mention | {"sent_id": kept.index(mention["sent_id"])}
                    for mention in document["vertexSet"][entity]
                    if mention["sent_id"] in sentences
                ]
                for entity in entities
            ],
        }
        with torch.no_grad():
            again = model(**processor([part]))
        for (_, head, tail), logits in zip(again.pair_index.tolist(), again.logits, strict=True):
            whole, margins = (entities[head], entities[tail]), logits[1:] - logits[0]
            best[whole] = torch.maximum(best.get(whole, margins), margins)
    return best


@pytest.mark.parametrize("encoder", available_relation_encoders())
def test_second_pass_is_that_of_documents_cut_by_hand(encoder, documents):  # noqa: F811
    model, processor = fusing_system(encoder)
    for document in documents:
        with torch.no_grad():
            output = model(**processor([document]), output_documents=True)
        fused = fuse_evidence(model, processor, output, processor.encode([document]))
        expected = second_margins(model, processor, document)
        first = output.logits[:, 1:] - output.logits[:, :1]
        for pair, own, found in zip(output.pair_index[:, 1:].tolist(), first, fused, strict=True):
            second = expected.get(tuple(pair), torch.full_like(own, MISSING_MARGIN))
            wanted = [
                max(a + b + 1.0, min(a, b)) if min(a, b) > 0 else a + b + 1.0
                for a, b in zip(own.tolist(), second.tolist(), strict=True)
            ]
            assert found.tolist() == pytest.approx([0.0, *wanted], abs=1e-4)


def test_same_triples_in_any_batch_from_pipeline_and_trainer(documents, tmp_path):  # noqa: F811
    model, processor = fusing_system(fusion_threshold=-0.5)
    extractor = pipeline("document-relation-extraction", model=model, processor=processor)

    def facts(records):
        return [{(one["head"], one["tail"], one["relation"]) for one in record["triples"]} for record in records]

    one_by_one, together = (facts(extractor(documents, batch_size=size)) for size in (1, 4))
    assert one_by_one == together and any(one_by_one)
    predicted = trainer_of(model, processor, tmp_path).predict(documents).predictions
    assert one_by_one == [
        {(one["h_idx"], one["t_idx"], one["r"]) for one in result.official("t", processor.id2label)}
        for result in predicted
    ]
    # Each still has its evidence, and asking once gives others.
    assert all(one["evidence"] is not None for record in extractor(documents) for one in record["triples"])
    processor.decision.fusion_threshold = None
    assert facts(extractor(documents)) != one_by_one


def test_logits_of_one_pass_are_said(documents, caplog):  # noqa: F811
    model, processor = fusing_system()
    with torch.no_grad():
        outputs = model(**processor(documents[:1]), output_documents=True)
    once = outputs.logits
    outputs["logits"] = fuse_evidence(model, processor, outputs, processor.encode(documents[:1]))
    processor.post_process_relation_extraction(outputs, documents[:1])
    assert "fusion_threshold" not in caplog.text
    outputs["logits"] = once
    for _ in range(2):
        processor.post_process_relation_extraction(outputs, documents[:1])
    assert caplog.text.count("fusion_threshold is set, but these logits are of one pass") == 1


def test_candidate_pairs_alone_are_asked_about(documents):  # noqa: F811
    """Some pairs are none by their types, and others are not asked about a symmetric relation: not in the second pass either."""
    model, processor = fusing_system()
    candidates = [(one, other) for one in ("PER", "LOC", "ORG", "TIME") for other in ("PER", "LOC", "ORG", "TIME")]
    processor = processor.with_settings(candidate_pairs=candidates, symmetric=[model.config.id2label[1]])
    compared = 0
    for feature in processor.encode(documents):
        asked = list(map(tuple, pairs_of(feature).tolist()))
        turned = {asked[row] for row in feature["turned_pairs"]}
        for one in cut_documents(feature, asked, [(0,)] * len(asked), processor):
            whole = [(one.entities[head], one.entities[tail]) for head, tail in pairs_of(one.features)]
            between = [pair for pair in asked if set(pair) <= set(one.entities)]
            assert whole == between and turned & set(whole) == {whole[row] for row in one.features["turned_pairs"]}
            compared += len(one.features["turned_pairs"]) > 0
        with torch.no_grad():
            output = model(**processor.collate([feature]), output_documents=True)
        fused = fuse_evidence(model, processor, output, [feature])
        assert {
            tuple(pair) for pair, row in zip(output.pair_index[:, 1:].tolist(), fused, strict=True) if row[1] < -900
        } == turned
    assert compared


def test_only_pairs_near_the_threshold_are_asked_about(documents):  # noqa: F811
    model, processor = fusing_system(fusion_range=0.05)
    features = processor.encode(documents)
    with torch.no_grad():
        output = model(**processor.collate(features), output_documents=True)
    margins = output.logits[:, 1:] - output.logits[:, :1]
    near = margins.amax(1).abs() <= 0.05
    assert 0 < near.sum() < len(near)
    fused = fuse_evidence(model, processor, output, features)[:, 1:]
    assert torch.equal(fused[~near], margins[~near])
    processor.decision.fusion_range = None
    everywhere = fuse_evidence(model, processor, output, features)[:, 1:]
    # The others are in the second pass of more sentences than their own: their second margin can only be higher.
    assert (everywhere[near] >= fused[near] - 1e-5).all() and not torch.equal(everywhere[~near], margins[~near])


def test_pairs_without_evidence_are_not_asked_about_again(documents):  # noqa: F811
    """No sentence has enough of their attention, and nor have those of other pairs that would show them."""
    model, processor = fusing_system(evidence_threshold=0.6)
    seen = {}
    for document in documents:
        with torch.no_grad():
            output = model(**processor([document]), output_documents=True)
        fused = fuse_evidence(model, processor, output, processor.encode([document]))[:, 1:]
        asked = second_margins(model, processor, document)
        for pair, own, found in zip(output.pair_index[:, 1:].tolist(), output.logits, fused, strict=True):
            if tuple(pair) not in asked:
                assert torch.allclose(found, own[1:] - own[0] + MISSING_MARGIN + 1.0)
            seen[tuple(pair) in asked] = True
    assert seen == {True: True, False: True}
    (record,) = pipeline("document-relation-extraction", model=model, processor=processor)([documents[2]])
    assert record["triples"] == []  # it has no entity


# --------------------------------------------------------------------------------------------------- tuned, saved and used


def trainer_of(model, processor, folder, **options):
    arguments = CommTrainingArguments(
        **{"output_dir": str(folder), "max_steps": 1, "save_strategy": "no", "eval_strategy": "no", "use_cpu": True},
        **{"load_best_model_at_end": False, "disable_tqdm": True, "report_to": [], "per_device_eval_batch_size": 2},
    )
    return CommTrainer(model=model, args=arguments, processing_class=processor, **options)


@pytest.mark.parametrize("fusion_range", [None, 1.0])
def test_threshold_with_the_best_f1_is_chosen(documents, fusion_range, tmp_path):  # noqa: F811
    """Whatever the threshold, relations of pairs outside the range are predicted where their margin is above 0."""
    model, processor = fusing_system(fusion_threshold=None, fusion_range=fusion_range)
    trainer = trainer_of(model, processor, tmp_path)
    threshold = trainer.tune_fusion_threshold(documents)
    assert threshold == processor.decision.fusion_threshold
    found = trainer.predict(documents).metrics["test_f1"]
    assert found > 0
    for other in (*np.linspace(threshold - 1, threshold + 1, 21), -3, 0, 3):
        processor.decision.fusion_threshold = float(other)
        assert trainer.predict(documents).metrics["test_f1"] <= found + 1e-9
    # Other weights do away with it.
    trainer.train_dataset = trainer_of(model, processor, tmp_path, train_dataset=documents).train_dataset
    trainer.train(keep_fusion_threshold=True)
    assert processor.decision.fusion_threshold == 3
    trainer.train()
    assert processor.decision.fusion_threshold is None
    processor.decision.evidence_threshold = None
    with pytest.raises(ValueError, match="evidence_weight"):
        trainer.tune_fusion_threshold(documents)


def test_run_tunes_and_keeps_it(trained, tmp_path):  # noqa: F811
    folder, _, document = trained
    (tmp_path / "documents.json").write_text(json.dumps([document]), encoding="utf-8")
    files = [
        word for split in ("train", "validation", "test") for word in (f"--{split}_file", tmp_path / "documents.json")
    ]
    short = ["--max_steps", 1, "--eval_strategy", "no", "--load_best_model_at_end", "false", "--save_strategy", "no"]
    (metrics,) = run_script(
        *(*files, *short, "--model_name_or_path", folder, "--cache_dir", tmp_path / "cache", "--use_cpu"),
        *("--tune_evidence_threshold", "--tune_fusion_threshold", "--fusion_range", 50, "--disable_tqdm", "true"),
        *("--learning_rate", "1e-6", "--do_train", "--do_eval", "--do_predict", "--output_dir", tmp_path / "run"),
    )
    saved = json.loads((tmp_path / "run" / "processor_config.json").read_text(encoding="utf-8"))
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert saved["fusion_threshold"] == metrics["fusion_threshold"] == record["processor"]["fusion_threshold"]
    assert saved["fusion_range"] == 50 and metrics["test_f1"] == metrics["eval_f1"] > 0.9
    assert "second pass" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    processor = CommProcessor.from_pretrained(tmp_path / "run")
    model = CommForDocumentRelationExtraction.from_pretrained(tmp_path / "run")
    (record,) = pipeline("document-relation-extraction", model=model, processor=processor)([document])
    assert {(one["head"], one["tail"]) for one in record["triples"]} == {
        (one["h"], one["t"]) for one in document["labels"]
    }


@pytest.mark.parametrize(
    ("field", "value"), [("fusion_range", -1.0), ("fusion_threshold", "0"), ("fusion_threshold", True)]
)
def test_wrong_settings(field, value):
    _, processor = evidence_system()
    with pytest.raises(SettingError) as error:
        setattr(processor.decision, field, value)
    assert error.value.field == field


def test_needs_a_model_that_predicts_evidence():
    _, processor = evidence_system(evidence_weight=0.0)
    with pytest.raises(SettingError) as error:
        processor.with_settings(fusion_threshold=0.0)
    assert error.value.field == "fusion_threshold"
    with pytest.raises(SettingError, match="expected None where evidence_threshold is"):
        processor.decision.fusion_threshold = 0.0
    _, processor = fusing_system()
    with pytest.raises(SettingError, match="evidence_threshold is None; expected a number"):
        processor.decision.evidence_threshold = None
    assert copy.deepcopy(processor.decision) == dataclasses.replace(processor.decision) == processor.decision
