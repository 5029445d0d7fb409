"""Pairs of entities that a model is asked about: by type, undirected, with symmetric and inverse relations, without those that a
document says to ignore; and documents whose entities have ids and share mentions."""

import copy
import json

import numpy as np
import pytest
import torch
from helpers import (
    random_document,
    registries_kept,
    run_script,
    save_backbone,
    tiny_config,
    tiny_model,
    tiny_processor,
    tiny_system,
)
from torch.nn.functional import softplus

import comm_docre
from dataset_scripts.describe import describe_documents
from modeling_comm import CommProcessor, DocumentRelationExtractionPipeline, document_from_text
from modeling_comm import modeling_comm as model_module
from modeling_comm.candidate_pairs import ALL_PAIRS, CandidatePairs
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.features import LOSSES_OF_ENCODING, without_relations
from modeling_comm.incomplete_labels.label_rates import label_rates
from modeling_comm.loss_base import reduce_losses, relation_distances, toward_gold
from modeling_comm.losses import available_losses, loss_from_config, register_loss
from modeling_comm.settings import SettingError
from modeling_comm.training.checks import check_loss_of_symmetric
from modeling_comm.triple_selection import UnknownRelationError


def typed(types, labels=(), seed=0, **fields):
    """A document whose entities have these types, with labels `(head, tail, relation)`."""
    document = random_document(len(types), words=30, seed=seed)
    for mentions, kind in zip(document["vertexSet"], types, strict=True):
        for mention in mentions:
            mention["type"] = kind
    return document | {"labels": [{"h": h, "t": t, "r": r} for h, t, r in labels]} | fields


CHEMICALS = ["Chemical", "Disease", "Chemical", "Disease", "Gene"]
TO_DISEASE = CandidatePairs(candidate_pairs=[("Chemical", "Disease")])


def pairs(candidates, document):
    return list(map(tuple, candidates.pairs(document).tolist()))


def test_all_ordered_pairs_by_default():
    document = random_document(5)
    assert pairs(ALL_PAIRS, document) == [(h, t) for h in range(5) for t in range(5) if h != t]
    assert pairs(ALL_PAIRS, random_document(1)) == pairs(ALL_PAIRS, random_document(0)) == []
    assert ALL_PAIRS.given() == {}


def test_pairs_by_type():
    assert pairs(TO_DISEASE, typed(CHEMICALS)) == [(0, 1), (0, 3), (2, 1), (2, 3)]
    assert pairs(TO_DISEASE, typed(["Gene", "Gene"])) == []
    # The first mention decides, and labels of named-entity models mean DocRED's types.
    document = typed(["PERSON", "LOC"])
    document["vertexSet"][1].append({**document["vertexSet"][1][0], "type": "PER"})
    assert pairs(CandidatePairs(candidate_pairs=[("PER", "GPE")]), document) == [(0, 1)]


def test_one_pair_per_unordered_pair():
    undirected = CandidatePairs(directed=False)
    assert pairs(undirected, typed(["A"] * 3)) == [(0, 1), (0, 2), (1, 2)]
    # The direction that is listed; where both are, or the types are the same, the lower index first.
    of_types = CandidatePairs(candidate_pairs=[("Chemical", "Disease"), ("Disease", "Disease")], directed=False)
    assert pairs(of_types, typed(["Disease", "Chemical", "Disease"])) == [(0, 2), (1, 0), (1, 2)]
    both = CandidatePairs(candidate_pairs=[("Chemical", "Disease"), ("Disease", "Chemical")], directed=False)
    assert pairs(both, typed(["Disease", "Chemical"])) == [(0, 1)]
    ignored = typed(["Disease", "Chemical", "Disease"], ignored_pairs=[[0, 1]])
    assert pairs(of_types, ignored) == [(0, 2), (1, 2)]


def test_pairs_are_counted_without_a_list_of_them(monkeypatch):
    """Of a document of a thousand entities a million tuples would be made for a few dozen labels."""
    document = {**random_document(6, seed=3), "ignored_pairs": [[0, 1], [2, 3]]}
    kinds = sorted({mentions[0]["type"] for mentions in document["vertexSet"]})
    facts = [(head, tail) for head in range(6) for tail in range(6) if head != tail]
    document["labels"] = [{"h": head, "t": tail, "r": "P17", "evidence": []} for head, tail in facts]
    some = [(kinds[0], kinds[-1]), (kinds[-1], kinds[0]), (kinds[0], kinds[0])]
    ways = [ALL_PAIRS, CandidatePairs(some), CandidatePairs(some, directed=False), CandidatePairs(directed=False)]
    expected = [candidates.pairs(document).tolist() for candidates in ways]
    monkeypatch.delattr(CandidatePairs, "pairs")
    for candidates, asked in zip(ways, expected, strict=True):
        assert np.argwhere(candidates.asked(document)).tolist() == asked
        labelled = {fact[:2] for fact, _ in candidates.labels(document)}
        positive = sum(tuple(pair) in labelled for pair in asked)
        found = describe_documents([document], candidates)
        assert found["pairs"] == found["labelled_pairs"] == len(asked) and found["positive_pairs"] == positive > 0
        assert found["unasked_triples"] == len(labelled) - positive
        assert label_rates([document], candidates) == {"P17": positive / len(asked)}


def test_facts_are_read_in_the_direction_that_is_asked():
    candidates = CandidatePairs(symmetric=["P27"], inverse={"P40": "P22"})
    assert candidates.turn(3, 1, "P40") == (1, 3, "P22")
    assert candidates.turn(3, 1, "P27") == candidates.turn(1, 3, "P27") == (1, 3, "P27")
    assert candidates.turn(3, 1, "P17") == (3, 1, "P17")
    assert candidates.mirrored(1, 3, "P22") == [(3, 1, "P40")]
    assert candidates.mirrored(1, 3, "P27") == [(3, 1, "P27")]
    assert candidates.mirrored(1, 3, "P17") == []
    listed = CandidatePairs(candidate_pairs=[("B", "A")], symmetric=["P27"])
    assert listed.turn(0, 1, "P27", listed.matrix(["A", "B"])) == (1, 0, "P27")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("candidate_pairs", []),
        ("candidate_pairs", [("Chemical",)]),
        ("candidate_pairs", [("Chemical", 1)]),
        ("candidate_pairs", 3),
        ("directed", "no"),
        ("symmetric", "P26"),
        ("symmetric", [1]),
        ("inverse", [("P22", "P40")]),
        ("inverse", {"P22": "P40", "P40": "P22"}),
    ],
)
def test_wrong_declarations_are_refused(field, value):
    with pytest.raises(SettingError) as refused:
        CandidatePairs(**{field: value})
    assert refused.value.field == field


# ---------------------------------------------------------------------------------------------------------- processor


def test_the_checkpoint_keeps_them(tmp_path):
    settings = {"candidate_pairs": [["Chemical", "Disease"]], "symmetric": ["P27"], "inverse": {"P40": "P17"}}
    processor = tiny_processor(**settings, relation_names={"P40": "child"})
    processor.save_pretrained(tmp_path)
    loaded = CommProcessor.from_pretrained(tmp_path)
    assert loaded.candidates == processor.candidates == CandidatePairs(**settings)
    assert loaded.with_settings(directed=False).candidates == CandidatePairs(**settings, directed=False)
    tiny_processor().save_pretrained(tmp_path)
    assert not set(CandidatePairs.field_names()) & set((tmp_path / "processor_config.json").read_text().split('"'))


def test_relations_that_the_model_lacks_are_refused():
    for wrong in ({"symmetric": ["P26"]}, {"inverse": {"P40": "P26"}}, {"inverse": {"P17": "P27"}}):
        with pytest.raises(SettingError):
            tiny_processor(**wrong)


def encoded(document, **settings):
    processor = tiny_processor(**settings)
    (feature,) = processor.encode([document])
    return processor.collate([feature]), feature


def test_labels_of_candidates_only():
    facts = [(0, 1, "P17"), (2, 3, "P27"), (1, 0, "P17"), (0, 4, "P17"), (2, 1, "P17")]
    document = typed(CHEMICALS, facts, ignored_pairs=[[2, 1], [2, 3]])
    batch, feature = encoded(document, candidate_pairs=[("Chemical", "Disease")])
    assert batch["pair_index"].tolist() == [[0, 0, 1], [0, 0, 3]]
    assert batch["labels"].tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert feature["unasked_facts"] == 2 and "asked" not in batch  # not those of ignored pairs
    assert "unasked_facts" in LOSSES_OF_ENCODING
    assert feature["pairs"] == [[0, 1], [0, 3]]


def test_document_without_entities():
    batch, feature = encoded(typed([], []), candidate_pairs=[("Chemical", "Disease")])
    assert len(batch["pair_index"]) == len(batch["labels"]) == 0 and not feature["pairs"]


def test_labels_of_undirected_data():
    batch, feature = encoded(typed(["A"] * 3, [(2, 0, "P17"), (0, 2, "P17"), (1, 2, "P27")]), directed=False)
    assert batch["pair_index"][:, 1:].tolist() == [[0, 1], [0, 2], [1, 2]]
    assert batch["labels"][:, 1:3].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert feature["unasked_facts"] == 0


def test_symmetric_relations_are_asked_about_once():
    batch, feature = encoded(typed(["A"] * 3, [(2, 0, "P27"), (2, 1, "P17")]), symmetric=["P27"])
    rows = {tuple(pair): row for row, pair in enumerate(batch["pair_index"][:, 1:].tolist())}
    assert len(rows) == 6
    assert batch["labels"][rows[0, 2]].tolist() == [0, 0, 1, 0, 0] and batch["labels"][rows[2, 0]].tolist()[0] == 1
    assert batch["labels"][rows[2, 1]].tolist() == [0, 1, 0, 0, 0]
    for (head, tail), row in rows.items():
        assert batch["asked"][row].tolist() == [True, True, head < tail, True, True]
    # Ignored in one direction, it is asked about in none.
    for ignored in ([0, 2], [2, 0]):
        batch, feature = encoded(typed(["A"] * 3, [(2, 0, "P27")], ignored_pairs=[ignored]), symmetric=["P27"])
        assert len(batch["pair_index"]) == 5 and feature["facts"] == []
        both = (batch["pair_index"][:, 1] + batch["pair_index"][:, 2] == 2).nonzero()
        assert not batch["asked"][both, 2].any()


def test_columns_are_ids_whatever_the_order_of_the_labels():
    document, symmetric = typed(["A"] * 3), ["P17"]
    unordered = tiny_config(id2label={2: "P27", 4: "P569", 0: "Na", 1: "P17", 3: "P131"})
    processor = tiny_processor(unordered, symmetric=symmetric)
    ordered = tiny_processor(symmetric=symmetric)
    assert processor.relations == ordered.relations
    assert torch.equal(processor([document])["asked"], ordered([document])["asked"])


def test_inverse_relations_are_read_as_one():
    document = typed(["A"] * 3, [(2, 0, "P40"), (0, 2, "P17"), (1, 2, "P17")])
    _, feature = encoded(document, inverse={"P40": "P17"})
    assert feature["facts"] == [[0, 2, 1], [1, 2, 1]]
    with pytest.raises(DocumentError):
        encoded(document)


# -------------------------------------------------------------------------------------------------------------- model


def test_a_relation_that_is_not_asked_about_is_never_predicted_and_learns_nothing():
    document = typed(["A"] * 4, [(3, 0, "P27"), (0, 1, "P17")])
    processor, model = tiny_processor(symmetric=["P27"]), tiny_model(tiny_config(loss="cmm"))
    batch = processor([document])
    output = model(**batch)
    for processor.decision.threshold_offset in (-100.0, -2000.0):
        (triples,) = processor.post_process_relation_extraction(output, [document])
        found = {(one["head"], one["tail"], one["relation"]) for one in triples}
        assert {(h, t) for h, t, r in found if r == "P27"} == {(h, t) for h in range(4) for t in range(4) if h < t}
        assert len({(h, t) for h, t, r in found if r == "P17"}) == 12
    output.loss.backward()
    (gradient,) = [
        p.grad for name, p in model.named_parameters() if name == "relation_encoder.classifier.linear.weight"
    ]
    assert gradient.abs().sum() > 0


def test_logits_of_the_pairs_that_are_asked_do_not_change():
    document, model = typed(CHEMICALS), tiny_model()
    whole, some = tiny_processor(), tiny_processor(candidate_pairs=[("Chemical", "Disease")])
    of_whole, of_some = model(**whole([document])), model(**some([document]))
    expected = dict(zip(map(tuple, of_whole.pair_index.tolist()), of_whole.logits, strict=True))
    assert len(of_some.logits) == 4
    for pair, logits in zip(of_some.pair_index.tolist(), of_some.logits, strict=True):
        torch.testing.assert_close(logits, expected[tuple(pair)])
    # A document without candidates has no pairs, alone and beside another.
    none = typed(["Gene"] * 3, seed=1)
    assert len(model(**some([none])).logits) == 0
    torch.testing.assert_close(model(**some([none, document])).logits, of_some.logits)


# ---------------------------------------------------------------------------------------------- ids, shared mentions


def test_entities_that_share_a_mention():
    document = typed(["Chemical", "Disease", "Disease"], [(0, 1, "P17"), (0, 2, "P17")])
    document["vertexSet"][2] = copy.deepcopy(document["vertexSet"][1])
    document["entity_ids"] = [["D1"], ["D2"], ["D3", "D4"]]
    validate_document(document)
    batch = tiny_processor()([document])
    mentions = len(document["vertexSet"][1])
    positions, entities = batch["mention_positions"][0], batch["mention_entities"][0]
    assert positions[entities == 1].tolist() == positions[entities == 2].tolist() and mentions == sum(entities == 2)
    output = tiny_model()(**batch)
    rows = {tuple(pair): row for row, pair in enumerate(output.pair_index[:, 1:].tolist())}
    torch.testing.assert_close(output.logits[rows[0, 1]], output.logits[rows[0, 2]])


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("ignored_pairs", {}, "ignored_pairs"),
        ("ignored_pairs", [[0, 1], [0]], "ignored_pairs[1]"),
        ("ignored_pairs", [[0, 0]], "ignored_pairs[0]"),
        ("ignored_pairs", [[0, 3]], "ignored_pairs[0]"),
        ("ignored_pairs", [[0, True]], "ignored_pairs[0]"),
        ("entity_ids", [["D1"]], "entity_ids"),
        ("entity_ids", ["D1", [], []], "entity_ids[0]"),
        ("entity_ids", [["D1"], [], [2]], "entity_ids[2][0]"),
        ("untyped_entities", "all", "untyped_entities"),
        ("untyped_entities", [0, 3], "untyped_entities[1]"),
        ("untyped_entities", [[0]], "untyped_entities[0]"),
    ],
)
def test_wrong_fields_are_named(field, value, named):
    with pytest.raises(DocumentError) as refused:
        validate_document({**random_document(3), field: value})
    assert refused.value.field == named


# ------------------------------------------------------------------------------------------------- pipeline, training


def test_the_pipeline_shows_both_directions_when_asked():
    processor = tiny_processor(
        symmetric=["P27"], inverse={"P40": "P17"}, relation_names={"P40": "child", "P17": "parent"}
    )
    extract = DocumentRelationExtractionPipeline(tiny_model(), processor)
    document = typed(["PER"] * 3)
    once, both = (extract(document, threshold_offset=-100.0, both_directions=shown) for shown in (False, True))

    def facts(record):
        return [(one["head"], one["tail"], one["relation"]) for one in record["triples"]]

    assert len(set(facts(once))) == len(facts(once)) == 6 * 3 + 3
    added = {(t, h, {"P27": "P27", "P17": "P40"}[r]) for h, t, r in facts(once) if r in ("P27", "P17")}
    assert len(facts(both)) == len(facts(once)) + len(added) and set(facts(both)) == set(facts(once)) | added
    known = dict(zip(facts(once), once["triples"], strict=True))
    for fact, one in zip(facts(both), both["triples"], strict=True):
        if fact in added:
            premise = tuple(one["derived"]["premises"][0])
            assert one["score"] == known[premise]["score"] and one["explanation"] == known[premise]["explanation"]
            assert premise[:2] == fact[1::-1] and one["derived"]["rule"].endswith(f"{fact[2]}(y, x)")
            assert one["relation_name"] == {"P40": "child", "P27": "P27"}[fact[2]]
    assert "derived" not in once["triples"][0]
    assert {one["relation"] for one in both["triples"] if one.get("symmetric")} == {"P27"}
    assert all(one["symmetric"] is True for one in both["triples"] if one["relation"] == "P27")
    with pytest.raises(ValueError, match="both_directions"):
        extract(document, both_directions="yes")


def test_triples_of_both_directions_are_selected():
    processor = tiny_processor(symmetric=["P27"], inverse={"P40": "P17"}, relation_names={"P40": "child"})
    extract = DocumentRelationExtractionPipeline(
        tiny_model(), processor, both_directions=True, threshold_offset=-100.0
    )
    document = typed(["ORG", "PER", "ORG"])
    everything = extract(document)["triples"]
    selections = [
        ({"head_types": "PER"}, [one for one in everything if one["head"] == 1]),
        ({"relations": "Child"}, [one for one in everything if one["relation"] == "P40"]),
    ]
    for selection, expected in selections:
        record = extract(document, **selection)
        assert record["triples"] == expected and any("derived" in one for one in expected)
        assert record["lost"]["triples_not_selected"] == len(everything) - len(expected)
    assert len(extract(document, relations="P27", top_k=1)["triples"]) == 1
    with pytest.raises(UnknownRelationError):
        extract(document, relations="child", both_directions=False)


def test_the_command_selects_relations_that_it_shows_both_ways(tmp_path, capsys):
    config, processor = tiny_system(inverse={"P40": "P17"})
    for part in (tiny_model(config), processor):
        part.save_pretrained(tmp_path / "model")
    source, output = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps([typed(["PER"] * 3)]))
    files = ("--model", tmp_path / "model", "--input", source, "--format", "docred", "--output", output)
    words = ["predict", *map(str, files), *("--device", "cpu", "--threshold_offset", "-100", "--relations", "P40")]
    assert comm_docre.main(words) == 2 and "'P40'" in capsys.readouterr().err
    assert comm_docre.main([*words, "--both_directions"]) == 0
    (record,) = map(json.loads, output.read_text().splitlines())
    assert [one["relation"] for one in record["triples"]] == ["P40"] * 6


def test_types_that_the_model_is_not_asked_about_are_said(caplog):
    extract = DocumentRelationExtractionPipeline(
        tiny_model(), tiny_processor(candidate_pairs=[("Chemical", "Disease")])
    )
    assert extract(typed(["CHEMICAL", "DISEASE"]))["triples"] == []
    assert "Chemical and Disease" in caplog.text and "CHEMICAL, DISEASE" in caplog.text
    caplog.clear()
    record = extract({**typed(["Chemical", "Disease"]), "entity_ids": [["D1"], ["D2", "D3"]]}, threshold_offset=-100.0)
    assert caplog.text == "" and len(record["triples"]) == 4
    assert [entity["ids"] for entity in record["entities"]] == [["D1"], ["D2", "D3"]]


def test_ids_of_entities_in_a_text():
    entities = [{"mentions": [{"start": 0, "end": 4}], "ids": ["Q585"]}, {"mentions": [{"start": 8, "end": 14}]}]
    read = document_from_text("Oslo in Norway", entities)
    assert read.document["entity_ids"] == [["Q585"], []] and read.entities[0]["ids"] == ["Q585"]
    entities[1]["ids"] = "Q20"
    with pytest.raises(DocumentError) as refused:
        document_from_text("Oslo in Norway", entities)
    assert refused.value.field == "entities[1].ids"


def test_the_model_refuses_a_loss_that_cannot_leave_out_relations():
    config, processor = tiny_system(loss="margin", symmetric=["P27"])
    model, batch = tiny_model(config), processor([random_document(3)])
    assert torch.isfinite(model.eval()(**batch).loss)
    with pytest.raises(SettingError, match="symmetric relations among directed ones"):
        model.train()(**batch)


def test_the_model_checks_a_loss_once_for_its_settings(monkeypatch):
    asked = []
    check = model_module.check_loss_of_unasked

    def count(config):
        asked.append((config.loss, getattr(config, "cmm_margin", None)))
        check(config)

    monkeypatch.setattr(model_module, "check_loss_of_unasked", count)
    config, processor = tiny_system(loss="cmm", symmetric=["P27"])
    model, batch = tiny_model(config).train(), processor([random_document(3)])
    for _ in range(2):
        for margin in (0.1, 0.1, 0.3):
            config.cmm_margin = margin
            model(**batch)
    assert asked == [("cmm", 0.1), ("cmm", 0.3)] * 2
    config.loss = "margin"
    with pytest.raises(SettingError):
        model(**batch)


@pytest.mark.parametrize("noise", ["torch", "numpy"])
def test_a_loss_with_noise_is_judged_on_the_same_noise(noise):
    """Or it is said that it cannot be judged."""
    draws = {"torch": torch.rand_like, "numpy": lambda logits: torch.from_numpy(np.random.rand(*logits.shape))}

    def check(factor):
        with registries_kept():

            @register_loss("noisy")
            def noisy_loss(logits, labels, reduction="mean"):
                distance, positive = relation_distances(logits + draws[noise](logits).float(), labels)
                return reduce_losses(softplus(factor * toward_gold(distance, positive)).sum(dim=1), reduction)

            check_loss_of_symmetric(tiny_config(loss="noisy"), CandidatePairs(symmetric=["P27"]))

    before = torch.get_rng_state()
    if noise == "torch":
        check(-1)
        with pytest.raises(SettingError, match="below the threshold does not matter"):
            check(1)
    else:
        with pytest.raises(SettingError, match="gives the same for the same logits"):
            check(-1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("loss", available_losses())
def test_losses_leave_out_what_is_not_asked_or_are_refused(loss):
    config = tiny_config(loss=loss)
    check_loss_of_symmetric(config, CandidatePairs(directed=False, symmetric=["P27"]))
    if loss in ("margin", "ncrl", "ssr_pu"):
        with pytest.raises(SettingError):
            check_loss_of_symmetric(config, CandidatePairs(symmetric=["P27"]))
        return
    check_loss_of_symmetric(config, CandidatePairs(symmetric=["P27"]))
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.zeros(6, 5)
    labels[0, 1] = labels[1, 2] = labels[1, 4] = 1
    asked = torch.ones(6, 5, dtype=torch.bool)
    asked[2:4, 3] = False
    loss_function = loss_from_config(config)
    losses = loss_function(without_relations(logits, asked), labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    # As if the model had one relation less for these pairs.
    others = torch.tensor([0, 1, 2, 4])
    fewer = logits.detach()[2:4][:, others].requires_grad_()
    expected = loss_function(fewer, labels[2:4][:, others], reduction="none")
    (expected_gradient,) = torch.autograd.grad(expected.sum(), fewer)
    torch.testing.assert_close(losses[2:4], expected)
    torch.testing.assert_close(gradient[2:4][:, others], expected_gradient)
    assert not gradient[2:4, 3].any()


ENTRY = """
from modeling_comm.data import DatasetEntry, DatasetFile, register_dataset

register_dataset(
    DatasetEntry(
        name="side_effects",
        title="Side effects",
        files={
            split: DatasetFile(name=f"{file}.json")
            for split, file in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
        null_label="NR",
        entity_types=("Chemical", "Gene", "Disease"),
        candidate_pairs=(("Chemical", "Disease"), ("Disease", "Disease")),
        symmetric=("P27",),
        inverse={"P569": "P131"},
        scores=("pair",),
    )
)
"""


def test_a_data_set_is_trained_and_scored_on_its_pairs(tmp_path, capsys):
    types = ["Chemical", "Disease", "Disease", "Gene"]
    facts = [(0, 1, "P17"), (2, 1, "P27"), (1, 2, "P569"), (3, 0, "P17"), (0, 2, "P17")]
    documents = [typed(types, facts, seed, title=f"D{seed}", ignored_pairs=[[0, 2]]) for seed in range(4)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(documents))
    (tmp_path / "entry.py").write_text(ENTRY)
    flags = ["--extensions", tmp_path / "entry.py", "--dataset_config", "side_effects", "--data_dir", tmp_path]
    flags += ["--cache_dir", tmp_path / "cache", "--report_to", "none", "--use_cpu", "--disable_tqdm", "true"]
    model = ["--model_name_or_path", save_backbone(tmp_path / "encoder"), "--emb_size", 16, "--block_size", 4]
    model += ["--window_size", 64, "--markers", "entity_type"]
    (metrics,) = run_script(
        *(
            *flags,
            *model,
            "--output_dir",
            tmp_path / "run",
            "--do_train",
            "--do_eval",
            "--do_predict",
            "--max_steps",
            3,
        )
    )
    processor = CommProcessor.from_pretrained(tmp_path / "run")
    assert list(processor.id2label.values()) == ["NR", "P17", "P27", "P131"]  # which has the place of P569
    assert processor.candidates.candidate_pairs == (("Chemical", "Disease"), ("Disease", "Disease"))
    assert processor.candidates.inverse == {"P569": "P131"}
    assert processor.marker_types == ["Chemical", "Gene", "Disease"]
    scores = json.loads((tmp_path / "run" / "test_scores.json").read_text())["scores"]
    # Of five labels one is ignored; that of a gene can only be missed.
    assert scores["gold"] == 16
    # Two labels are of one pair, which has no direction where relations are symmetric.
    assert scores["field_scores"]["pair"]["gold"] == 12
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["encoding"]["test"]["unasked_facts"] == 4
    assert metrics["test_f1"] == scores["f1"]
    predicted = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {(one["h_idx"], one["t_idx"]) for one in predicted} <= {(0, 1), (1, 2), (2, 1)}
    capsys.readouterr()
    assert run_script(*flags, "--describe_data") == []
    shown = capsys.readouterr().out
    assert "ignored beside them" in shown and "on pairs not asked about" in shown
    words = ["evaluate", "--extensions", tmp_path / "entry.py", "--dataset_config", "side_effects"]
    words += ["--predictions", tmp_path / "run" / "results.json", "--truth", tmp_path / "test.json"]
    assert comm_docre.main([str(word) for word in [*words, "--output", tmp_path / "scores.json"]]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert (found["f1"], found["field_scores"]) == (scores["f1"], scores["field_scores"])
