"""Scores of undirected, symmetric, inverse and ignored facts, and of other data sets against the numbers of their scorers."""

import itertools
import json
import random

import pytest
from helpers import SHARED, requires_shared

import dataset_scripts  # noqa: F401  # registers the data sets
from dataset_scripts.describe import describe_documents
from modeling_comm import load_metric
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.data import DatasetEntry, DatasetFile, get_dataset, register_dataset
from modeling_comm.evaluation.field_scores import FactSets, field_scores, register_score, score_data_set
from modeling_comm.evaluation.scoring import PredictionError, format_scores, load_ign_reference, score
from modeling_comm.evaluation.type_prior import TypePrior
from modeling_comm.formats import read_documents
from modeling_comm.settings import NameTakenError, SettingError

DATA, GOLDEN = SHARED / "data", SHARED / "golden" / "more" / "scoring"


def entry(**fields):
    return DatasetEntry(name="field_scores", title="Letters", files={"test": DatasetFile(name="test.json")}, **fields)


def document(types, labels=(), title="A", **fields):
    entities = [[{"name": f"e{i}", "sent_id": i // 2, "type": kind}] for i, kind in enumerate(types)]
    facts = [dict(zip(("h", "t", "r", "novelty"), label, strict=False)) for label in labels]
    return {"title": title, "vertexSet": entities, "labels": facts, **fields}


def prediction(head, tail, relation, title="A", **fields):
    return {"title": title, "h_idx": head, "t_idx": tail, "r": relation, **fields}


# ------------------------------------------------------------------------------------------------ facts that are the same


def counts(result):
    return tuple(result[name] for name in ("correct", "predictions", "gold"))


def test_a_symmetric_fact_counts_once():
    truth = [document("PPP", [(0, 1, "P26"), (1, 0, "P26"), (2, 1, "P26"), (0, 2, "P17")])]
    found = [prediction(1, 0, "P26"), prediction(1, 2, "P26"), prediction(2, 1, "P26"), prediction(2, 0, "P17")]
    one_way = score(found, truth, candidates=CandidatePairs(symmetric=["P26"]))
    assert (one_way["correct"], one_way["distinct_predictions"], one_way["gold"]) == (2, 3, 3)
    assert (one_way["duplicates"], one_way["duplicate_labels"]) == (1, 1)
    undirected = score(found, truth, candidates=CandidatePairs(directed=False))
    assert (undirected["correct"], undirected["distinct_predictions"], undirected["gold"]) == (3, 3, 3)
    directed = score(found, truth)
    assert (directed["correct"], directed["distinct_predictions"], directed["gold"]) == (2, 4, 4)


@pytest.mark.parametrize("candidates", [CandidatePairs(symmetric=["P26"]), CandidatePairs(inverse={"P26": "P25"})])
def test_an_error_names_the_field_as_it_was_given(candidates):
    for wrong, field in ((prediction(7, 0, "P26"), "h_idx"), (prediction(0, 7, "P26"), "t_idx")):
        with pytest.raises(PredictionError) as error:
            score([wrong], [document("PP")], candidates=candidates)
        assert (error.value.field, error.value.index) == (field, 0)


def test_inverse_facts_are_one():
    truth = [document("PPP", [(0, 1, "P22"), (1, 0, "P40"), (2, 1, "P40")])]
    found = [prediction(0, 1, "P22"), prediction(1, 2, "P22")]
    one = score(found, truth, candidates=CandidatePairs(inverse={"P40": "P22"}))
    assert (one["correct"], one["gold"], one["f1"]) == (2, 2, 1.0)
    assert set(one["per_relation"]) == {"P22"}


def test_ign_f1_knows_a_fact_whichever_way_it_is_written():
    truth = [document("PPP", [(0, 1, "P26"), (1, 2, "P22")])]
    found = [prediction(1, 0, "P26"), prediction(1, 2, "P22")]
    candidates = CandidatePairs(symmetric=["P26"], inverse={"P40": "P22"})
    for fact in (["e1", "e0", "P26"], ["e0", "e1", "P26"], ["e1", "e2", "P22"], ["e2", "e1", "P40"]):
        known = score(found, truth, ign_reference=[fact], candidates=candidates)["ign_reference"]
        assert (known["known_gold"], known["known_correct"]) == (1, 1)
    assert (
        score(found, truth, ign_reference=[["e2", "e1", "P22"]], candidates=candidates)["ign_reference"]["known_gold"]
        == 0
    )


def test_ignored_pairs_do_not_count():
    truth = [document("PPP", [(0, 1, "P17"), (1, 2, "P17")], ignored_pairs=[[0, 1], [2, 0]])]
    found = [prediction(0, 1, "P17"), prediction(1, 0, "P17"), prediction(2, 0, "P27"), prediction(1, 2, "P17")]
    result = score(found, truth)
    assert (result["correct"], result["distinct_predictions"], result["gold"]) == (1, 2, 1)
    assert (result["ignored_predictions"], result["predictions"], result["duplicates"]) == (2, 4, 0)
    undirected = score(found, truth, candidates=CandidatePairs(directed=False))
    assert (undirected["correct"], undirected["distinct_predictions"], undirected["gold"]) == (1, 1, 1)


def test_the_type_prior_asks_about_candidates_only():
    types = ["Chemical", "Disease", "Disease", "Gene"]
    truth = [document(types, [(0, 1, "CID"), (3, 1, "CID")], ignored_pairs=[[0, 2]])]
    prior = TypePrior(truth, CandidatePairs(candidate_pairs=[("Chemical", "Disease")]))
    assert prior.probabilities == {("Chemical", "Disease"): {"CID": 1.0}}
    assert prior.predict(truth, 0.5) == [prediction(0, 1, "CID")]
    assert prior.best_cutoff(truth)[1] == pytest.approx(2 / 3)  # the gold fact that is no candidate is missed
    undirected = TypePrior([document(types, [(1, 0, "CID")])], CandidatePairs(directed=False))
    assert undirected.probabilities == {("Chemical", "Disease"): {"CID": 0.5}}


def test_the_type_prior_asks_about_symmetric_relations_once():
    candidates = CandidatePairs(symmetric=["sym"])
    truth = [document("PP", [(0, 1, "sym")])]
    prior = TypePrior(truth, candidates)
    assert prior.probabilities == {("P", "P"): {"sym": 1.0}}
    assert prior.predict(truth, 0.5) == [prediction(0, 1, "sym")]
    assert prior.best_cutoff(truth) == (pytest.approx(1), 1.0)
    # The other direction is ignored, and so is the fact; directed facts stay as they are.
    truth = [document("PQP", [(2, 1, "sym"), (1, 0, "to")], ignored_pairs=[[0, 1]])]
    prior = TypePrior(truth, candidates)
    assert prior.probabilities == {("Q", "P"): {"sym": 1.0, "to": 0.5}}
    assert prior.predict(truth, 0) == [prediction(1, 0, "to"), prediction(1, 2, "sym"), prediction(1, 2, "to")]
    drawn = random.Random(0)
    for _ in range(50):
        pairs = [(h, t) for h in range(4) for t in range(4) if h != t]
        labels = [(*pair, r) for pair in pairs for r in ("sym", "to") if drawn.random() < 0.3]
        truth = [document(drawn.choices("PQ", k=4), labels)]
        prior = TypePrior(truth, candidates)
        cutoff, f1 = prior.best_cutoff(truth)
        found = [value - 1e-9 for values in prior.probabilities.values() for value in values.values()]
        scores = [score(prior.predict(truth, one), truth, candidates=candidates)["f1"] for one in [cutoff, *found]]
        assert scores[0] == pytest.approx(f1) == pytest.approx(max(scores))


def test_a_pair_of_relations_that_can_be_turned_has_no_direction():
    truth = [document("PPP", [(1, 0, "sym"), (0, 2, "kept")])]
    found = [prediction(1, 0, "to"), prediction(2, 0, "inverse")]
    candidates = CandidatePairs(symmetric=["sym"], inverse={"inverse": "kept"})
    assert counts(FactSets(found, truth, candidates).rates()) == (2, 2, 2)
    assert counts(FactSets(found, truth, candidates).rates("r")) == (1, 2, 2)
    assert counts(FactSets(found, truth).rates()) == (1, 2, 2)


def test_scores_of_an_entry_beside_the_others():
    truth = [document("PPP", [(0, 1, "bind", "Novel"), (0, 2, "bind", "No")])]
    found = [prediction(1, 0, "cause", novelty="Novel"), prediction(0, 2, "bind", novelty="Novel")]
    letters = entry(directed=False, scores=("pair", "pair_and_novelty", "pair_relation_and_novelty"))
    own = score_data_set(letters, found, truth)["field_scores"]
    assert [counts(one) for one in own.values()] == [(2, 2, 2), (1, 2, 2), (0, 2, 2)]
    without = [{name: value for name, value in one.items() if name != "novelty"} for one in found]
    own = score_data_set(letters, without, truth)["field_scores"]
    assert counts(own["pair"]) == (2, 2, 2) and own["pair_and_novelty"] is None
    with pytest.raises(SettingError):
        score_data_set(entry(scores=("pear",)), found, truth)
    with pytest.raises(NameTakenError):
        register_score("pair")(lambda facts: None)


# --------------------------------------------------------------------------------------------------- original scorers


def read(file, format_, number=None):
    """Documents of a real file, and the place of each entity by title and ids."""
    documents = list(itertools.islice(read_documents(DATA / file, format_), number))
    places = {(one["title"], "|".join(ids)): place for one in documents for place, ids in enumerate(one["entity_ids"])}
    return documents, places


@requires_shared
@pytest.mark.parametrize(("name", "file"), [("cdr", "cdr/test_filter.data"), ("gda", "gda/test.data")])
def test_cdr_and_gda_as_their_scorers(name, file):
    golden = json.loads((GOLDEN / "cdr_gda.json").read_text())[name]
    documents, places = read(file, "cdr", golden["documents"])
    relation = golden["label"].split(":")[1]

    def facts(pairs):
        return [prediction(places[title, head], places[title, tail], relation, title) for title, head, tail in pairs]

    found = facts(row[:3] for row in golden["rows"] if row[6])
    for one in (found, found + facts(golden["not_include_pairs"])):  # those are not scored, whatever is predicted
        result = score_data_set(get_dataset(name), one, documents)
        for part, own in (("overall", result), ("intra", result["intra"]), ("inter", result["inter"])):
            original = golden["eog"][part]
            assert (own["correct"], own["gold"]) == (original["tp"], original["gold"])
            assert [round(own[rate], 4) for rate in ("precision", "recall", "f1")] == [
                original[rate] for rate in ("precision", "recall", "f1")
            ]
    # ATLOP and DocuNet add 1e-5 to every denominator, in float32.
    predicted = golden["predicted"]
    precision, recall = result["correct"] / (predicted + 1e-5), result["correct"] / (golden["gold"] + 1e-5)
    assert 2 * precision * recall / (precision + recall + 1e-5) * 100 == pytest.approx(
        golden["atlop_f1_percent"], rel=1e-6
    )
    assert result["f1"] * 100 == pytest.approx(golden["atlop_f1_percent"], rel=2e-5)


def test_scores_of_dwie_are_printed(tmp_path):
    """`ign_recall` has a row of its own beside that of DocRED's Ign, where there is a reference."""
    entities = [[{"name": name, "sent_id": 0, "type": "GPE"}] for name in ("Bonn", "Oslo", "Rome")]
    labels = [{"h": head, "t": tail, "r": "vs"} for head, tail in ((0, 1), (1, 2))]
    documents = [{"title": "t", "sents": [["Bonn", "Oslo", "Rome"]], "vertexSet": entities, "labels": labels}]
    (tmp_path / "train.json").write_text(json.dumps([{**documents[0], "labels": labels[:1]}]))
    reference = load_ign_reference(tmp_path / "train.json")
    found = [prediction(0, 1, "vs", "t"), prediction(1, 2, "vs", "t"), prediction(2, 0, "vs", "t")]
    result = score_data_set(get_dataset("dwie"), found, documents, reference)
    (row,) = (line for line in format_scores(result, baseline=result).splitlines() if line.startswith("ign recall"))
    assert row.split()[2:5] == ["66.67", "100.00", "80.00"]
    assert "ign recall" not in format_scores(score_data_set(get_dataset("dwie"), found, documents))


@requires_shared
def test_dwie_as_its_scorers():
    golden = json.loads((GOLDEN / "dwie.json").read_text())
    documents = json.loads((DATA / "dwie" / "test.json").read_text())
    relations = {index: label for label, index in json.loads((DATA / "dwie" / "rel2id.json").read_text()).items()}
    found = [
        prediction(head, tail, relations[relation], documents[number]["title"])
        for number, head, tail, relation in golden["predictions"]
    ]
    reference = load_ign_reference(DATA / "dwie" / "train_annotated.fact")
    result = score_data_set(get_dataset("dwie"), found, documents, reference)
    for name in ("f1", "ign_f1", "precision", "recall"):
        assert result[name] == pytest.approx(golden["milr"][name], abs=1e-6)
    assert (result["gold"], result["correct"]) == (golden["counts"]["gold"], golden["counts"]["correct"])
    assert result["field_scores"]["ign_recall"]["f1"] == pytest.approx(golden["logire"]["ignf1"], abs=1e-6)


BIORED = {"pair": "pair", "pair_novelty": "pair_and_novelty", "all": "pair_relation_and_novelty"}


@requires_shared
@pytest.mark.parametrize("part", ["all pairs", "five types of pairs", "without some documents"])
def test_biored_as_its_scorers(part):
    golden = json.loads((GOLDEN / "biored.json").read_text())
    documents, places = read("biored/Test.PubTator", "pubtator")
    found = []
    for title, relation, head, tail, novelty in golden["predictions"]:
        ends = [places.get((title, identifier)) for identifier in (head, tail)]
        # An entity without an id is none of the document's: whatever is predicted of it is wrong.
        where = (*ends, relation, title) if None not in ends else (0, 1, relation, f"{title} {head} {tail}")
        found.append(prediction(*where, novelty=novelty))
    expected = {name: golden["biorex"][name] for name in golden["biorex"]}
    if part == "without some documents":
        missing = golden["without_documents"]
        found = [one for one in found if one["title"].split()[0] not in missing]
        # BioREx forgets the gold facts of documents that the predictions lack; they are missed.
        counted = golden["own_counts_for_missing_documents"].items()
        expected = {name: {"tp": tp, "fp": fp, "fn": fn, "gold": tp + fn} for name, (tp, fp, fn) in counted}
        assert expected["pair"]["gold"] == 1163 > golden["biorex_without_those_documents"]["pair"]["gold"]
    elif part == "five types of pairs":
        chemical, disease, gene = "ChemicalEntity", "DiseaseOrPhenotypicFeature", "GeneOrGeneProduct"
        scored = [{chemical}, {chemical, disease}, {chemical, gene}, {disease, gene}, {gene}]
        for one in documents:
            types = [mentions[0]["type"] for mentions in one["vertexSet"]]
            size = range(len(types))
            others = [[h, t] for h in size for t in size if h < t and {types[h], types[t]} not in scored]
            one["ignored_pairs"] = others
        # Of the two predictions of an entity without an id one is of a variant and a disease.
        found = [one for one in found if not one["title"].startswith("19394258 ")]
        expected = golden["biorex_five_pair_types"]
    result = score_data_set(get_dataset("biored"), found, documents)
    own = {name: result["field_scores"][score_name] for name, score_name in BIORED.items()} | {"pair_type": result}
    for name, one in own.items():
        original = expected[name]
        assert (one["correct"], one["gold"]) == (original["tp"], original["gold"]), name
        predicted = one.get("distinct_predictions", one["predictions"])
        assert predicted - one["correct"] == original["fp"], name
        for rate in ("precision", "recall", "f1"):
            if rate in original:
                assert one[rate] == pytest.approx(original[rate], abs=1e-6)


FILES = {
    "cdr": ("cdr/CDR_TestSet.PubTator.txt.gz", "pubtator"),
    "cdr_filtered": ("cdr/test_filter.data", "cdr"),
    "gda": ("gda/test.data", "cdr"),
    "biored": ("biored/Test.PubTator", "pubtator"),
    "chemdisgene": ("chemdisgene/test.anno_all.json", "chemdisgene"),
}


@requires_shared
@pytest.mark.parametrize("name", FILES)
def test_the_facts_of_a_data_set_are_of_its_candidates(name):
    documents, _ = read(*FILES[name])
    candidates = get_dataset(name).candidates
    stats = describe_documents(documents, candidates)
    assert stats["unasked_triples"] == 0 < stats["triples"]
    assert stats["pairs"] < describe_documents(documents)["pairs"] / 1.9


@requires_shared
def test_docred_declares_no_such_relation_and_its_golden_scores_stay():
    documents = json.loads((DATA / "redocred-mini" / "test_revised.json").read_text())
    found = TypePrior(documents).predict(documents, 0.05)
    expected = score(found, documents)
    for name in ("docred", "redocred", "docred_mixed"):
        candidates = get_dataset(name).candidates
        assert candidates == CandidatePairs()
        assert score(found, documents, candidates=candidates) == expected
        assert TypePrior(documents, candidates).predict(documents, 0.05) == found


def test_the_metric_scores_by_an_entry(tmp_path):
    letters = register_dataset(entry(directed=False, scores=("pair", "pair_and_novelty")))
    truth = document("PPP", [(0, 1, "bind", "Novel"), (0, 2, "bind", "No")], ignored_pairs=[[0, 2]])
    facts = [{"h_idx": 1, "t_idx": 0, "r": "cause", "novelty": "Novel"}, {"h_idx": 2, "t_idx": 0, "r": "bind"}]
    metric = load_metric(cache_dir=str(tmp_path))
    records = {"predictions": [{"title": "A", "facts": facts}], "references": [truth]}
    found = metric.compute(**records, dataset_config="field_scores")
    assert found == score_data_set(letters, [{"title": "A", **fact} for fact in facts], [truth])
    assert counts(found["field_scores"]["pair_and_novelty"]) == (1, 1, 1)
    assert field_scores((), FactSets([], [])) == {}
