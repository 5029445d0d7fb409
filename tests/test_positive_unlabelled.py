"""Losses for incomplete labels: what PU-CMM promises, SSR-PU against its authors' numbers, and what they are told."""

import functools
import json
import math

import numpy as np
import pytest
import torch
from helpers import LABELS, SHARED, random_document, requires_shared, tiny_config, tiny_model, tiny_system

from modeling_comm import SettingError
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.incomplete_labels.label_rates import (
    facts_per_label,
    facts_per_label_by_probabilities,
    label_rates,
)
from modeling_comm.losses import get_loss, loss_from_config
from modeling_comm.training.script_arguments import parse_arguments

CMM, PU_CMM, SSR_PU = (get_loss(name).function for name in ("cmm", "pu_cmm", "ssr_pu"))
DISTANCES = torch.linspace(-40, 40, 8001, dtype=torch.float64)


def batch(pairs=40, relations=6, share=0.2, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(pairs, 1 + relations, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.rand(pairs, 1 + relations, generator=generator) < share


def values_and_gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    values = loss(logits, labels, "none")
    return values.detach(), torch.autograd.grad(values.sum(), logits)[0]


def term(loss, labelled, **settings):
    """The loss of one relation at `DISTANCES`."""
    logits = torch.stack([torch.zeros_like(DISTANCES), DISTANCES], 1)
    return loss(logits, torch.full_like(logits, float(labelled)), "none", **settings)


# PU-CMM


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("margin", "gamma"), [(0.0, 0.0), (0.0, 1.6), (0.2, 1.0), (0.4, 2.0)])
def test_with_nothing_missing_it_is_cmm_to_the_bit(dtype, margin, gamma):
    logits, labels = batch(dtype=dtype)
    expected = values_and_gradient(functools.partial(CMM, margin=margin, gamma=gamma), logits, labels)
    ones = {"facts_per_label_by_relation": {2: 1.0}, "weight_by_relation": {3: 1.0}}
    for settings in ({}, {"facts_per_label": 1.0, **ones}):
        loss = functools.partial(PU_CMM, margin=margin, gamma=gamma, **settings)
        for found, one in zip(values_and_gradient(loss, logits, labels), expected, strict=True):
            assert torch.equal(found, one)


def test_a_relation_with_all_its_labels_keeps_cmm_beside_others():
    logits, labels = batch()
    settings = {"facts_per_label": 3.0, "facts_per_label_by_relation": {1: 1.0}}
    _, gradient = values_and_gradient(functools.partial(PU_CMM, **settings), logits, labels)
    _, expected = values_and_gradient(CMM, logits, labels)
    same = (gradient == expected).all(0)
    assert same[1] and not same[2:].any()


@pytest.mark.parametrize(
    ("margin", "gamma", "facts"), [(0.2, 1.0, 3.0), (0.2, 0.0, 10.0), (0.4, 2.0, 1.5), (0.01, 1.0, 20.0)]
)
def test_the_term_of_a_labelled_fact_is_bounded_and_falls(margin, gamma, facts):
    labelled = term(PU_CMM, True, margin=margin, gamma=gamma, facts_per_label=facts)
    assert (labelled >= (facts - 1) * math.log(margin) - 1e-12).all()
    assert labelled[-1] == pytest.approx((facts - 1) * math.log(margin), abs=1e-9), "the bound is reached"
    assert (labelled.diff() <= 1e-12).all() and labelled[0] > labelled[-1]


def test_it_is_the_formula():
    logits, labels = batch(dtype=torch.float64)
    facts, weights = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [1.0, 0.5, 2.0, 1.0, 0.0, 1.0]
    found = PU_CMM(
        logits, labels, "none", margin=0.3, gamma=1.4, facts_per_label=9.0, weight=1.0,
        facts_per_label_by_relation=dict(enumerate(facts[:5], 1)), weight_by_relation=dict(enumerate(weights[:5], 1)),
    )  # fmt: skip
    for row, of_pair, pair_labels in zip(found.tolist(), logits.tolist(), labels.tolist(), strict=True):
        expected = 0.0
        for e, w, t, y in zip(facts, weights, of_pair[1:], pair_labels[1:], strict=True):
            p = 1 / (1 + math.exp(of_pair[0] - t))
            plus, minus = (1 - math.log(p)) ** 1.4 * -math.log(p), -math.log(min(1 - p + 0.3, 1))
            expected += e * w * plus - (e - 1) * minus if y else minus
        assert row == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("gamma", "of_cmm"), [(1.0, 0.2305), (0.0, 0.417)])
def test_the_probability_of_a_label_that_it_asks_for_is_cmms_divided_by_e(gamma, of_cmm):
    """What a model that knows the probability p of a label predicts."""
    plus, minus = (term(PU_CMM, labelled, gamma=gamma, facts_per_label=3.0) for labelled in (True, False))
    for p, predicted in ((of_cmm / 3 - 0.001, False), (of_cmm / 3 + 0.001, True)):
        best = DISTANCES[(p * plus + (1 - p) * minus).argmin()]
        assert (best > 0) == predicted


def test_missing_labels_are_made_up_for():
    """The mean over which facts are labelled, each with chance 1/4, is CMM on all facts."""
    logits, facts = batch(pairs=6, relations=2, share=0.6, dtype=torch.float64, seed=1)
    columns = facts.clone()
    columns[:, 0] = False
    places = columns.nonzero()
    expected = CMM(logits, facts, "sum")
    mean = 0.0
    for kept in range(2 ** len(places)):
        chosen = [bool(kept >> number & 1) for number in range(len(places))]
        labels = torch.zeros_like(facts)
        for (row, column), labelled in zip(places.tolist(), chosen, strict=True):
            labels[row, column] = labelled
        chance = math.prod(0.25 if labelled else 0.75 for labelled in chosen)
        mean += chance * PU_CMM(logits, labels, "sum", facts_per_label=4.0).item()
    assert mean == pytest.approx(expected.item(), rel=1e-9) and len(places) >= 4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"loss": "pu_cmm", "pu_cmm_margin": 0.0, "pu_cmm_facts_per_label": 2.0}, "pu_cmm_margin"),
        ({"loss": "pu_cmm", "pu_cmm_margin": 0.0, "pu_cmm_facts_per_label_by_relation": {"P17": 2.0}}, "pu_cmm_margin"),
        ({"loss": "pu_cmm", "pu_cmm_facts_per_label": 0.5}, "pu_cmm_facts_per_label"),
        ({"loss": "ssr_pu", "ssr_pu_label_rates": None}, "ssr_pu_label_rates"),
        ({"loss": "ssr_pu", "ssr_pu_label_rates": {"P17": 0.4}}, "ssr_pu_label_rates"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_before_training(fields, field):
    with pytest.raises(SettingError) as error:
        tiny_config(**fields)
    assert (error.value.owner, error.value.field) == ("CommConfig", field)


# SSR-PU

GOLDEN = [
    *((name, "spu_e3") for name in ("a_docred", "b_rich", "c_positive_heavy", "d_all_negative", "e_large_logits")),
    *((name, key) for name in ("a_docred", "b_rich") for key in ("spu_e1", "spu_e3_m1")),
]  # fmt: skip


@functools.cache
def golden():
    with np.load(SHARED / "golden" / "more" / "ssr_pu" / "ssr_pu.npz") as file:
        return dict(file)


def golden_case(name, dtype):
    arrays = golden()
    rates = dict(enumerate(arrays[f"{name}.priors"].tolist(), 1))
    return torch.tensor(arrays[f"{name}.logits"]).to(dtype), torch.tensor(arrays[f"{name}.labels"]), rates


@requires_shared
@pytest.mark.parametrize(("name", "key"), GOLDEN)
def test_ssr_pu_agrees_with_its_authors_code(name, key):
    settings = {"spu_e3": {}, "spu_e1": {"facts_per_label": 1.0}, "spu_e3_m1": {"margin": 1.0}}[key]
    for dtype, tolerance, of_gradient in ((torch.float64, 1e-9, 1e-9), (torch.float32, 1e-6, 1e-5)):
        logits, labels, rates = golden_case(name, dtype)
        found = SSR_PU(logits.requires_grad_(), labels, label_rates=rates, **settings)
        (gradient,) = torch.autograd.grad(found, logits)
        assert found.dtype == dtype
        assert found.item() == pytest.approx(golden()[f"{name}.{key}.loss_f64"].item(), rel=tolerance, abs=tolerance)
        expected = golden().get(f"{name}.{key}.grad_f64")
        if expected is None:
            expected, of_gradient = golden().get(f"{name}.{key}.grad_f32"), 1e-5
        if expected is not None:
            assert np.abs(gradient.double().numpy() - expected).max() <= of_gradient * max(1, np.abs(expected).max())


@requires_shared
def test_the_risk_of_each_relation_and_its_clamp():
    logits, labels, rates = golden_case("c_positive_heavy", torch.float64)
    risks = golden()["c_positive_heavy.spu_e3.risk_per_relation"]
    for column, expected in enumerate(risks.tolist(), 1):
        chosen = [0, column]
        found = SSR_PU(logits[:, chosen], labels[:, chosen], label_rates={1: rates[column]}).item()
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert (golden()["c_positive_heavy.spu_e3.r_minus"] < 0).any()


@requires_shared
def test_where_the_authors_code_gives_nan():
    corner = {name: torch.tensor(golden()[f"corner.{name}"]) for name in ("logits", "labels")}
    logits = corner["logits"].double().requires_grad_()
    rates = dict.fromkeys(range(1, 97), 0.01)
    for unlabelled in (0.0, None):
        one = {column: rate for column, rate in {**rates, 8: unlabelled}.items() if rate is not None}
        found = SSR_PU(logits, corner["labels"], label_rates=one)
        assert torch.isfinite(found) and torch.isfinite(torch.autograd.grad(found, logits)[0]).all()
    exactly_one = SSR_PU(logits, corner["labels"], label_rates={**rates, 8: 0.25}, facts_per_label=4.0)
    assert torch.isfinite(exactly_one) and torch.isfinite(torch.autograd.grad(exactly_one, logits)[0]).all()
    with pytest.raises(SettingError) as error:
        SSR_PU(logits, corner["labels"], label_rates={**rates, 8: 0.4})
    assert (error.value.field, error.value.value) == ("label_rates", 0.4)


def test_ssr_pu_is_a_loss_of_batches():
    """Two batches have the mean of their losses by pairs, which is not that of all pairs together."""
    logits, labels = batch(dtype=torch.float64)
    loss = functools.partial(SSR_PU, label_rates=dict.fromkeys(range(1, 7), 0.05))
    parts = [(logits[:10], labels[:10]), (logits[10:], labels[10:])]
    added = sum(loss(*part, "sum") for part in parts) / len(logits)
    assert added == pytest.approx(sum(len(part[0]) * loss(*part) for part in parts).item() / len(logits))
    assert added != pytest.approx(loss(logits, labels).item(), rel=1e-3)
    assert loss(logits, labels, "none").sum() == pytest.approx(len(logits) * loss(logits, labels).item())


def test_settings_by_relation_reach_the_losses():
    config = tiny_config(loss="ssr_pu", ssr_pu_label_rates={"P17": 0.1, "P569": 0.02}, ssr_pu_facts_per_label=2.0)
    logits, labels = batch(relations=4)
    expected = SSR_PU(logits, labels, label_rates={1: 0.1, 4: 0.02}, facts_per_label=2.0)
    assert torch.equal(loss_from_config(config)(logits, labels), expected)


# What the losses are told


def test_label_rates_are_counted_over_all_pairs():
    documents = [random_document(4, seed=1), random_document(0, seed=2), random_document(3, seed=3)]
    facts = [{(fact["h"], fact["t"], fact["r"]) for fact in one["labels"]} for one in documents]
    found = label_rates([{**one, "labels": one["labels"] * 2} for one in documents])  # repeated labels count once
    for relation in LABELS.values():
        assert found.get(relation, 0) == pytest.approx(sum(fact[2] == relation for one in facts for fact in one) / 18)


def document(**facts):
    labels = [{"h": 0, "t": number + 1, "r": relation} for relation, count in facts.items() for number in range(count)]
    return {"title": "a", "sents": [["a"]], "vertexSet": [[{"name": "a"}]] * 60, "labels": labels}


def test_facts_per_label_counts_facts_that_say_the_same_once():
    candidates = CandidatePairs(symmetric=["P2"], inverse={"P3": "P1"})
    incomplete, complete = [document(P1=8, P2=2)] * 20, [document(P1=9, P2=21)] * 10
    expected = facts_per_label(incomplete, complete, ["P1", "P2"])
    others = []
    for one in complete:
        kinds = {"P1": {"r": "P3"}, "P2": {}}
        turned = [{**fact, "h": fact["t"], "t": fact["h"], **kinds[fact["r"]]} for fact in one["labels"]]
        others.append({**one, "labels": [*one["labels"], *turned]})
    assert facts_per_label(incomplete, others, ["P1", "P2", "P3"], candidates=candidates) == expected
    assert facts_per_label(incomplete, others, ["P1", "P2"]) != expected


def test_facts_per_label_by_hand():
    """Twice as many incomplete documents as complete ones; 30 facts a complete document and 10 an incomplete one: e is 3."""
    incomplete, complete = [document(P1=8, P2=2)] * 20, [document(P1=9, P2=21)] * 10
    found = facts_per_label(incomplete, complete, ["P1", "P2", "P3"])
    assert found == {
        "P1": 3 * (90 + 5) / (240 + 5),
        "P2": pytest.approx(min(10, 3 * (210 + 5) / (60 + 5))),
        "P3": 3.0,  # nothing is known of it but the others
    }
    assert facts_per_label(complete, incomplete, ["P1"]) == {"P1": 1.0}
    assert facts_per_label(incomplete, complete, ["P2"], smoothing=0.0, most=50)["P2"] == pytest.approx(10.5)
    with pytest.raises(ValueError, match="complete"):
        facts_per_label(incomplete, [document()], ["P1"])


def test_facts_per_label_by_probabilities():
    """Facts beyond doubt, one of four labelled: P(labelled) is 1/4 where there is a fact."""
    draw = np.random.default_rng(0)
    true = [draw.random((50, 3)) < [0.3, 0.3, 0.0] for _ in range(20)]
    labels = [one & (draw.random(one.shape) < 0.25) for one in true]
    probabilities = [np.where(one, 0.25, 0.0) for one in true]
    found = facts_per_label_by_probabilities(probabilities, labels, ["a", "b", "c"])
    assert found == {relation: pytest.approx(4.0) for relation in "abc"}
    doubted = facts_per_label_by_probabilities([one / 2 for one in probabilities], labels, ["a", "b", "c"])
    assert doubted["a"] == pytest.approx(8.0), "doubt counts as missing labels"
    for wrong in ([one[:, :2] for one in labels], [one & False for one in labels]):
        with pytest.raises(ValueError, match="label"):
            facts_per_label_by_probabilities(probabilities, wrong, ["a", "b", "c"])


@requires_shared
def test_labels_go_missing_by_relation():
    """DocRED's training labels against Re-DocRED's dev documents: from nothing missing to one of eight labelled."""
    folder = SHARED / "data"
    names = ("docred-mini/train_annotated.json", "redocred-mini/dev_revised.json")
    incomplete, complete = (json.loads((folder / name).read_text(encoding="utf-8")) for name in names)
    found = facts_per_label(incomplete, complete, ["P54", "P569", "P131", "P527"])
    assert [round(found[relation], 1) for relation in ("P54", "P569", "P131", "P527")] == [1.0, 1.3, 7.9, 7.1]
    assert label_rates(incomplete)["P17"] == pytest.approx(0.00635, abs=1e-5)


def test_a_mapping_may_stand_in_a_file(tmp_path, capsys):
    file = tmp_path / "rates.json"
    file.write_text('{"P17": 3}')
    flags = ["--output_dir", "unused", "--pu_cmm_facts_per_label_by_relation"]
    for value in (str(file), '{"P17": 3}'):
        assert parse_arguments([*flags, value]).model.pu_cmm_facts_per_label_by_relation == {"P17": 3}
    file.write_text("[1]")
    for wrong in (str(file), "[1]", str(tmp_path / "none.json"), '{"P17": 0.5}'):
        with pytest.raises(SystemExit):
            parse_arguments([*flags, wrong])
        assert ">= 1" in capsys.readouterr().err


def test_a_loss_that_is_no_sum_over_pairs_is_not_computed_in_parts():
    rates = dict.fromkeys(["P17", "P27", "P131", "P569"], 0.1)
    config, processor = tiny_system(loss="ssr_pu", ssr_pu_label_rates=rates)
    batch = processor([random_document(4, 20, seed=1)])
    model = tiny_model(config).train()
    with pytest.raises(SettingError) as error:
        model(**batch, pairs_at_once=2)
    assert error.value.field == "pairs_at_once"
