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
    run_script,
    save_backbone,
    small_encoder,
    tiny_config,
    tiny_model,
    tiny_processor,
)
from transformers import BertConfig, pipeline
from transformers.utils import ModelOutput

import comm_docre
from modeling_comm import (
    CommConfig,
    CommForDocumentRelationExtraction,
    CommProcessor,
    CommTrainer,
    CommTrainingArguments,
    EncodedDocuments,
    SettingError,
    available_relation_encoders,
)
from modeling_comm.commands.convert import original_name
from modeling_comm.decoding import DecisionSettings, Predictions, Triple
from modeling_comm.evaluation.evidence_scores import best_evidence_threshold, evidence_metrics
from modeling_comm.evaluation.scoring import format_scores, score
from modeling_comm.evidence import evidence_loss
from modeling_comm.prediction_record import parse_record
from modeling_comm.reporting.html_page import render_html

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


def dreeam_features(case):
    """Arrays and JSON of a golden case, and its documents as the processor encodes them."""
    with np.load(DREEAM / f"{case}.npz") as file:
        arrays = dict(file)
    info = json.loads((DREEAM / f"{case}.json").read_text(encoding="utf-8"))
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
    return arrays, info, features


def dreeam_case(case, **fields):
    """Arrays and JSON of a golden case, its model, and its batch."""
    arrays, info, features = dreeam_features(case)
    model, processor = dreeam_system(case, **fields)
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
            # What the pair's attention does not reach is left out of the annotation.
            reached = [count * (share > 0) for count, share in zip(counts, scores[index, head, tail], strict=True)]
            for count, share in zip(reached, scores[index, head, tail], strict=True):
                if count:
                    wanted = count / sum(reached)
                    total += wanted * (math.log(wanted) - math.log(share))
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


def test_sentences_that_attention_does_not_reach_do_not_make_the_loss_negative():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    evidence = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 1.0]])
    losses = [evidence_loss(scores[row : row + 1], evidence[row : row + 1], "sum").item() for row in range(3)]
    assert losses == pytest.approx([-math.log(0.9), -math.log(0.8), 0.0])
    assert evidence_loss(scores, evidence).item() == pytest.approx(sum(losses) / 3)


def test_evidence_of_several_relations_counts_each():
    document = random_document(3, 30, labels=False)
    document["labels"] = [
        {"h": 0, "t": 1, "r": "P17", "evidence": [0, 2, 2]},
        {"h": 0, "t": 1, "r": "P27", "evidence": [2]},
        {"h": 0, "t": 1, "r": "P27", "evidence": [2, 1]},  # a repeated label is one fact
        {"h": 1, "t": 0, "r": "P17", "evidence": None},
        {"h": 2, "t": 0, "r": "P17"},
    ]
    batch = evidence_system()[1]([random_document(2, 8, labels=False) | {"labels": []}, document])
    assert batch["evidence_pairs"].tolist() == [[1, 0, 1], [1, 1, 0], [1, 2, 0]]
    assert batch["evidence"].tolist() == [[1, 1, 2], [0, 0, 0], [0, 0, 0]]


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


# ------------------------------------------------------------------------------------------- predicted, tuned and scored


def test_evidence_is_predicted_with_every_triple(documents):
    """In words, in the official format and in the pipeline's record: the sentences whose share exceeds the threshold."""
    model, processor = evidence_system()
    assert processor.decision.evidence_threshold == 0.2
    processor.decision.threshold_offset = -1.0
    with torch.no_grad():
        output = model(**processor(documents), output_documents=True)
    scores = scores_by_loops(output, processor, documents)
    in_words = processor.post_process_relation_extraction(output, documents)
    decided = processor.decide(output, documents)
    records = pipeline("document-relation-extraction", model=model, processor=processor)(documents, max_sentences=0)
    found = []
    for index, triples in enumerate(in_words):
        expected = {
            (one["head"], one["tail"], one["relation"]): [
                number
                for number, share in enumerate(scores[index, one["head"], one["tail"]])
                if share > processor.decision.evidence_threshold
            ]
            for one in triples
        }
        official = decided[index].official("t", processor.id2label)
        assert expected == {(one["head"], one["tail"], one["relation"]): one["evidence"] for one in triples}
        assert expected == {(one["h_idx"], one["t_idx"], one["r"]): one["evidence"] for one in official}
        record = records[index]["triples"]
        assert expected == {(one["head"], one["tail"], one["relation"]): one["evidence"] for one in record}
        assert parse_record(records[index]) and not any(one["explanation"] for one in record)
        found += expected.values()
    assert {len(sentences) for sentences in found} >= {0, 1, 2}
    # Without the backbone's attention there is none; and decided at another offset, known pairs keep theirs.
    plain = ModelOutput({name: value for name, value in output.items() if name != "documents"})
    without = processor.post_process_relation_extraction(plain, documents)
    assert without[0] and not any("evidence" in one for triples in without for one in triples)
    again = decided[0].at_offset(-1.1).triples
    assert set(decided[0].triples) <= set(again) and len(again) > len(decided[0].triples)


def test_other_models_predict_none(documents):
    """What they give is called an explanation, as before."""
    model, processor = evidence_system(evidence_weight=0.0)
    assert processor.decision.evidence_threshold is None
    processor.decision.threshold_offset = -1.0
    (record,) = pipeline("document-relation-extraction", model=model, processor=processor)(documents[:1])
    assert record["triples"] and not any("evidence" in one for one in record["triples"])
    assert all(one["explanation"] for one in record["triples"])


@pytest.mark.parametrize("threshold", [1.0, -0.1, "0.2", True])
def test_wrong_thresholds(threshold):
    _, processor = evidence_system()
    with pytest.raises(SettingError) as error:
        processor.decision.evidence_threshold = threshold
    assert error.value.field == "evidence_threshold"


def test_saved_with_the_processor(tmp_path):
    _, processor = evidence_system()
    processor.decision.evidence_threshold = 0.35
    processor.save_pretrained(tmp_path)
    assert CommProcessor.from_pretrained(tmp_path).decision.evidence_threshold == 0.35


def decided(gold, triples, scores, threshold=0.2):
    """A document of three entities and four sentences, and what was predicted for it."""
    document = random_document(3, 40, labels=False) | {"labels": gold}
    predictions = Predictions(
        [Triple(*triple, 1.0) for triple in triples], DecisionSettings(evidence_threshold=threshold)
    )
    predictions.sentence_scores = scores
    predictions.find_evidence()
    return document, predictions


@pytest.fixture
def judged():
    gold = [
        {"h": 0, "t": 1, "r": "P17", "evidence": [0, 2]},
        {"h": 0, "t": 1, "r": "P27", "evidence": [1]},
        {"h": 1, "t": 2, "r": "P17", "evidence": []},
        {"h": 2, "t": 0, "r": "P17", "evidence": [3]},
    ]
    # Right and annotated, right and not annotated, wrong; the fourth fact is not predicted.
    triples = [(0, 1, 1), (1, 2, 1), (2, 1, 1)]
    scores = {(0, 1): [0.5, 0.3, 0.1, 0.0], (1, 2): [0.9, 0.0, 0.0, 0.0], (2, 1): [0.0, 0.4, 0.4, 0.0]}
    scores[2, 0] = [0.0, 0.0, 0.1, 0.8]
    return decided(gold, triples, scores)


def test_scores_of_evidence(judged):
    document, predictions = judged
    assert [triple.evidence for triple in predictions.triples] == [(0, 1), (0,), (1, 2)]
    id2label = {1: "P17", 2: "P27"}
    metrics = evidence_metrics([predictions], [document], id2label)
    assert metrics == pytest.approx(
        {
            "evidence_precision": 1
            / 2,  # of the sentences 0 and 1 of the one fact that is predicted, right and annotated
            "evidence_recall": 1 / 2,
            "evidence_f1": 1 / 2,
            "evidence_f1_given_facts": 2 * 3 / (5 + 4),  # 0 and 1, twice, and 3 against 0 and 2, 1, and 3
        }
    )
    scores = score(predictions.official(document["title"], id2label), [document])
    rates = {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "gold": 2, "predictions": 2, "correct": 1}
    assert scores["evidence_of_correct"] == {**rates, "facts": 1}
    assert {name: scores["evidence"][name] for name in ("gold", "predictions", "correct")} == {
        **{"gold": 4, "predictions": 5, "correct": 1}  # officially, every sentence of the other facts is wrong
    }
    assert "of correct" in format_scores(scores)
    nothing = evidence_metrics([predictions], [document | {"labels": []}], id2label)
    assert set(nothing.values()) == {0.0}


def test_best_threshold(judged):
    document, predictions = judged
    id2label = {1: "P17", 2: "P27"}
    threshold = best_evidence_threshold([predictions], [document], id2label)
    # Of the shares 0.5, 0.3, 0.1, 0.0 the first and third are evidence: all three are better than the first alone.
    assert 0.0 < threshold < 0.1
    _, again = decided(document["labels"], [(0, 1, 1)], predictions.sentence_scores, threshold)
    assert evidence_metrics([again], [document], id2label)["evidence_f1"] == 2 * 2 / (3 + 2)
    assert best_evidence_threshold([predictions], [document | {"labels": []}], id2label) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory, documents):
    """A run of the script with evidence, whose threshold is tuned."""
    folder = tmp_path_factory.mktemp("evidence")
    entities = range(len(documents[0]["vertexSet"]))
    pairs = [(head, tail) for head in entities for tail in entities if head != tail]
    # The same evidence everywhere, so that it is learnt within a few steps.
    document = documents[0] | {"labels": [{"h": h, "t": t, "r": "P17", "evidence": [0]} for h, t in pairs]}
    (folder / "documents.json").write_text(json.dumps([document]), encoding="utf-8")
    flags = []
    for split in ("train", "validation", "test"):
        flags += [f"--{split}_file", folder / "documents.json"]
    (metrics,) = run_script(
        *flags,
        *("--model_name_or_path", save_backbone(folder / "encoder"), "--cache_dir", folder / "cache", "--use_cpu"),
        *("--emb_size", 16, "--block_size", 4, "--learning_rate", "5e-3", "--head_learning_rate", "5e-3"),
        *("--num_train_epochs", 30, "--warmup_steps", 0, "--logging_steps", 1, "--eval_strategy", "no"),
        *("--load_best_model_at_end", "false", "--save_strategy", "no", "--disable_tqdm", "true"),
        *("--evidence_weight", 1.0, "--averaged_layers", 2, "--tune_evidence_threshold", "--show_triples", 2),
        *("--do_train", "--do_eval", "--do_predict", "--output_dir", folder / "run"),
    )
    return folder / "run", metrics, document


def test_a_run_trains_tunes_and_writes_evidence(trained):
    folder, metrics, _ = trained
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    losses = [entry["evidence_loss"] for entry in record["log"] if "evidence_loss" in entry]
    assert len(losses) == 30 and losses[-1] < 0.5 * losses[0]
    saved = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    assert saved["evidence_threshold"] == metrics["evidence_threshold"] == record["processor"]["evidence_threshold"]
    assert metrics["test_f1"] > 0.9 and metrics["test_evidence_f1"] == metrics["eval_evidence_f1"] > 0.9
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    scores = json.loads((folder / "test_scores.json").read_text(encoding="utf-8"))["scores"]
    assert {tuple(one["evidence"]) for one in results} >= {(0,)}
    assert scores["evidence_of_correct"]["f1"] == metrics["test_evidence_f1"]
    assert "evidence" in (folder / "README.md").read_text(encoding="utf-8")


def test_commands_read_and_show_it(trained, tmp_path, capsys):
    folder, metrics, document = trained
    source, records = tmp_path / "test.json", tmp_path / "triples.jsonl"
    source.write_text(json.dumps([document]), encoding="utf-8")
    words = ["predict", "--model", str(folder), "--input", str(source), "--format", "docred", "--output", str(records)]
    assert comm_docre.main(words) == 0
    written = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    assert [0] in [triple["evidence"] for triple in written[0]["triples"]]
    capsys.readouterr()
    report = tmp_path / "report.json"
    words = ["evaluate", "--predictions", str(records), "--truth", str(source), "--output", str(report)]
    assert comm_docre.main(words) == 0
    scores = json.loads(report.read_text(encoding="utf-8"))
    assert scores["evidence_of_correct"]["f1"] == pytest.approx(metrics["test_evidence_f1"])
    assert '"evidence":[0]' in render_html(written)


def test_training_further_without_it_ends_it(trained, tmp_path):
    """A threshold that was tuned for other weights does not stay, unless it is wanted."""
    folder, metrics, _ = trained
    model = CommForDocumentRelationExtraction.from_pretrained(folder)
    processor = CommProcessor.from_pretrained(folder)
    documents = [annotated(4, 30, seed) for seed in range(2)]
    for document in documents:
        document["labels"] = [label for label in document["labels"] if label["r"] in model.config.label2id]
    arguments = CommTrainingArguments(
        **{"output_dir": str(tmp_path), "max_steps": 1, "save_strategy": "no", "eval_strategy": "no", "use_cpu": True},
        **{"load_best_model_at_end": False, "disable_tqdm": True, "report_to": []},
    )
    trainer = CommTrainer(model=model, args=arguments, train_dataset=documents, processing_class=processor)
    trainer.train(keep_evidence_threshold=True)
    assert processor.decision.evidence_threshold == metrics["evidence_threshold"] != 0.2
    trainer.train()
    assert processor.decision.evidence_threshold == 0.2
    unknown = {**documents[0], "labels": [*documents[0]["labels"], {"h": 0, "t": 1, "r": "P9999", "evidence": [0]}]}
    assert trainer.tune_evidence_threshold([unknown]) == trainer.tune_evidence_threshold(documents[:1])
    model.config.evidence_weight = 0.0
    trainer.train()
    assert processor.decision.evidence_threshold is None
    with pytest.raises(ValueError, match="evidence_weight"):
        trainer.tune_evidence_threshold(documents)
