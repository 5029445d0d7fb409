"""The relation encoders that come with the library, one line each: importing a module registers what it defines."""

from .relation_encoder_atlop import AtlopRelationEncoder  # noqa: F401
from .relation_encoder_docunet import DocunetRelationEncoder  # noqa: F401
from .relation_encoder_kd_docre import KdDocreRelationEncoder  # noqa: F401
from .relation_encoder_registry import (
    available_relation_encoders,
    get_relation_encoder,
    register_relation_encoder,
)

__all__ = [
    "available_relation_encoders",
    "get_relation_encoder",
    "is_built_in_encoder",
    "register_relation_encoder",
]

_BUILT_IN = frozenset(available_relation_encoders())


def is_built_in_encoder(name: str) -> bool:
    """Returns whether `name` comes with the library; another one's source is saved with the checkpoint."""
    return name in _BUILT_IN
