"""COMM: document-level relation extraction for Transformers.

Importing the package registers its configuration. Model, processor and pipeline are imported when they are first needed, because
the classes of Transformers that they extend take seconds to import; each registers itself then.
"""

import importlib
from typing import TYPE_CHECKING

from .required_versions import check_transformers  # noqa: F401 # isort: skip - before what another version lacks
from transformers import AutoConfig

from . import extensions
from .configuration_comm import CommConfig, UnknownFieldError, __version__, before_each_configuration
from .extensions import *  # noqa: F403
from .losses import available_losses
from .mentions import group_mentions
from .relation_encoders import available_relation_encoders
from .settings import SettingError
from .text_to_document import document_from_text
from .utils.imports import import_after, of_extra

if TYPE_CHECKING:
    from .evaluation.docre_metric import load_metric as load_metric
    from .modeling_comm import CommForDocumentRelationExtraction, CommOutput
    from .pipeline_comm import DocumentRelationExtractionPipeline
    from .pretrained_comm import CommPreTrainedModel
    from .processing_comm import CommProcessor
    from .training.trainer import CommTrainer as CommTrainer
    from .training.training_args import CommTrainingArguments as CommTrainingArguments

# The same names for when the program runs: the module that has each.
_ON_DEMAND = {
    "CommForDocumentRelationExtraction": "modeling_comm",
    "CommOutput": "modeling_comm",
    "CommPreTrainedModel": "pretrained_comm",
    "CommProcessor": "processing_comm",
    "CommTrainer": "training.trainer",
    "CommTrainingArguments": "training.training_args",
    "DocumentRelationExtractionPipeline": "pipeline_comm",
    "load_metric": "evaluation.docre_metric",
}

__all__ = [
    "CommConfig",
    "CommForDocumentRelationExtraction",
    "CommOutput",
    "CommPreTrainedModel",
    "CommProcessor",
    "DocumentRelationExtractionPipeline",
    "SettingError",
    "UnknownFieldError",
    "__version__",
    "available_losses",
    "available_relation_encoders",
    "document_from_text",
    "group_mentions",
]
__all__ += extensions.__all__


def __getattr__(name):
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    try:
        return getattr(importlib.import_module(f".{_ON_DEMAND[name]}", __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs {error.name!r}{of_extra('training')}") from error


def __dir__():
    return sorted({*globals(), *_ON_DEMAND})


AutoConfig.register(CommConfig.model_type, CommConfig, exist_ok=True)
CommConfig.register_for_auto_class()
# AutoModel is asked for the model of a configuration, AutoProcessor and `pipeline` for a name.
before_each_configuration(lambda: importlib.import_module(".modeling_comm", __name__))
import_after("transformers.models.auto.processing_auto", f"{__name__}.processing_comm")
import_after("transformers.pipelines", f"{__name__}.pipeline_comm")
