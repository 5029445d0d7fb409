"""Rules in the product: triples and labels that they complete, what says so, and the commands."""

import contextlib
import io
import json

import pytest
import torch
from helpers import (
    LABELS,
    SAMPLE,
    SHARED,
    random_document,
    requires_shared,
    run_script,
    save_backbone,
    tiny_model,
    tiny_processor,
)
from transformers import AutoProcessor, pipeline

import comm_docre
from modeling_comm import SettingError
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.decoding import DecisionSettings, Predictions
from modeling_comm.documents import DocumentError
from modeling_comm.evaluation.scoring import load_ign_reference
from modeling_comm.incomplete_labels.rules import Fact, Rule, compare_labels, derive_facts, facts_of, read_rules
from modeling_comm.prediction_record import parse_record
from modeling_comm.probabilities import ProbabilityMap

RULES = ["P17(x, y) => P131(x, y)", "P131(x, y) & P131(y, z) => P131(x, z)", "P27(x, y) => P569(y, x)"]
PAIRS = torch.tensor([[head, tail] for head in range(4) for tail in range(4) if head != tail])
DOCUMENTS = [random_document(4, seed=seed, labels=False) for seed in range(3)]


def logits(*facts):
    """Of a model that predicts these facts `(head, tail, label)`, with a margin of 1, and nothing else."""
    found = -torch.ones(len(PAIRS), 5)
    found[:, 0] = 0
    for head, tail, label in facts:
        found[PAIRS.tolist().index([head, tail]), label] = 1
    return found


def test_triples_that_follow_say_from_which():
    predictions = Predictions.from_logits(logits((0, 1, 1), (1, 2, 3)), PAIRS, DecisionSettings())
    completed = predictions.with_rules([Rule.parse(rule) for rule in RULES], LABELS)
    assert len(predictions.triples) == 2 and completed.triples[:2] == predictions.triples
    first, second = completed.triples[2:]
    assert (first.head, first.tail, first.label, first.rule) == (0, 1, 3, RULES[0])
    assert first.premises == ((0, 1, 1),) and first.margin == -1, "the model's own margin"
    assert (second.head, second.tail, second.premises) == (0, 2, ((0, 1, 3), (1, 2, 3)))
    words = completed.in_words(random_document(4), LABELS, {})
    assert [one["derived"] for one in words if "derived" in one] == [
        {"rule": RULES[0], "premises": [[0, 1, "P17"]]},
        {"rule": RULES[1], "premises": [[0, 1, "P131"], [1, 2, "P131"]]},
    ]
    assert len(completed.official("T", LABELS)) == 4
    assert predictions.with_rules([], LABELS) is predictions


def test_rules_may_name_relations_that_are_read_as_others():
    candidates = CandidatePairs(inverse={"has": "P131"})
    predictions = Predictions.from_logits(logits((0, 1, 3), (1, 2, 3)), PAIRS, DecisionSettings())
    rule = "has(x, y) & has(y, z) => has(x, z)"
    processor = tiny_processor(rules=[rule], inverse={"has": "P131"})
    (found,) = processor.complete([predictions], [random_document(4)])
    (derived,) = found.triples[2:]
    assert (derived[:3], derived.rule, derived.premises) == ((0, 2, 3), rule, ((1, 2, 3), (0, 1, 3)))
    assert predictions.with_rules([Rule.parse(rule)], LABELS, candidates) == found
    with pytest.raises(SettingError, match="known relations"):
        tiny_processor(rules=[rule])


def test_what_follows_has_the_models_own_probability():
    map_ = ProbabilityMap(1.0, [0.0] * 4, 0.5)
    predictions = Predictions.from_logits(logits((0, 1, 1)), PAIRS, DecisionSettings(probability_map=map_))
    given, derived = predictions.with_rules([Rule.parse(RULES[0])], LABELS).triples
    assert given.probability > 0.5 and derived.probability == pytest.approx(1 / (1 + torch.e))


def test_pairs_that_are_no_candidates_are_left_out():
    predictions = Predictions.from_logits(logits((0, 1, 1), (1, 2, 3))[:5], PAIRS[:5], DecisionSettings())
    rules = [Rule.parse("P17(x, y) => P17(y, x)"), Rule.parse("P131(x, y) => P131(y, x)")]
    assert [one[:3] for one in predictions.with_rules(rules, LABELS).triples[2:]] == [(1, 0, 1)]
    with pytest.raises(ValueError, match="margins"):
        Predictions([], DecisionSettings()).with_rules(rules, LABELS)


def derived(predicted, rules, types=None, ignored=(), **settings):
    """What follows by rules from these facts `(head, tail, label)`, with its premises, for a processor of these settings."""
    document = random_document(4, labels=False) | {"ignored_pairs": [list(pair) for pair in ignored]}
    for mentions, kind in zip(document["vertexSet"], types or ["PER"] * 4, strict=True):
        for mention in mentions:
            mention["type"] = kind
    processor = tiny_processor(rules=rules, **settings)
    pairs = torch.from_numpy(processor.candidates.pairs(document))
    rows = [PAIRS.tolist().index(pair) for pair in pairs.tolist()]
    # As the model does with what it is not asked about.
    found, symmetric = logits(*predicted)[rows], torch.tensor(processor._is_symmetric())
    found[torch.from_numpy(processor.candidates.turned(document))[:, None], symmetric] = -1e4
    outputs = {"logits": found, "pair_index": torch.cat([torch.zeros(len(pairs), 1, dtype=torch.long), pairs], dim=1)}
    (result,) = processor.decide(outputs, [document])
    assert [one[:3] for one in result.triples if one.rule is None] == sorted(predicted)
    assert len({one[:3] for one in result.triples}) == len(result.triples)
    assert all(one.margin > -10 for one in result.triples), "those that the model was asked about"
    return {one[:3]: one.premises for one in result.triples if one.rule is not None}


def test_rules_read_symmetric_relations_both_ways():
    predicted, symmetric = [(0, 1, 2), (0, 2, 3)], {"symmetric": ["P27"]}
    rules = ["P27(x, y) & P131(y, z) => P17(x, z)"]
    assert derived(predicted, rules, **symmetric) == {(1, 2, 1): ((0, 1, 2), (0, 2, 3))}
    assert derived(predicted, rules) == {}
    # What follows is in the direction that is asked about, and is a premise in both.
    rules = ["P131(x, y) => P27(y, x)", "P27(x, y) => P569(x, y)"]
    assert derived(predicted, rules, **symmetric) == {
        (0, 2, 2): ((0, 2, 3),),
        (0, 1, 4): ((0, 1, 2),),
        (1, 0, 4): ((0, 1, 2),),
        (0, 2, 4): ((0, 2, 2),),
        (2, 0, 4): ((0, 2, 2),),
    }
    assert derived(predicted, ["P27(x, y) => P27(y, x)"], **symmetric) == {}, "nothing new"
    assert derived(predicted, rules[:1], ignored=[(2, 0)], **symmetric) == {}, "not asked about"


def test_what_is_on_an_ignored_pair_is_no_premise():
    rules = ["P17(x, y) => P131(y, x)", "P131(x, y) => P27(y, x)"]
    expected = {(0, 1, 3): ((1, 0, 1),), (1, 0, 2): ((0, 1, 3),)}
    assert derived([(1, 0, 1)], rules) == expected
    assert derived([(1, 0, 1)], rules, ignored=[(0, 1)]) == {}


def test_rules_on_undirected_pairs():
    predicted = [(0, 1, 1), (1, 3, 1)]
    expected = {(0, 1, 3): ((0, 1, 1),), (1, 3, 3): ((1, 3, 1),)}
    for rule in ("P17(x, y) => P131(y, x)", "P17(x, y) => P131(x, y)"):
        assert derived(predicted, [rule], directed=False) == expected
    # The direction that the types say may have the higher index first.
    listed = {"directed": False, "candidate_pairs": [("Chemical", "Disease")]}
    types = ["Disease", "Chemical", "Gene", "Disease"]
    assert derived([(1, 0, 1)], ["P17(x, y) => P131(y, x)"], types, **listed) == {(1, 0, 3): ((1, 0, 1),)}


@pytest.mark.parametrize("rules", ["P17(x, y) => P131(x, y)", 3, ["P17(x, y)"], [None], ["P17(x, y) => P999(x, y)"]])
def test_wrong_rules_are_refused(rules):
    with pytest.raises(SettingError) as error:
        tiny_processor(rules=rules)
    assert error.value.field == "rules"


# The checkpoint, the pipeline and the command


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint with rules, and a file of one."""
    folder = tmp_path_factory.mktemp("rules")
    tiny_model().save_pretrained(folder / "model")
    tiny_processor(rules=RULES).save_pretrained(folder / "model")
    (folder / "rules.yaml").write_text(f"- {RULES[0]}\n")
    return folder


def facts(record):
    return {Fact(one["head"], one["tail"], one["relation"]) for one in record["triples"]}


def test_the_checkpoint_keeps_rules_and_the_pipeline_applies_them(saved):
    assert AutoProcessor.from_pretrained(saved / "model").rules == RULES
    extract = pipeline("document-relation-extraction", model=str(saved / "model"))
    plain = extract(DOCUMENTS, rules=[])
    assert sum(len(facts(record)) for record in plain) > 5
    for rules, records in ((RULES, extract(DOCUMENTS)), (RULES[:1], extract(DOCUMENTS, rules=RULES[:1]))):
        for before, record in zip(plain, records, strict=True):
            expected = {one.fact for one in derive_facts(facts(before), map(Rule.parse, rules))}
            derived = [one for one in parse_record(record)["triples"] if "derived" in one]
            assert facts({"triples": derived}) == expected
            assert facts(record) == facts(before) | expected
            for one in derived:
                assert {Fact(*premise) for premise in one["derived"]["premises"]} <= facts(record)
    with pytest.raises(SettingError):
        extract(DOCUMENTS, rules=["P17(x, y) => P999(x, y)"])


def command(*words):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = comm_docre.main([str(word) for word in words])
    return status, printed.getvalue()


def test_predict_takes_a_file_of_rules(saved, tmp_path, capsys):
    (tmp_path / "in.json").write_text(json.dumps(DOCUMENTS))
    flags = ["--model", saved / "model", "--input", tmp_path / "in.json", "--format", "docred", "--device", "cpu"]
    assert command("predict", *flags, "--rules", saved / "rules.yaml", "--output", tmp_path / "out.jsonl")[0] == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    rules = [one["derived"]["rule"] for record in records for one in record["triples"] if "derived" in one]
    assert {*rules} == {RULES[0]}
    assert f", of them added by rules {len(rules)}, rejected 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("derived", "field"),
    [
        ("a", "triples[0].derived"),
        ({"premises": []}, "triples[0].derived.rule"),
        ({"rule": "a", "premises": [[0, 1]]}, "triples[0].derived.premises[0]"),
        ({"rule": "a", "premises": [[0, 9, "P17"]]}, "triples[0].derived.premises[0]"),
    ],
)
def test_a_record_with_a_wrong_derivation(derived, field):
    entity = {"name": "a", "type": "PER", "mentions": [{"start": 0, "end": 1, "sentence": 0}]}
    triple = {"head": 0, "tail": 1, "relation": "P17", "relation_name": "country", "score": 0.5, "explanation": []}
    document = {"version": 1, "title": "", "text": "a", "sentences": [[0, 1]], "entities": [entity] * 2, "lost": {}}
    parse_record({**document, "triples": [{**triple, "derived": {"rule": "a", "premises": [[0, 1, "P27"]]}}]})
    with pytest.raises(DocumentError) as error:
        parse_record({**document, "triples": [{**triple, "derived": derived}]})
    assert error.value.field == field


# Labels


def test_rules_are_mined_and_labels_completed_by_commands(tmp_path):
    documents, rules, completed = SAMPLE / "train_revised.json", tmp_path / "rules.yaml", tmp_path / "completed.json"
    status, printed = command("rules", "--documents", documents, "--output", rules, "--min_support", 3)
    mined = read_rules(rules)
    assert status == 0 and printed.startswith(f"{len(mined)} rules") and all(rule.confidence >= 0.8 for rule in mined)
    assert {len(rule.conditions) for rule in mined} == {1, 2}
    flags = ["--documents", documents, "--rules", rules, "--output", completed, "--complete", documents]
    status, printed = command("complete", *flags)
    before, after = (json.loads(file.read_text(encoding="utf-8")) for file in (documents, completed))
    added = sum(len(facts_of(one)) for one in after) - sum(len(facts_of(one)) for one in before)
    assert status == 0 and printed.startswith(f"{added} facts added") and added > 0
    found = compare_labels(after, before)
    assert found["recall"] == 1 and found["documents"] == len(before)
    assert f"labels completed: precision {100 * found['precision']:.1f} %" in printed
    assert command("complete", "--documents", documents, "--rules", rules, "--output", rules)[0] == 2


def test_complete_warns_of_a_relation_that_no_document_has(tmp_path, caplog):
    (tmp_path / "in.json").write_text(json.dumps([random_document(4)]))
    (tmp_path / "rel_info.json").write_text(json.dumps({"P1": "rare", "P17": "country"}))
    (tmp_path / "rules.yaml").write_text("- P1(x, y) => P17(x, y)\n- P1(x, y) => P171(y, x)\n")
    flags = [
        "--documents",
        tmp_path / "in.json",
        "--rules",
        tmp_path / "rules.yaml",
        "--output",
        tmp_path / "out.json",
    ]
    status, printed = command("complete", *flags)
    assert status == 0 and "nothing follows" in printed and "by relation" not in printed
    (warning,) = [line for line in caplog.messages if "no document has" in line]
    assert warning == "the rule P1(x, y) => P171(y, x): no document has the relation P171"


def test_compared_labels_by_hand():
    one = {"title": "a", "vertexSet": [[], []], "labels": [{"h": 0, "t": 1, "r": "P17"}, {"h": 1, "t": 0, "r": "P17"}]}
    true = {**one, "labels": [{"h": 0, "t": 1, "r": relation} for relation in ("P17", "P131", "P27")]}
    unlike = {**one, "title": "c"}
    found = compare_labels([one, {**one, "title": "b"}, unlike], [true, {**unlike, "vertexSet": [[]]}])
    assert found == {"documents": 1, "precision": 0.5, "recall": pytest.approx(1 / 3), "f1": pytest.approx(0.4)}
    twice, once = [one, {**one, "labels": []}], [{**one, "labels": []}]
    for documents, complete, side in ((twice, once, "documents to judge"), (once, twice, "complete documents")):
        with pytest.raises(DocumentError, match="'a' again, expected a title that no other document has") as refused:
            compare_labels(documents, complete)
        assert (refused.value.source, refused.value.index, refused.value.field) == (side, 1, "title")


def test_the_script_completes_training_labels(tmp_path):
    save_backbone(tmp_path / "encoder")
    labels = json.loads((SAMPLE / "train_revised.json").read_text(encoding="utf-8"))
    rules = tmp_path / "rules.yaml"
    rules.write_text("- P17(x, y) => P27(x, y)\n")
    expected = sum(len(derive_facts(facts_of(one), read_rules(rules))) for one in labels[:6])
    assert expected > 0
    flags = [
        *("--dataset_config", "redocred", "--data_dir", SAMPLE, "--model_name_or_path", tmp_path / "encoder"),
        *(
            "--emb_size",
            16,
            "--block_size",
            4,
            "--use_cpu",
            "--disable_tqdm",
            "true",
            "--cache_dir",
            tmp_path / "cache",
        ),
        *("--max_train_documents", 6, "--max_eval_documents", 2, "--max_steps", 1, "--output_dir", tmp_path / "run"),
    ]
    run_script(*flags, "--do_train", "--complete_labels", rules, "--rules", rules)
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    completion = record["data"]["completion"]
    assert (completion["documents"], completion["by_relation"]) == (6, {"P27": expected})
    assert "by the rules of `rules.yaml`" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert record["ign_reference"]["facts"] == len(load_ign_reference(labels).facts), "the labels as they were"
    assert record["processor"]["rules"] == ["P17(x, y) => P27(x, y)"]
    settings = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))
    assert settings["complete_labels_sha256"] == completion["sha256"]
    with pytest.raises(ValueError, match="--complete_labels needs --do_train"):
        run_script(*flags, "--do_eval", "--complete_labels", rules)
    rules.write_text("- P17(x, y) => P999999(x, y)\n")
    with pytest.raises(ValueError, match="P999999"):
        run_script(*flags, "--do_train", "--restart", "--complete_labels", rules)


@requires_shared
def test_the_command_says_how_right_completed_labels_are(tmp_path):
    """DocRED's labels against Re-DocRED's; the numbers of the page on incomplete labels."""
    data, rules = SHARED / "data", tmp_path / "rules.yaml"
    command("rules", "--documents", data / "redocred-mini" / "dev_revised.json", "--output", rules)
    _, printed = command(
        *("complete", "--documents", data / "docred-mini" / "train_annotated.json", "--rules", rules),
        *("--complete", data / "redocred-mini" / "train_revised.json", "--output", tmp_path / "completed.json"),
    )
    assert "precision 99.6 %, recall 31.2 %, f1 47.5 %" in printed
    assert "precision 96.1 %, recall 41.6 %, f1 58.0 %" in printed
