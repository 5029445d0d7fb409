"""The registry of relation encoders: names, and the class and the settings that belong to each."""

from collections.abc import Callable
from dataclasses import dataclass

from .relation_encoder_base import RelationEncoder, RelationEncoderError, is_initialized
from .settings import Setting, check_registered_name, declared_by_class


@dataclass(frozen=True)
class RelationEncoderSpec:
    """
    One entry of the registry.

    Args:
        name (`str`): The name that the configuration uses.
        encoder (`type[RelationEncoder]`): The class.
        settings (`tuple[Setting]`): What its `Settings` declare.
        reference (`str`): Who published it.
    """

    name: str
    encoder: type[RelationEncoder]
    settings: tuple[Setting, ...] = ()
    reference: str = ""

    def build(self, config) -> RelationEncoder:
        """
        A new relation encoder.

        Args:
            config (`CommConfig`): The model's.

        Raises:
            `RelationEncoderError`: The class does not call `super().__init__(config)`.
        """
        encoder = self.encoder(config)
        if not is_initialized(encoder):
            raise RelationEncoderError(self.encoder, "super().__init__(config)", "in its __init__")
        return encoder


_REGISTRY: dict[str, RelationEncoderSpec] = {}


def register_relation_encoder(name: str, *, reference: str = "") -> Callable[[type], type]:
    """
    Class decorator that makes a [`RelationEncoder`] known as `CommConfig(relation_encoder=name)`.

    The settings of its class `Settings` become fields of the configuration and flags of the training script. A model that uses
    an encoder from a file of your own saves that file beside its weights, so that it loads again as remote code.

    Args:
        name (`str`): The name that the configuration uses.
        reference (`str`, *optional*): Who published it.

    Raises:
        `ValueError`: The name cannot serve or is taken by another class, the class is not a `RelationEncoder`, or a
            setting lacks a type or a default, or has the name of a field that `CommConfig` has already.
        `RelationEncoderError`: The class does not define `forward`.
    """

    check_registered_name("register_relation_encoder", name)

    def register(encoder):
        owner = f"register_relation_encoder({name!r})"
        if not (isinstance(encoder, type) and issubclass(encoder, RelationEncoder)):
            raise ValueError(f"{owner}: {encoder!r} is not a subclass of RelationEncoder")
        known = _REGISTRY.get(name)
        if known is not None and _full_name(known.encoder) != _full_name(encoder):
            raise ValueError(f"{owner}: the name is taken by {_full_name(known.encoder)}")
        settings = declared_by_class(encoder.Settings, owner)
        if encoder.forward is RelationEncoder.forward:
            raise RelationEncoderError(encoder, "forward(documents)")
        _REGISTRY[name] = RelationEncoderSpec(name, encoder, settings, reference)
        return encoder

    return register


def _full_name(encoder):
    return f"{encoder.__module__}.{encoder.__qualname__}"


def available_relation_encoders() -> list[str]:
    """Registered names, sorted."""
    return sorted(_REGISTRY)


def get_relation_encoder(name: str) -> RelationEncoderSpec:
    """
    Looks up a registered relation encoder.

    Args:
        name (`str`): One of [`available_relation_encoders`].

    Raises:
        `ValueError`: Nothing is registered under that name; the message lists what is.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"relation encoder {name!r} is not registered; expected one of {available_relation_encoders()}"
        )
    return _REGISTRY[name]
