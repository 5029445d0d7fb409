"""The model that a run of `run_docre.py` starts from, and its processor."""

import json
from collections.abc import Mapping, Sequence

from transformers import PreTrainedConfig

from ..configuration_comm import CommConfig
from ..modeling_comm import CommForDocumentRelationExtraction
from ..processing_comm import CommProcessor
from ..relation_encoders import get_relation_encoder
from .script_arguments import ModelArguments, given_fields


def is_comm_checkpoint(arguments: ModelArguments) -> bool:
    """Whether `--model_name_or_path` is a COMM checkpoint, not a bare encoder."""
    config, _ = PreTrainedConfig.get_config_dict(arguments.model_name_or_path, **_hub_arguments(arguments))
    return config.get("model_type") == CommConfig.model_type


def new_model(
    arguments: ModelArguments, labels: Sequence[str], relation_names: Mapping[str, str]
) -> tuple[CommForDocumentRelationExtraction, CommProcessor]:
    """
    A new model around a bare encoder, and its processor.

    Args:
        arguments (`ModelArguments`): the encoder, and the configuration's fields that differ from their defaults.
        labels (`Sequence[str]`): in the order of the model's outputs, the threshold class first.
        relation_names (`Mapping[str, str]`): readable names of the labels, as far as they have any.
    """
    source, hub = arguments.model_name_or_path, _hub_arguments(arguments)
    model = CommForDocumentRelationExtraction.from_backbone(
        source,
        id2label=dict(enumerate(labels)),
        relation_names={label: relation_names[label] for label in labels if label in relation_names},
        backbone_overrides=json.loads(arguments.backbone_overrides or "{}"),
        attn_implementation=arguments.attn_implementation,
        **given_fields(arguments),
        **hub,
    )
    processor = CommProcessor.from_backbone(
        source,
        model.config,
        word_leading_space=arguments.word_leading_space,
        trust_remote_code=arguments.trust_remote_code,
        **hub,
    )
    return model, processor


def load_checkpoint(arguments: ModelArguments) -> tuple[CommForDocumentRelationExtraction, CommProcessor]:
    """
    A COMM checkpoint and its processor. Flags change what the weights do not depend on, such as the loss.

    Raises:
        ValueError: a flag contradicts the checkpoint.
    """
    source, hub, fields = arguments.model_name_or_path, _hub_arguments(arguments), given_fields(arguments)
    config = CommConfig.from_pretrained(source, **hub)
    # What the weights depend on.
    settings = get_relation_encoder(config.relation_encoder).settings
    fixed = ("relation_encoder", *(setting.field for setting in settings))
    refused = [name for name in fixed if fields.get(name) not in (None, getattr(config, name))]
    refused += ["backbone_overrides"] if arguments.backbone_overrides else []
    refused += [] if arguments.word_leading_space else ["word_leading_space"]
    if refused:
        raise ValueError(
            f"{source} is a finished checkpoint, which decides on {', '.join(refused)}; leave these flags out"
        )
    config = CommConfig.from_pretrained(source, **fields, **hub)
    model = CommForDocumentRelationExtraction.from_pretrained(
        source, config=config, attn_implementation=arguments.attn_implementation, **hub
    )
    processor = CommProcessor.from_pretrained(source, trust_remote_code=arguments.trust_remote_code, **hub)
    processor.update_from_config(model.config)
    return model, processor


def prepare_for_training(
    model: CommForDocumentRelationExtraction, processor: CommProcessor, arguments: ModelArguments
) -> None:
    """Converts weights to float32, and resets an offset that was tuned for the weights before training."""
    model.float()  # weights of half precision would lose most steps to rounding; --bf16 and --fp16 compute in it
    model.config.threshold_offset = arguments.threshold_offset or 0.0
    processor.update_from_config(model.config)


def _hub_arguments(arguments):
    return {"cache_dir": arguments.cache_dir, "revision": arguments.model_revision, "token": arguments.token}
