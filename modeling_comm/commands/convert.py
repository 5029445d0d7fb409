"""
Brings checkpoints of the original ATLOP, DocuNet and KD-DocRE into COMM's form.

    comm-docre convert --relation_encoder kd_docre --checkpoint original.pt \
        --backbone bert-base-cased --rel2id rel2id.json --output_dir converted

The checkpoint is a plain state dict, of the whole model or of all but its backbone. What is written is complete: weights,
configuration, processor. `AutoModel.from_pretrained` and `AutoProcessor.from_pretrained` load it.
"""

import argparse
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..backbone_attention import load_backbone_config
from ..configuration_comm import CommConfig
from ..modeling_comm import CommForDocumentRelationExtraction
from ..processing_comm import CommProcessor
from ..saved_folder import replacing_folder
from ..utils.files import read_json
from .errors import refuse_overwriting

ORIGINAL_GRID = 42  # rows of the grid of entity pairs in the published DocuNet and KD-DocRE
ORIGINAL_MOST_RELATIONS = 4  # on a pair, in all three systems' training scripts

_BACKBONE = "model."
# Position numbers that older versions of Transformers stored, and the pooling layer: no encoder needs them.
_LEFT_OUT = (r"model\.embeddings\.(position_ids|token_type_ids)", r"model\.pooler\..*")


class _System(NamedTuple):
    """One of the original systems: its loss; the steps from our names to its own, each a (regular
    expression, replacement); which tensor's dimension gives which field of the configuration; tensors that it never reads."""

    loss: str
    names: tuple[tuple[str, str], ...]
    sizes: dict[str, tuple[str, int]]
    classifier: str
    bilinear: str = "bilinear.weight"
    unread: tuple[str, ...] = ()


_PROJECTIONS = ((r"^(head|tail)_projection\b", r"\1_extractor"),)
_EMB_SIZE = {"emb_size": ("head_extractor.weight", 0)}
_SYSTEMS = {
    "atlop": _System(
        loss="atl",
        names=(*_PROJECTIONS, (r"^classifier\.linear\b", "bilinear")),
        sizes=_EMB_SIZE,
        classifier="bilinear.weight",
    ),
    "docunet": _System(
        loss="balanced_softmax",
        names=(
            *_PROJECTIONS,
            (r"^classifier\.linear\b", "bilinear"),
            (r"^channel_projection\b", "liner"),
            (r"\bconvolution_1\b", "0"),
            (r"\bnorm_1\b", "1"),
            (r"\bconvolution_2\b", "3"),
            (r"\bnorm_2\b", "4"),
            (r"^unet\.entrance\b", "segmentation_net.inc.conv.double_conv"),
            (r"^unet\.down_(\d)\b", r"segmentation_net.down\1.maxpool_conv.1.double_conv"),
            (r"^unet\.up_(\d)\b", r"segmentation_net.up\1.conv.double_conv"),
            (r"^unet\.exit\b", "segmentation_net.outc.conv"),
        ),
        sizes={
            **_EMB_SIZE,
            "unet_in_dim": ("liner.weight", 0),
            "unet_down_dim": ("segmentation_net.inc.conv.double_conv.0.weight", 0),
            "unet_out_dim": ("segmentation_net.outc.conv.weight", 0),
        },
        classifier="bilinear.weight",
    ),
    "kd_docre": _System(
        loss="afl",
        names=(
            *_PROJECTIONS,
            (r"^pair_feature\.linear\b", "projection"),
            (r"^layers\.(\d+)\.column_attention\b", r"axial_transformer.axial_attns.\1.axial_attentions.0.fn"),
            (r"^layers\.(\d+)\.row_attention\b", r"axial_transformer.axial_attns.\1.axial_attentions.1.fn"),
            (r"\bquery\b", "to_q"),
            (r"\bkey_value\b", "to_kv"),
            (r"\boutput\b", "to_out"),
            (r"^layers\.(\d+)\.linear\b", r"axial_transformer.ffns.\1"),
            (r"^layers\.(\d+)\.norm\b", r"axial_transformer.lns.\1"),
        ),
        sizes=_EMB_SIZE,
        classifier="classifier.weight",
        bilinear="projection.weight",
        unread=(r"bilinear\..*",),
    ),
}


def original_name(relation_encoder: str, name: str) -> str:
    """The original system's name of one of our model's parameters or buffers."""
    part, _, name = name.partition(".")
    if part == "backbone":
        return _BACKBONE + name
    for pattern, replacement in _SYSTEMS[relation_encoder].names:
        name = re.sub(pattern, replacement, name)
    return name


def read_state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """
    Tensors of a checkpoint file, on the CPU. Nothing in the file is executed.

    Args:
        path (`str` or `Path`): a safetensors file, or a file of `torch.save(model.state_dict(), path)`.

    Raises:
        ValueError: the file is something else.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: no safetensors file ({error}); is the copy complete?") from error
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise ValueError(
                f"{path}: not a file of tensors alone. Nothing else is read, because loading it could run foreign code; expected "
                "the file of torch.save(model.state_dict(), path), or safetensors"
            ) from error
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{path}: found a {type(tensors).__name__}; expected a state dict, names and their tensors")
    odd = [f"{key!r}: {type(value).__name__}" for key, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if odd or not tensors:
        raise ValueError(
            f"{path}: expected a state dict, names and their tensors; found {', '.join(odd) or 'nothing'}"
        )
    # DataParallel puts its own name before all others.
    wrapped = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in tensors.items()}


def read_labels(path: str | os.PathLike) -> dict[int, str]:
    """`id2label` from a `rel2id.json`.

    Raises:
        ValueError: its ids are not 0, 1, ..., each once.
    """
    rel2id = read_json(path)
    if not isinstance(rel2id, dict) or sorted(map(str, rel2id.values())) != sorted(map(str, range(len(rel2id)))):
        raise ValueError(
            f"{path}: expected an object of relations and their ids 0, 1, ..., each once; found {rel2id!r:.200}"
        )
    return {int(index): label for label, index in rel2id.items()}


def _inferred_fields(relation_encoder, tensors, id2label):
    """Fields of the configuration that the tensors' shapes tell."""
    system = _SYSTEMS[relation_encoder]
    needed = {name for name, _ in system.sizes.values()} | {system.classifier, system.bilinear}
    missing = sorted(needed - set(tensors))
    if missing:
        raise ValueError(
            f"the checkpoint lacks {missing}, which every {relation_encoder} checkpoint has; it has {len(tensors)} tensors: "
            f"{', '.join(sorted(tensors)[:5])}, ..."
        )
    rows = len(tensors[system.classifier])
    if rows != len(id2label):
        raise ValueError(
            f"rel2id has {len(id2label)} labels, {id2label[0]!r} among them; the checkpoint's {system.classifier} has {rows} "
            "rows, one a label"
        )
    fields = {field: tensors[name].shape[dimension] for field, (name, dimension) in system.sizes.items()}
    fields["block_size"] = tensors[system.bilinear].shape[1] // fields["emb_size"]
    if relation_encoder == "kd_docre":
        layers = (re.fullmatch(r"axial_transformer\.ffns\.(\d+)\.weight", name) for name in tensors)
        fields["axial_layers"] = sum(match is not None for match in layers)
    return fields


def _placed(relation_encoder, tensors, own):
    """The checkpoint's tensors under our names, and the names of those that are left out knowingly.

    Raises:
        ValueError: lists every tensor that found no place, is missing or has another shape.
    """
    wanted = {original_name(relation_encoder, name): name for name in own}
    if not any(name.startswith(_BACKBONE) for name in tensors):  # the head alone
        wanted = {original: name for original, name in wanted.items() if not original.startswith(_BACKBONE)}
    left_out = re.compile("|".join(_LEFT_OUT + _SYSTEMS[relation_encoder].unread))
    unused = sorted(set(tensors) - set(wanted))
    known = [name for name in unused if left_out.fullmatch(name)]
    problems = {
        "tensors that found no place": [name for name in unused if name not in known],
        "missing tensors": sorted(set(wanted) - set(tensors)),
        "tensors of another shape": [
            f"{original} {tuple(tensors[original].shape)}, expected {tuple(own[name].shape)}"
            for original, name in wanted.items()
            if original in tensors and tensors[original].shape != own[name].shape
        ],
    }
    found = [f"{len(names)} {problem}: {'; '.join(names)}" for problem, names in problems.items() if names]
    if found:
        raise ValueError(f"the checkpoint does not fit {relation_encoder} on this backbone. " + ". ".join(found))
    return {name: tensors[original] for original, name in wanted.items()}, known


def convert_original_checkpoint(
    relation_encoder: str,
    checkpoint: str | os.PathLike,
    backbone: str,
    rel2id: str | os.PathLike,
    output_dir: str | os.PathLike,
    markers: str = "star",
    grid: int = ORIGINAL_GRID,
) -> list[str]:
    """
    Writes an original system's checkpoint as a COMM model with its processor.

    Sizes come from the tensors' shapes; only KD-DocRE's 8 attention heads leave no trace in them. What makes COMM compute as the
    originals do is set in the processor: two windows for a long document (`window_stride=0`), of which RoBERTa's first closes
    with two `</s>`; RoBERTa's words without their leading space; the system's loss and with it the decision threshold; at most 4
    relations on a pair; the fixed grid. One thing is not reproduced: with 1,022 or more subword tokens, the originals' two
    windows leave out the middle, and COMM reads it.

    Args:
        relation_encoder (`str`): `"atlop"`, `"docunet"` or `"kd_docre"`.
        checkpoint (`str` or `Path`): the state dict, see [`read_state_dict`]; of the whole model, its backbone under `model.`, or
            of all but the backbone.
        backbone (`str`): name or folder of the pretrained encoder that the system was trained from: its configuration, its
            tokenizer, and its weights where the checkpoint has none.
        rel2id (`str` or `Path`): the JSON file of relation ids that the system was trained with.
        output_dir (`str` or `Path`): where the model is written.
        markers (`str`, defaults to `"star"`): `"entity_type"` for DocuNet on BERT as its authors trained it.
        grid (`int`, defaults to 42): rows of the fixed grid of DocuNet and KD-DocRE; documents with more entities are refused,
            as they crash the originals.

    Returns:
        names of tensors that were left out because nothing reads them.

    Raises:
        ValueError: a file is not what it should be, or checkpoint, backbone, relation encoder and labels do not fit together; the
            message lists every tensor in question.
    """
    if relation_encoder not in _SYSTEMS:
        raise ValueError(f"relation_encoder is {relation_encoder!r}; originals are known of {sorted(_SYSTEMS)}")
    tensors, id2label = read_state_dict(checkpoint), read_labels(rel2id)
    text_config = load_backbone_config(backbone)
    roberta = "roberta" in text_config.model_type
    config = CommConfig(
        text_config=text_config,
        relation_encoder=relation_encoder,
        **_inferred_fields(relation_encoder, tensors, id2label),
        **({} if relation_encoder == "atlop" else {"fixed_grid": grid}),
        id2label=id2label,
        loss=_SYSTEMS[relation_encoder].loss,
    )
    processor = CommProcessor.from_backbone(
        backbone,
        config,
        markers=markers,
        window_stride=0,
        window_end_tokens=2 if roberta else 1,
        word_leading_space=not roberta,
        max_relations_per_pair=ORIGINAL_MOST_RELATIONS,
    )
    model = CommForDocumentRelationExtraction(config)
    placed, left_out = _placed(relation_encoder, tensors, model.state_dict())
    if not any(name.startswith("backbone.") for name in placed):
        model = CommForDocumentRelationExtraction.from_backbone(backbone, config)
    model.load_state_dict(placed, strict=False)  # what may be missing is the backbone that was just loaded
    with replacing_folder(output_dir) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return left_out


def run(args: argparse.Namespace) -> int:
    """The command: converts, and prints what was left out; returns the exit status."""
    folder = Path(args.output_dir)
    refuse_overwriting([folder, *folder.glob("*")], [args.checkpoint, args.backbone, args.rel2id])
    left_out = convert_original_checkpoint(
        args.relation_encoder, args.checkpoint, args.backbone, args.rel2id, folder, args.markers, args.grid
    )
    print(f"Every tensor found its place; left out, because nothing reads them: {', '.join(left_out) or 'none'}.")
    print(f"The model and its processor are in {args.output_dir}.")
    return 0
