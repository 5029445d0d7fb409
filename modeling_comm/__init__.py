"""COMM: document-level relation extraction for Transformers."""

import importlib

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_comm import TASK, CommConfig, UnknownFieldError, __version__
from .grouped_bilinear import GroupedBilinear
from .loss_base import check_inputs, reduce_losses, relation_distances, relation_values
from .losses import available_losses, register_loss
from .mentions import group_mentions
from .modeling_comm import CommForDocumentRelationExtraction, CommOutput
from .pipeline_comm import DocumentRelationExtractionPipeline
from .pretrained_comm import CommPreTrainedModel
from .processing_comm import CommProcessor
from .relation_encoder_base import (
    EncodedDocuments,
    RelationEncoder,
    at_least_float32,
    project_with_entity,
)
from .relation_encoders import available_relation_encoders, register_relation_encoder
from .settings import AtLeast, InRange, MultipleOf, SettingError
from .text_to_document import document_from_text

AutoConfig.register(CommConfig.model_type, CommConfig, exist_ok=True)
AutoModel.register(CommConfig, CommForDocumentRelationExtraction, exist_ok=True)
AutoProcessor.register(CommConfig, CommProcessor, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.get_supported_tasks():  # registering twice warns
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=DocumentRelationExtractionPipeline, pt_model=AutoModel, type="text"
    )
# What is saved carries its code, so that it loads by trust_remote_code where this package is not installed.
CommConfig.register_for_auto_class()
CommForDocumentRelationExtraction.register_for_auto_class("AutoModel")
CommProcessor.register_for_auto_class()

# These need packages that the model does without, so they are looked up when they are asked for.
_TRAINING = {
    "CommTrainer": "training.trainer",
    "CommTrainingArguments": "training.training_args",
    "load_metric": "evaluation.docre_metric",
}


def __getattr__(name):
    if name not in _TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f".{_TRAINING[name]}", __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(f'{name} needs {error.name!r}: pip install "comm-docre[training]"') from error


__all__ = [
    "AtLeast",
    "CommConfig",
    "CommForDocumentRelationExtraction",
    "CommOutput",
    "CommPreTrainedModel",
    "CommProcessor",
    "DocumentRelationExtractionPipeline",
    "EncodedDocuments",
    "GroupedBilinear",
    "InRange",
    "MultipleOf",
    "RelationEncoder",
    "SettingError",
    "UnknownFieldError",
    "__version__",
    "at_least_float32",
    "available_losses",
    "available_relation_encoders",
    "check_inputs",
    "document_from_text",
    "group_mentions",
    "project_with_entity",
    "reduce_losses",
    "register_loss",
    "register_relation_encoder",
    "relation_distances",
    "relation_values",
]
