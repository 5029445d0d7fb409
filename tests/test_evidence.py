"""Evidence: what DREEAM's code computes (`golden/more/dreeam` of the shared folder), the loss by straight loops for every
relation encoder, and the evidence that is predicted, tuned, written and scored."""

import json
import math
import random

import numpy as np
import pytest
import torch
from golden import GOLDEN, features_from_ids, read_tensors, tokenizer_of_the_golden_ids
from helpers import (
    NeverWaits,
    entity_attention,
    random_document,
    requires_shared,
    small_encoder,
    tiny_config,
    tiny_model,
    tiny_processor,
)
from transformers import BertConfig

from modeling_comm import (
    CommConfig,
    CommForDocumentRelationExtraction,
    CommProcessor,
    EncodedDocuments,
    available_relation_encoders,
)
from modeling_comm.commands.convert import original_name
from modeling_comm.evidence import evidence_loss

DREEAM = GOLDEN / "more" / "dreeam"

# ------------------------------------------------------------------------------------------------------ DREEAM's numbers


def dreeam_system(case, dtype=torch.float32, **fields):
    """Model and processor of a golden case: the mean of three layers, or the last one of `golden/tiny`."""
    last = case.startswith("tiny_last1")
    folder = GOLDEN / "tiny" if last else DREEAM
    text_config = BertConfig(
        **json.loads((folder / f"backbone{'' if last else '4'}_config.json").read_text(encoding="utf-8"))
    )
    head, _ = read_tensors(folder / f"head{'_atlop' if last else ''}.safetensors")
    backbone, _ = read_tensors(folder / f"backbone{'' if last else '4'}.safetensors")
    relations = head["bilinear.bias"].shape[0]
    emb_size = head["head_extractor.weight"].shape[0]
    config = CommConfig(
        text_config=text_config,
        id2label={0: "Na"} | {index: f"P{index}" for index in range(1, relations)},
        **{"loss": "atl", "averaged_layers": 1 if last else 3, "emb_size": emb_size},
        block_size=head["bilinear.weight"].shape[1] // emb_size,
        **{"evidence_weight": 0.1, "evidence_average": "related", **fields},
    )
    model = CommForDocumentRelationExtraction(config)
    tensors = head | {f"model.{name.removeprefix('backbone.')}": tensor for name, tensor in backbone.items()}
    ours = {name: tensors[original_name("atlop", name)] for name in model.state_dict()}
    model.load_state_dict(ours)
    tokenizer = tokenizer_of_the_golden_ids(text_config.vocab_size)
    return model.to(dtype).eval(), CommProcessor.from_config(tokenizer, config, window_stride=0)


def dreeam_case(case, **fields):
    """Arrays and JSON of a golden case, its model, and its batch."""
    with np.load(DREEAM / f"{case}.npz") as file:
        arrays = dict(file)
    info = json.loads((DREEAM / f"{case}.json").read_text(encoding="utf-8"))
    model, processor = dreeam_system(case, **fields)
    features = features_from_ids(arrays, info)
    row = 0
    for feature, spans, pairs in zip(features, info["sent_pos"], info["hts"], strict=True):
        feature["sentence_starts"] = [start + 1 for start, _ in spans]
        named = {}
        for pair in pairs:
            named[tuple(pair)], row = arrays["sent_labels"][row].tolist(), row + 1
        feature["evidence"] = []
        for head, tail, _ in feature["facts"]:  # the golden counts, shared out over the pair's facts
            counts = named[head, tail]
            feature["evidence"].append([index for index, count in enumerate(counts) if count])
            named[head, tail] = [max(count - 1, 0) for count in counts]
    return arrays, info, model, processor.collate(features)


CASES = ["batch_526_62", "single_457", "long_122", "tiny_last1_526_62"]


@pytest.fixture
def dreeams_epsilon(monkeypatch):
    """DREEAM adds 1e-30 where ATLOP adds 1e-5 to what a pair's attention is divided by."""
    contexts = EncodedDocuments.pair_contexts
    monkeypatch.setattr(EncodedDocuments, "pair_contexts", lambda self, pairs: contexts(self, pairs, epsilon=1e-30))


@requires_shared
@pytest.mark.parametrize("case", CASES)
def test_scores_and_losses_are_dreeams(case, dreeams_epsilon):
    arrays, info, model, batch = dreeam_case(case)
    pairs = torch.tensor([[document, *pair] for document, pairs in enumerate(info["hts"]) for pair in pairs])
    with torch.no_grad():
        output = model(**batch, output_documents=True)
        scores = output.documents.sentence_scores(pairs)
        # These small random networks amplify rounding; in float64 there is next to none.
        model.set_attn_implementation("eager")
        exact = model.double()(**batch)
    assert torch.allclose(scores, torch.from_numpy(arrays["sentence_scores"]), atol=2e-5)
    for name, found in {"evi_loss": "evidence_loss", "total_loss_lambda0.1": "loss"}.items():
        assert output[found].item() == pytest.approx(float(arrays[name]), rel=1e-5)
        assert exact[found].item() == pytest.approx(float(arrays[f"{name}_f64"]), rel=1e-6)
    # The mean over pairs with evidence alone.
    scores = torch.from_numpy(arrays["sentence_scores_f64"][arrays["positive_pairs"]])
    counts = torch.from_numpy(arrays["sent_labels"][arrays["positive_pairs"]])
    found = {average: evidence_loss(scores, counts, average=average).item() for average in ("annotated", "related")}
    assert found["related"] == pytest.approx(float(arrays["evi_loss_f64"]), rel=1e-9)
    assert found["annotated"] == pytest.approx(info["mean_over_positives_with_evidence_only"], rel=1e-6)


@requires_shared
def test_gradients_are_dreeams(dreeams_epsilon):
    _, _, model, batch = dreeam_case("batch_526_62")
    expected, _ = read_tensors(DREEAM / "batch_526_62_grad.safetensors")
    output, compared = model(**batch), 0
    for part, loss in (("evi", output.evidence_loss), ("total", output.loss)):
        model.zero_grad()
        loss.backward(retain_graph=True)
        for name, parameter in model.named_parameters():
            original = original_name("atlop", name)
            golden = expected.get(f"{part}.{original.replace('model.', 'backbone.', 1)}")
            if golden is not None:
                compared += 1
                found = torch.zeros_like(golden) if parameter.grad is None else parameter.grad
                # A key's bias changes no attention: its gradient is rounding alone.
                assert (found - golden).abs().max() <= 1e-4 * golden.abs().max().clamp(min=0.02), (part, name)
        if part == "evi":  # it teaches the attention, not the relation encoder
            assert not any(parameter.grad is not None for parameter in model.relation_encoder.parameters())
    assert compared == len(expected)


@requires_shared
def test_without_a_pair_that_has_a_relation():
    """DREEAM's loss is nan there, and so is what it is added to."""
    golden = json.loads((DREEAM / "no_positive.json").read_text(encoding="utf-8"))
    assert math.isnan(float(golden["evi_loss_without_any_positive_pair"]))
    _, _, model, batch = dreeam_case("batch_526_62")
    batch["labels"][:] = 0
    batch |= {"evidence_pairs": batch["evidence_pairs"][:0], "evidence": batch["evidence"][:0]}
    output = model(**batch)
    assert output.evidence_loss == 0 and torch.isfinite(output.loss) and output.loss > 0
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ------------------------------------------------------------------------------------------------------------- the loss


def annotated(entities, words, seed=0, share=0.6):
    """A random document, most of whose facts have one to three sentences of evidence; the others have none, or no such field."""
    document, draw = random_document(entities, words, mentions=6, seed=seed), random.Random(seed)
    for fact in document["labels"]:
        if draw.random() < share:
            count = min(draw.randint(1, 3), len(document["sents"]))
            fact["evidence"] = draw.sample(range(len(document["sents"])), count)
        elif draw.random() < 0.5:
            del fact["evidence"]
    return document


@pytest.fixture(scope="module")
def documents():
    # One window; many windows and 30 sentences; no entity; two windows.
    sizes = [(5, 20), (7, 300), (0, 8), (4, 35)]
    documents = [annotated(entities, words, seed) for seed, (entities, words) in enumerate(sizes)]
    head, tail, *_ = documents[1]["vertexSet"]
    for place, mentions in enumerate(
        (head, tail)
    ):  # a fact whose evidence is beyond the 25 sentences that DREEAM reads
        name = documents[1]["sents"][27][place]
        mentions.append({"name": name, "sent_id": 27, "pos": [place, place + 1], "type": mentions[0]["type"]})
    documents[1]["labels"].append({"h": 0, "t": 1, "r": "P569", "evidence": [27, 3]})
    return documents


def evidence_system(encoder="atlop", **fields):
    settings = {"evidence_weight": 0.1, "averaged_layers": 2, **small_encoder(encoder), **fields}
    config = tiny_config(**settings)
    return tiny_model(config), tiny_processor(config)


def scores_by_loops(output, processor, documents):
    """`{(document, head, tail): [score of each sentence]}`, one token at a time, from the attention of whole documents."""
    attention, scores = entity_attention(output.documents).detach().double(), {}
    for index, (document, feature) in enumerate(zip(documents, processor.encode(documents), strict=True)):
        edges = [*feature["sentence_starts"], len(feature["input_ids"]) - 1]
        for head in range(feature["num_entities"]):
            for tail in range(feature["num_entities"]):
                product = (attention[index, head] * attention[index, tail]).mean(0)
                total = product.sum().item()
                scores[index, head, tail] = [
                    product[edges[number] : edges[number + 1]].sum().item() / total if total else 0.0
                    for number in range(len(document["sents"]))
                ]
    return scores


def loss_by_loops(scores, documents, average):
    total = pairs = 0
    for index, document in enumerate(documents):
        related = {(fact["h"], fact["t"]) for fact in document["labels"]}
        for head, tail in related:
            counts = [0] * len(document["sents"])
            for fact in document["labels"]:
                if (fact["h"], fact["t"]) == (head, tail):
                    for sentence in fact.get("evidence", ()):
                        counts[sentence] += 1
            pairs += average == "related" or any(counts)
            for count, score in zip(counts, scores[index, head, tail], strict=True):
                if count and score:
                    wanted = count / sum(counts)
                    total += wanted * (math.log(wanted) - math.log(score))
    return total / pairs


@pytest.mark.parametrize("average", ["annotated", "related"])
@pytest.mark.parametrize("encoder", available_relation_encoders())
def test_loss_equals_loops(encoder, average, documents):
    model, processor = evidence_system(encoder, evidence_average=average)
    batch = processor(documents)
    assert len(batch["windows"]) > 10 and batch["evidence"].shape[1] == 30
    with torch.no_grad():
        output = model(**batch, output_documents=True)
        plain = tiny_model(tiny_config(averaged_layers=2, **small_encoder(encoder)))
        assert torch.equal(plain(**batch).logits, output.logits)
        relations = plain(**batch).loss
    scores = scores_by_loops(output, processor, documents)
    expected = loss_by_loops(scores, documents, average)
    assert output.evidence_loss.item() == pytest.approx(expected, rel=1e-5)
    assert output.loss.item() == pytest.approx(relations.item() + 0.1 * expected, rel=1e-5)
    # Some evidence is in windows that the pair's attention does not reach, and some beyond DREEAM's 25 sentences.
    evidence = [
        (scores[index, fact["h"], fact["t"]][sentence], sentence)
        for index, document in enumerate(documents)
        for fact in document["labels"]
        for sentence in fact.get("evidence", ())
    ]
    assert any(score == 0 for score, _ in evidence) and any(score and sentence >= 25 for score, sentence in evidence)


def test_a_batch_is_the_sum_of_its_documents(documents):
    """Whatever the padding; with `num_evidence_pairs` parts of a batch add up, as accumulation and several processes need."""
    model, processor = evidence_system()
    count = sum(int((processor(one)["evidence"].sum(1) > 0).sum()) for one in documents)
    with torch.no_grad():
        together = model(**processor(documents)).evidence_loss
        parts = [model(**processor(one), num_evidence_pairs=torch.tensor(count)).evidence_loss for one in documents]
    assert count > 5 and sum(parts).item() == pytest.approx(together.item(), rel=1e-5)
    assert parts[2] == 0  # it has no entity


def test_sum_of_the_losses(documents):
    means, processor = evidence_system()
    sums, _ = evidence_system(loss_reduction="sum")
    batch = processor(documents)
    count = int((batch["evidence"].sum(1) > 0).sum())
    with torch.no_grad():
        mean, total = means(**batch), sums(**batch)
    assert total.evidence_loss.item() == pytest.approx(count * mean.evidence_loss.item(), rel=1e-5)


def test_the_loss_moves_attention_to_the_evidence(documents):
    model, processor = evidence_system(evidence_weight=100.0, averaged_layers=1)
    batch = processor(documents[:1] + documents[3:])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        output = model(**batch)
        optimizer.zero_grad()
        output.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        losses.append(output.evidence_loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_evidence_that_was_cut_off(documents):
    _, processor = evidence_system()
    (feature,) = processor.encode([documents[1]], max_length=40)
    batch = processor.collate([feature])
    left = batch["sentences"][0, :, 1] > batch["sentences"][0, :, 0]
    assert 0 < left.sum() < 30 and not batch["evidence"][:, ~left].any()


def test_evidence_of_several_relations_counts_each():
    document = random_document(3, 30, labels=False)
    document["labels"] = [
        {"h": 0, "t": 1, "r": "P17", "evidence": [0, 2, 2]},
        {"h": 0, "t": 1, "r": "P27", "evidence": [2]},
        {"h": 1, "t": 0, "r": "P17", "evidence": None},
        {"h": 2, "t": 0, "r": "P17"},
    ]
    batch = evidence_system()[1]([random_document(2, 8, labels=False) | {"labels": []}, document])
    assert batch["evidence_pairs"].tolist() == [[1, 0, 1], [1, 1, 0], [1, 2, 0]]
    assert batch["evidence"].tolist() == [[1, 0, 2], [0, 0, 0], [0, 0, 0]]


def test_what_the_loss_needs_is_named(documents):
    model, processor = evidence_system()
    batch = processor(documents)
    for name in ("evidence", "evidence_pairs", "sentences"):
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            model(**{key: value for key, value in batch.items() if key != name})
    # Without labels there is no loss.
    assert model(**{key: value for key, value in batch.items() if key not in ("labels", "evidence")}).loss is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype, documents):
    model, processor = evidence_system()
    with torch.no_grad():
        expected = model(**processor(documents)).evidence_loss
        found = model.to(dtype)(**processor(documents)).evidence_loss
    assert found.dtype == torch.float32 and torch.allclose(found, expected, rtol=0.1)


def test_loss_never_waits_for_the_device(documents):
    model, processor = evidence_system()
    scores, batch = torch.rand(9, 30), processor(documents)
    with NeverWaits():
        documents = model(**{k: v for k, v in batch.items() if k != "labels"}, output_documents=True).documents
        evidence_loss(documents.sentence_scores(batch["evidence_pairs"]), batch["evidence"])
        evidence_loss(scores, torch.ones(9, 30), "mean", "related", torch.tensor(4))
