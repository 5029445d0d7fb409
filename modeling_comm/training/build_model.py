"""The model that a run of `run_docre.py` starts from, and its processor."""

import json
from collections.abc import Mapping, Sequence

from transformers.utils import logging

from ..candidate_pairs import ALL_PAIRS, CandidatePairs
from ..config_checks import read_fields
from ..configuration_comm import CommConfig
from ..documents import shown
from ..evidence import default_evidence_threshold
from ..losses import get_loss
from ..modeling_comm import CommForDocumentRelationExtraction
from ..other_labels import take_fields_of_loss
from ..processing_comm import CommProcessor
from ..processor_settings import settings_of_labels, tuned_for_labels
from ..relation_encoders import get_relation_encoder
from ..subword_tokens import MARKER_TYPES
from .script_arguments import ModelArguments, given_fields, given_settings

logger = logging.get_logger(__name__)


def is_comm_checkpoint(arguments: ModelArguments) -> bool:
    """Returns whether `--model_name_or_path` is a COMM checkpoint, not a bare encoder."""
    fields = read_fields(arguments.model_name_or_path, **_hub_arguments(arguments))
    return fields.get("model_type") == CommConfig.model_type


def new_model(
    arguments: ModelArguments,
    labels: Sequence[str],
    relation_names: Mapping[str, str],
    candidates: CandidatePairs = ALL_PAIRS,
    entity_types: Sequence[str] = (),
) -> tuple[CommForDocumentRelationExtraction, CommProcessor]:
    """
    A new model around a bare encoder, and its processor.

    Args:
        arguments (`ModelArguments`): the encoder, and the configuration's fields that differ from their defaults.
        labels (`Sequence[str]`): in the order of the model's outputs, the threshold class first.
        relation_names (`Mapping[str, str]`): readable names of the labels, as far as they have any.
        candidates (`CandidatePairs`, *optional*): the pairs that the model is asked about; by default all.
        entity_types (`Sequence[str]`): the data set's, for `--markers entity_type`.
    """
    source, hub = arguments.model_name_or_path, _hub_arguments(arguments)
    model = CommForDocumentRelationExtraction.from_backbone(
        source,
        id2label=dict(enumerate(labels)),
        backbone_overrides=_overrides(arguments),
        attn_implementation=arguments.attn_implementation,
        **given_fields(arguments),
        **hub,
    )
    processor = CommProcessor.from_backbone(
        source,
        model.config,
        trust_remote_code=arguments.trust_remote_code,
        **settings_of_labels(labels, relation_names, candidates),
        **_types_to_mark(arguments, entity_types),
        **given_settings(arguments),
        **hub,
    )
    return model, processor


def load_checkpoint(
    arguments: ModelArguments,
    labels: Sequence[str] | None = None,
    relation_names: Mapping[str, str] | None = None,
    candidates: CandidatePairs = ALL_PAIRS,
) -> tuple[CommForDocumentRelationExtraction, CommProcessor]:
    """
    A COMM checkpoint and its processor. Flags change what the weights do not depend on, such as the loss.

    Args:
        arguments (`ModelArguments`): the checkpoint, and the fields that differ from its own.
        labels (`Sequence[str]`, *optional*), relation_names (`Mapping[str, str]`, *optional*), candidates (`CandidatePairs`):
            as in [`new_model`], to train it further for these; by default the checkpoint's own.

    Raises:
        ValueError: a flag contradicts the checkpoint.
    """
    source, hub, fields = arguments.model_name_or_path, _hub_arguments(arguments), given_fields(arguments)
    config = CommConfig.from_pretrained(source, **hub)
    # What the weights depend on.
    declared = get_relation_encoder(config.relation_encoder).settings
    fixed = ("relation_encoder", "averaged_layers", *(setting.field for setting in declared))
    refused = [name for name in fixed if fields.get(name) not in (None, getattr(config, name))]
    refused += ["backbone_overrides"] if arguments.backbone_overrides else []
    processor = CommProcessor.from_pretrained(source, trust_remote_code=arguments.trust_remote_code, **hub)
    settings = given_settings(arguments)
    if settings.get("word_leading_space") not in (None, processor.word_leading_space):
        refused.append("word_leading_space")
    if refused:
        raise ValueError(
            f"{source} is a finished checkpoint, which decides on {', '.join(refused)}; leave these flags out"
        )
    saved_loss = config.loss
    of_loss = take_fields_of_loss(fields) if labels is not None else {}
    config = CommConfig.from_pretrained(source, **fields, **hub)
    model = CommForDocumentRelationExtraction.from_pretrained(
        source, config=config, attn_implementation=arguments.attn_implementation, **hub
    )
    if labels is not None:
        kept = set(labels) & set(config.id2label.values())
        logger.warning("%s: %d of %d labels are the checkpoint's, the others are new", source, len(kept), len(labels))
        model.set_labels(dict(enumerate(labels)), **of_loss)
    if model.config.loss != saved_loss:
        decides = {"decision_threshold": get_loss(model.config.loss).decision_threshold, "threshold_offset": 0.0}
        settings = decides | {"probability_map": None} | settings
        decision = {name: settings[name] for name in decides}
        logger.warning("the loss is %s, no longer %s: what decides is %s", model.config.loss, saved_loss, decision)
        if processor.decision.probability_map is not None:
            logger.warning("probability_map is removed; it was fitted for the loss %s", saved_loss)
    if labels is not None:
        # What was tuned for the checkpoint's relations does not fit others.
        gone = tuned_for_labels(processor.settings)
        if gone:
            logger.warning("%s: %s, made for other relations, are removed", source, ", ".join(gone))
        of_labels = settings_of_labels(labels, relation_names, candidates)
        settings = {**processor.settings, **gone, **of_labels, **settings}
        return model, CommProcessor(processor.tokenizer, id2label=model.config.id2label, **settings)
    return model, processor.with_settings(**settings)


def _types_to_mark(arguments, entity_types):
    """`marker_types` where the markers that the arguments ask for do not know the data set's entity types."""
    if arguments.markers != "entity_type" or arguments.marker_types or set(entity_types) <= set(MARKER_TYPES):
        return {}
    return {"marker_types": list(entity_types)}


def prepare_for_training(
    model: CommForDocumentRelationExtraction, processor: CommProcessor, arguments: ModelArguments
) -> None:
    """Converts weights to float32, and removes what was tuned for other weights: a map to probabilities, and an offset and a
    threshold of fusion unless a flag gives them."""
    model.float()  # weights of half precision would lose most steps to rounding; --bf16 and --fp16 compute in it
    keep = {
        "keep_offset": arguments.threshold_offset is not None,
        "keep_fusion": arguments.fusion_threshold is not None,
    }
    processor.decision.clear_tuned(**keep)
    if arguments.evidence_threshold is None:
        processor.decision.reset_evidence_threshold(default_evidence_threshold(model.config.evidence_weight))


def _overrides(arguments):
    try:
        overrides = json.loads(arguments.backbone_overrides or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--backbone_overrides: found no valid JSON ({error}), expected an object") from error
    if not isinstance(overrides, dict):
        raise ValueError(f"--backbone_overrides: found {shown(overrides)}, expected an object")
    return overrides


def _hub_arguments(arguments):
    return {"cache_dir": arguments.cache_dir, "revision": arguments.model_revision, "token": arguments.token}
