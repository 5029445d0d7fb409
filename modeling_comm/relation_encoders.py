"""The registry of relation encoders. A new one is a module of its own and one line in `_BUILT_IN`."""

from .relation_encoder_atlop import AtlopRelationEncoder
from .relation_encoder_base import RelationEncoder
from .relation_encoder_docunet import DocunetRelationEncoder
from .relation_encoder_kd_docre import KdDocreRelationEncoder

_BUILT_IN = {
    "atlop": AtlopRelationEncoder,
    "docunet": DocunetRelationEncoder,
    "kd_docre": KdDocreRelationEncoder,
}
_REGISTRY = dict(_BUILT_IN)


def register_relation_encoder(name: str):
    """Class decorator that makes a [`RelationEncoder`] known as `CommConfig(relation_encoder=name)`.

    A model that uses it saves the class's source file beside its weights, so that it loads again as remote code.

    Raises:
        ValueError: the name is taken by another class, or the class is not a `RelationEncoder`.
    """

    def register(encoder):
        if not (isinstance(encoder, type) and issubclass(encoder, RelationEncoder)):
            raise ValueError(f"register_relation_encoder({name!r}): {encoder!r} is not a subclass of RelationEncoder")
        known = _REGISTRY.get(name)
        if known is not None and _full_name(known) != _full_name(encoder):
            raise ValueError(f"register_relation_encoder({name!r}): the name is taken by {_full_name(known)}")
        _REGISTRY[name] = encoder
        return encoder

    return register


def _full_name(encoder):
    return f"{encoder.__module__}.{encoder.__qualname__}"


def available_relation_encoders() -> list[str]:
    """Registered names, sorted."""
    return sorted(_REGISTRY)


def get_relation_encoder(name: str) -> type[RelationEncoder]:
    """The class registered under `name`.

    Raises:
        ValueError: nothing is registered under it; the message lists what is.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"relation encoder {name!r} is not registered; expected one of {available_relation_encoders()}"
        )
    return _REGISTRY[name]


def is_built_in_encoder(name: str) -> bool:
    """Whether `name` comes with the library; another one's source travels with the checkpoint."""
    return name in _BUILT_IN
