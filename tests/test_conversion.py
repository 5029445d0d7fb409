"""Checkpoints of the original systems, converted: against the numbers of those systems' own code, and what is refused.

Nothing is laid into a module by hand: every model comes from the converter through `AutoModel` and `AutoProcessor`.
"""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import (
    GOLDEN,
    GOLDEN_NAMES,
    MARKERS,
    MINILM,
    ROBERTA,
    TINY,
    Case,
    difference,
    golden_rows,
    logits_in_golden_order,
    original_of,
    read_tensors,
    run,
    system,
    system_of,
    write_rel2id,
)
from helpers import (
    ROOT,
    byte_level_tokenizer,
    random_document,
    requires_shared,
    tiny_text_config,
    word_piece_tokenizer,
)
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor

from modeling_comm.commands.convert import (
    ORIGINAL_GRID,
    convert_original_checkpoint,
    original_name,
    read_state_dict,
)
from modeling_comm.decoding import DecisionSettings, Predictions

LOGITS = 1e-4
each_system = pytest.mark.parametrize("relation_encoder", GOLDEN_NAMES)


# ---------------------------------------------------------------------------------------------- against golden numbers


@requires_shared
@pytest.mark.parametrize(
    ("relation_encoder", "case"),
    [(name, case) for name in GOLDEN_NAMES for case in [*TINY, *ROBERTA, *MINILM]]
    + [("docunet", case) for case in MARKERS],
    ids=str,
)
def test_logits_loss_and_decisions(relation_encoder, case):
    arrays, info = case.load()
    _, output, _ = run(case, relation_encoder)
    logits = logits_in_golden_order(output, arrays, info)
    golden = golden_rows(arrays, info, relation_encoder, "logits")
    assert difference(logits, golden) < LOGITS
    _, processor = system_of(case, relation_encoder)
    golden_loss = float(arrays[f"{GOLDEN_NAMES[relation_encoder]}_loss"])
    assert output.loss.item() == pytest.approx(golden_loss, abs=1e-4)
    decisions = golden_rows(arrays, info, relation_encoder, "preds")
    predicted = original_form(logits, processor, most=processor.decision.max_relations_per_pair)
    if relation_encoder == "docunet":  # where "no relation" is among the highest four logits, the original keeps three
        crowded = golden[:, 0] > np.sort(golden[:, 1:])[:, -4]
        predicted[crowded] = original_form(logits, processor, most=3)[crowded]
    margin = golden[:, 1:] - (golden[:, :1] if processor.decision.decision_threshold == "th" else 0)
    decided = np.concatenate([np.abs(margin).min(-1, keepdims=True) > LOGITS, np.abs(margin) > LOGITS], axis=1)
    assert np.array_equal(predicted[decided], decisions[decided]) and decided.mean() > 0.9


def original_form(logits, processor, most):
    """0 and 1 in the originals' form: column 0 says that there is no relation."""
    settings = DecisionSettings(processor.decision.decision_threshold, max_relations_per_pair=most)
    rows = torch.arange(len(logits))
    triples = Predictions.from_logits(logits, torch.stack([rows, rows], dim=1), settings).triples
    predicted = np.zeros(logits.shape)
    for triple in triples:
        predicted[triple.head, triple.label] = 1
    predicted[:, 0] = ~predicted[:, 1:].any(-1)
    return predicted


def assert_gradients(relation_encoder, case, file):
    golden, metadata = read_tensors(GOLDEN / f"{file}.safetensors")
    golden = {name.replace("backbone.", "model."): gradient for name, gradient in golden.items()}
    model, _ = system_of(case, relation_encoder)
    batch, _, _ = run(case, relation_encoder)
    model.zero_grad()
    model(**batch).loss.backward()
    gradients = {original_name(relation_encoder, name): p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    assert set(gradients) == set(golden)
    assert all("pooler" in name or name.startswith("bilinear") for name in json.loads(metadata["no_grad"]))
    for name, gradient in golden.items():
        # The gradient of a key's bias is zero but for rounding, hence the floor.
        scale = max(gradient.abs().max().item(), 1e-2)
        assert difference(gradients[name], gradient) < 1e-4 * scale, name


@requires_shared
@each_system
@pytest.mark.parametrize("name", ["batch_short_few", "batch_few_long_short"])
def test_gradients(relation_encoder, name):
    """KD-DocRE's include the rows of its loss that are an entity with itself: without them every gradient would be larger."""
    file = f"tiny/grad_{GOLDEN_NAMES[relation_encoder]}_{name}"
    assert_gradients(relation_encoder, Case("tiny", name), file)


@requires_shared
def test_gradients_with_roberta():
    assert_gradients("atlop", Case("tiny_roberta", "short"), "tiny_roberta/grad_atlop_short")


@requires_shared
def test_docunet_in_training_mode():
    """Statistics of the batch normalise, and move the running ones."""
    case = Case("tiny", "batch_short_few")
    arrays, info = case.load()
    model = copy.deepcopy(system_of(case, "docunet")[0]).train()
    batch, _, _ = run(case, "docunet")
    output = model(**batch)
    # Relative: on logits up to 18, the golden float32 numbers are 1.2e-4 away from the same network in float64.
    golden = arrays["docunet_train_logits"]
    relative = np.maximum(1, np.abs(golden))
    logits = logits_in_golden_order(output, arrays, info).numpy()
    assert difference(logits / relative, golden / relative) < LOGITS
    assert output.loss.item() == pytest.approx(float(arrays["docunet_train_loss"]), abs=1e-4)
    buffers = {original_name("docunet", name): buffer for name, buffer in model.named_buffers()}
    golden = {name.partition(".")[2]: value for name, value in arrays.items() if "_train_buffer." in name}
    assert set(golden) == {name for name in buffers if name.startswith("segmentation_net.")}
    assert max(difference(buffers[name], value) for name, value in golden.items()) < LOGITS


@requires_shared
@pytest.mark.parametrize("case", [*MINILM[:1], MINILM[2], *MARKERS], ids=str)
def test_what_docunets_unet_reads_and_gives(case):
    arrays, info = case.load()
    model, _ = system_of(case, "docunet")
    batch, _, _ = run(case, "docunet")
    seen = []
    hook = model.relation_encoder.unet.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    with torch.no_grad():
        model(**batch)
    hook.remove()
    ((read,), (given,)) = seen[0]
    assert difference(read[0].movedim(-1, 0), arrays["docunet_unet_in"]) < 1e-5
    if "docunet_unet_out_entities" in arrays:
        size = len(info["entity_pos"])
        assert difference(given[0, :size, :size], arrays["docunet_unet_out_entities"]) < LOGITS


@requires_shared
@each_system
def test_settings_of_the_originals(relation_encoder):
    model, processor = system("tiny_roberta", relation_encoder)
    config = model.config
    assert config.relation_encoder == relation_encoder
    assert config.loss == {"atlop": "atl", "docunet": "balanced_softmax", "kd_docre": "afl"}[relation_encoder]
    assert processor.decision.decision_threshold == ("zero" if relation_encoder == "docunet" else "th")
    assert getattr(config, "fixed_grid", None) == (None if relation_encoder == "atlop" else ORIGINAL_GRID)
    assert (processor.window_stride, processor.window_end_tokens) == (0, 2)
    assert processor.decision.max_relations_per_pair == 4
    assert not processor.word_leading_space and processor.markers == "star"
    _, processor = system("tiny", relation_encoder)
    assert processor.window_end_tokens == 1 and processor.word_leading_space


# ------------------------------------------------------------------------------------------------- without shared data


@pytest.fixture(params=["bert", "roberta"])
def backbone(request, tmp_path):
    """A pretrained encoder with its tokenizer, in a folder."""
    tokenizer = word_piece_tokenizer() if request.param == "bert" else byte_level_tokenizer()
    return save_backbone(tmp_path / "encoder", request.param, tokenizer)


@pytest.fixture
def bert(tmp_path):
    return save_backbone(tmp_path / "encoder", "bert", word_piece_tokenizer())


def save_backbone(folder, model_type, tokenizer):
    torch.manual_seed(0)
    AutoModel.from_config(tiny_text_config(model_type, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def convert(tmp_path, tensors, relation_encoder, backbone, **arguments):
    checkpoint = tmp_path / "original.pt"
    torch.save(tensors, checkpoint)
    settings = {"rel2id": write_rel2id(tmp_path), "output_dir": tmp_path / "converted", "grid": 8} | arguments
    return convert_original_checkpoint(relation_encoder, checkpoint, backbone, **settings)


@each_system
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "head alone"])
def test_names_there_and_back(relation_encoder, whole, backbone, tmp_path):
    model, tensors = original_of(relation_encoder, backbone, whole)
    assert not any("_projection" in name or "unet" in name or name.startswith("layers") for name in tensors)
    convert(tmp_path, tensors, relation_encoder, backbone)
    loaded = AutoModel.from_pretrained(tmp_path / "converted").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "converted")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    batch = processor([random_document(5, 30, seed=1), random_document(3, 12, seed=2)])
    with torch.no_grad():
        assert torch.allclose(loaded(**batch).logits, model(**batch).logits, atol=1e-5)


def test_command_line(bert, tmp_path):
    """In a process of its own; safetensors; the names that DataParallel adds; tensors that nothing reads."""
    model, tensors = original_of("kd_docre", bert)
    unread = {"bilinear.weight": (5, 64), "bilinear.bias": (5,), "model.pooler.dense.weight": (32, 32)}
    tensors |= {name: torch.zeros(shape) for name, shape in unread.items()}
    tensors["model.embeddings.position_ids"] = torch.arange(66)[None]
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "original.safetensors")
    rel2id = write_rel2id(tmp_path)
    command = [sys.executable, "-m", "comm_docre", "convert", "--relation_encoder", "kd_docre"]
    command += ["--checkpoint", tmp_path / "original.safetensors", "--backbone", bert, "--rel2id", rel2id]
    command += ["--output_dir", tmp_path / "converted", "--grid", "8"]
    finished = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    for name in [*unread, "model.embeddings.position_ids"]:
        assert name in finished.stdout
    loaded = AutoModel.from_pretrained(tmp_path / "converted").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "converted")
    batch = processor(random_document(4, 20))
    with torch.no_grad():
        assert torch.allclose(loaded(**batch).logits, model(**batch).logits, atol=1e-5)
        four_more = AutoProcessor.from_pretrained(tmp_path / "converted")
        documents = [random_document(4, 20), random_document(9, 20)]
        with pytest.raises(ValueError, match=r"document 1\b.*\b9 .*\b8\b"):
            loaded(**four_more(documents))


def test_markers(bert, tmp_path):
    _, tensors = original_of("docunet", bert)
    convert(tmp_path, tensors, "docunet", bert, markers="entity_type")
    assert AutoProcessor.from_pretrained(tmp_path / "converted").markers == "entity_type"
    document = random_document(2, 12)
    opened = AutoProcessor.from_pretrained(tmp_path / "converted").encode([document])[0]
    kinds = {"ORG": 1, "LOC": 3, "TIME": 5, "PER": 7, "MISC": 9, "NUM": 11}
    positions = zip(opened["mention_positions"], opened["mention_entities"], strict=True)
    vocabulary = word_piece_tokenizer().get_vocab()
    found = {opened["input_ids"][position] for position, _ in positions}
    assert found <= {vocabulary[f"[unused{k}]"] for k in kinds.values()}


@pytest.mark.parametrize("relation_encoder", ["docunet", "kd_docre"])
def test_padding_is_not_masked_in_a_fixed_grid(relation_encoder, bert, tmp_path):
    """The switch reproduces this: results depend on the grid's size, as the originals' do."""
    _, tensors = original_of(relation_encoder, bert)
    logits = []
    for grid in (8, 9):
        convert(tmp_path, tensors, relation_encoder, bert, grid=grid)
        model = AutoModel.from_pretrained(tmp_path / "converted").eval()
        batch = AutoProcessor.from_pretrained(tmp_path / "converted")(random_document(5, 30, seed=1))
        with torch.no_grad():
            logits.append(model(**batch).logits)
    assert difference(*logits) > 1e-5


# --------------------------------------------------------------------------------------------------- what is refused


@each_system
def test_every_tensor_in_question_is_listed(relation_encoder, bert, tmp_path):
    _, tensors = original_of(relation_encoder, bert)
    tensors["tail_extractor.bias"] = torch.zeros(15)
    del tensors["head_extractor.bias"], tensors["model.encoder.layer.1.output.dense.bias"]
    tensors |= {"evidence.weight": torch.zeros(2, 2), "bilinear.scale": torch.zeros(1)}
    with pytest.raises(ValueError) as error:
        convert(tmp_path, tensors, relation_encoder, bert)
    message = str(error.value)
    assert message.startswith(f"the checkpoint does not fit {relation_encoder} on this backbone. ")
    unread = relation_encoder == "kd_docre"  # its forward never reads anything of `bilinear`
    place = "1 tensors that found no place: " if unread else "2 tensors that found no place: bilinear.scale; "
    assert place + "evidence.weight. " in message
    assert "2 missing tensors: head_extractor.bias; model.encoder.layer.1.output.dense.bias. " in message
    assert message.endswith("1 tensors of another shape: tail_extractor.bias (15,), expected (16,)")
    assert not (tmp_path / "converted").exists()


def test_another_backbone_is_refused(bert, tmp_path):
    _, tensors = original_of("atlop", bert)
    other = tmp_path / "other"
    AutoModel.from_config(tiny_text_config(hidden_size=64)).save_pretrained(other)
    word_piece_tokenizer().save_pretrained(other)
    with pytest.raises(ValueError, match=r"head_extractor\.weight \(16, 64\), expected \(16, 128\)"):
        convert(tmp_path, tensors, "atlop", other)


@pytest.mark.parametrize(
    ("relation_encoder", "named", "missing"),
    [
        ("atlop", "kd_docre", r"\['classifier.weight', 'projection.weight'\]"),
        ("atlop", "docunet", r"\['liner.weight', 'segmentation_net"),
    ],
)
def test_another_system_is_refused(relation_encoder, named, missing, bert, tmp_path):
    _, tensors = original_of(relation_encoder, bert)
    with pytest.raises(ValueError, match=f"{missing}.*{named}"):
        convert(tmp_path, tensors, named, bert)
    with pytest.raises(ValueError, match="'atlop', 'docunet', 'kd_docre'"):
        convert(tmp_path, tensors, "eider", bert)


@pytest.mark.parametrize(
    ("rel2id", "message"),
    [
        ({"Na": 0, "P17": 1}, r"rel2id has 2 .*bilinear.weight.* 5 "),
        ({"Na": "0", "P17": "1"}, r"rel2id has 2 labels, 'Na' .*bilinear.weight.* 5 "),
        ({"Na": 0, "P17": 2}, r"rel2id.json"),
        (["Na", "P17"], r"found \['Na', 'P17'\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(rel2id, message, bert, tmp_path):
    _, tensors = original_of("atlop", bert)
    path = tmp_path / "other" / "rel2id.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rel2id), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, tensors, "atlop", bert, rel2id=path)


class Harmful:
    """An object of a file that runs code on loading."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Harmful(), "not a file of tensors alone.* could run foreign code"),
        ({"weight": torch.zeros(2), "args": Harmful()}, "not a file of tensors alone"),
        (torch.nn.Linear(2, 2), "not a file of tensors alone"),
        ({"epoch": 3, "state_dict": {"weight": torch.zeros(2)}}, "found 'epoch': int, 'state_dict': dict"),
        (torch.zeros(3), "found a Tensor; expected a state dict"),
        ({}, "found nothing"),
    ],
    ids=["object", "object inside", "module", "training state", "tensor", "empty"],
)
def test_a_file_of_other_things_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "original.pt")
    with pytest.raises(ValueError, match=f"original.pt: .*{message}"):
        read_state_dict("original.pt")
    assert not Path("harm").exists()


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "original.bin").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="tensors"):
        read_state_dict(tmp_path / "original.bin")
