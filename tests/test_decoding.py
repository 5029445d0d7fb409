"""The decision rule, and what is known of a document once it has decided."""

import dataclasses
from typing import Annotated

import numpy as np
import pytest
import torch
from helpers import LABELS, random_document

from modeling_comm.decoding import DecisionSettings, Predictions, Triple, decide_batch, flat_margins
from modeling_comm.settings import AtLeast, InRange, declared_by_dataclass

LOGITS = torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, -1.0, 0.5, -2.0]])
PAIRS = torch.tensor([[0, 1], [1, 0]])


def test_decision_is_strict_and_the_cap_is_counted():
    found = Predictions.from_logits(LOGITS, PAIRS, DecisionSettings("th"))
    assert found.triples == [Triple(0, 1, 2, 1.0), Triple(0, 1, 3, 2.0), Triple(0, 1, 4, 3.0), Triple(1, 0, 3, 0.5)]
    assert found.removed_by_cap == 0
    capped = Predictions.from_logits(LOGITS, PAIRS, DecisionSettings("th", max_relations_per_pair=2))
    assert [triple[:3] for triple in capped.triples] == [(0, 1, 3), (0, 1, 4), (1, 0, 3)]
    assert capped.removed_by_cap == 1
    found = Predictions.from_logits(LOGITS, PAIRS, DecisionSettings("zero"))
    assert [triple[:3] for triple in found.triples] == [(0, 1, 1), (0, 1, 2), (0, 1, 3), (0, 1, 4), (1, 0, 3)]
    half = Predictions.from_logits(LOGITS.bfloat16(), PAIRS, DecisionSettings("th"))
    assert [triple.label for triple in half.triples] == [2, 3, 4, 3]


def test_another_offset_decides_again():
    margins = torch.tensor([[0.5, -0.2, -1.0], [0.1, 0.3, -0.1]])
    logits = torch.nn.functional.pad(margins, (1, 0))
    predictions = Predictions.from_logits(logits, PAIRS, DecisionSettings("th"))
    found = {offset: predictions.at_offset(offset).triples for offset in (0.0, -0.15, 0.3)}
    assert found[0.0] == predictions.triples
    assert [one[:3] for one in found[0.0]] == [(0, 1, 1), (1, 0, 1), (1, 0, 2)]
    assert [one[:3] for one in found[-0.15]] == [(0, 1, 1), (1, 0, 1), (1, 0, 2), (1, 0, 3)]
    assert [one[:3] for one in found[0.3]] == [(0, 1, 1)], "strictly above"
    capped = Predictions.from_logits(logits, PAIRS, DecisionSettings("th", 5.0, 1))
    assert (capped.triples, capped.removed_by_cap) == ([], 0)
    again = capped.at_offset(0.0)
    assert [one[:3] for one in again.triples] == [(0, 1, 1), (1, 0, 2)] and again.removed_by_cap == 1
    assert again.settings.threshold_offset == 0.0 and capped.settings.threshold_offset == 5.0


@pytest.mark.parametrize("threshold", ["th", "zero"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_pairs_are_decided_alike_whatever_other_pairs_there_are(threshold, size):
    generator = torch.Generator().manual_seed(0)
    logits, pairs = torch.randn(30, 5, generator=generator), torch.randint(0, 9, (30, 2), generator=generator)
    settings = DecisionSettings(threshold, 0.1, 2)
    whole = Predictions.from_logits(logits, pairs, settings)
    given = zip(logits.split(size), pairs.split(size), strict=True)
    parts = [Predictions.from_logits(*part, settings) for part in given]
    assert [triple for part in parts for triple in part.triples] == whole.triples and len(whole.triples) > 5
    assert sum(part.removed_by_cap for part in parts) == whole.removed_by_cap > 0
    assert whole.margins.shape == (30, 4)
    with pytest.raises(ValueError, match="margins"):
        dataclasses.replace(whole, margins=None).at_offset(0.0)


def test_predictions_are_a_mapping_of_what_is_known():
    whole = Predictions.from_logits(LOGITS, PAIRS, DecisionSettings("th"))
    removed = {"removed_by_cap", "removed_by_types"}
    assert set(whole) == {"triples", "settings", "pairs", "margins"} | removed and len(whole) == 6
    assert whole["triples"] is whole.triples and dict(whole.items())["margins"] is whole.margins
    bare = dataclasses.replace(whole, margins=None)
    assert "margins" not in bare and bare.get("margins") is None and "at_offset" not in whole
    assert Predictions([], DecisionSettings("th"))  # whether or not anything is predicted


def test_settings_that_change_later_leave_earlier_predictions_alone():
    settings = DecisionSettings("th", 5.0)
    predictions = Predictions.from_logits(LOGITS, PAIRS, settings)
    settings.threshold_offset = 0.0
    assert predictions.settings == DecisionSettings("th", 5.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("decision_threshold", value) for value in ("Zero", None, ["th"])),
        *(("threshold_offset", value) for value in (float("nan"), float("inf"), "1", True, None)),
        *(("max_relations_per_pair", value) for value in (0, -1, 1.0, True, "4")),
    ],
)
def test_wrong_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        DecisionSettings(**{field: value})
    settings = DecisionSettings()
    with pytest.raises(ValueError, match=field):
        setattr(settings, field, value)
    assert settings == DecisionSettings()


def test_each_field_declares_its_type_its_range_and_its_help():
    declared = declared_by_dataclass(DecisionSettings)
    fields = [field.name for field in dataclasses.fields(DecisionSettings)]
    check_themselves = ("probability_map", "relation_types")
    assert list(declared) == [name for name in fields if name not in check_themselves]
    assert declared["max_relations_per_pair"].ranges == (AtLeast(1),)
    assert all(setting.help for setting in declared.values())


def test_a_dataclass_may_declare_any_setting():
    @dataclasses.dataclass
    class Chosen:
        threshold_offset: float = 0.0  # the name of a field of the processor
        share: Annotated[float, InRange(0, 1)] = 0.5

    declared = declared_by_dataclass(Chosen)
    assert [declared["share"].fits(value) for value in (0, 0.9, 1.0, "0.5")] == [True, True, False, False]


def test_misspelt_setting_is_refused():
    with pytest.raises(AttributeError):
        DecisionSettings().offset = 1.0


def test_batch_is_split_by_document_whatever_the_order_of_its_pairs():
    pair_index = torch.tensor([[2, 1, 0], [0, 0, 1], [2, 0, 1], [0, 1, 0]])
    logits = torch.arange(12.0).reshape(4, 3) * torch.tensor([[1.0, -1.0, 2.0]])
    labels = torch.eye(3)[[1, 0, 2, 0]]
    losses = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    first, empty, last = decide_batch(logits, pair_index, 3, DecisionSettings(), labels, losses)
    assert first.pairs.tolist() == [[0, 1], [1, 0]] and last.pairs.tolist() == [[1, 0], [0, 1]]
    assert np.array_equal(last.margins, (logits[:, 1:] - logits[:, :1])[[0, 2]].numpy())
    assert last.labels.tolist() == [[True, False], [False, True]]
    assert (first.loss, empty.loss, last.loss) == (1010.0, 0.0, 101.0)
    assert empty.triples == [] and empty.margins.shape == (0, 2)
    margins, flat = flat_margins([first, empty, last])
    assert margins.shape == flat.shape == (8,) and flat.sum() == 2


def test_triples_are_written_in_the_official_format_and_in_words():
    document = random_document(2, title="T")
    predictions = Predictions.from_logits(LOGITS, PAIRS, DecisionSettings("th"))
    official = predictions.official("T", LABELS)
    assert official[-1] == {"title": "T", "h_idx": 1, "t_idx": 0, "r": "P131"} and len(official) == 4
    words = predictions.in_words(document, LABELS, {"P131": "located in"})
    assert [(one["head"], one["relation"]) for one in words] == [(0, "P569"), (0, "P131"), (0, "P27"), (1, "P131")]
    assert [one["relation_name"] for one in words] == ["P569", "located in", "P27", "located in"]
    assert words[-1]["score"] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert words[-1]["head_name"] == document["vertexSet"][1][0]["name"]
