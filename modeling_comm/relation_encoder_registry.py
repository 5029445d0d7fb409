"""The registry of relation encoders: names, and the class and the settings that belong to each."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedConfig

from .relation_encoder_base import RelationEncoder, RelationEncoderError, is_initialized
from .settings import NameTakenError, Setting, SettingError, check_registered_name, declared_by_class, full_name


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

    def build(self, config: PreTrainedConfig) -> RelationEncoder:
        """
        A new relation encoder.

        Args:
            config (`CommConfig`): The model's.

        Raises:
            `RelationEncoderError`: The class does not call `super().__init__(config)`.
            `ValueError`: It has a buffer that a checkpoint would not hold.
        """
        encoder = self.encoder(config)
        if not is_initialized(encoder):
            raise RelationEncoderError(self.encoder, "super().__init__(config)", "in its __init__")
        _check_buffers(encoder)
        return encoder


def _check_buffers(relation_encoder):
    # Loading builds the model without memory and fills in what the checkpoint holds.
    for name, module in relation_encoder.named_modules():
        lost = sorted(module._non_persistent_buffers_set)
        if lost:
            raise ValueError(
                f"{type(relation_encoder).__name__} has the non-persistent buffers {lost} in {name or 'itself'}, which loading a "
                "checkpoint would leave uninitialised; expected register_buffer(..., persistent=True)"
            )


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
            raise SettingError(owner, "the decorated object", encoder, "a subclass of RelationEncoder")
        known = _REGISTRY.get(name)
        if known is not None and full_name(known.encoder) != full_name(encoder):
            raise NameTakenError("register_relation_encoder", name, full_name(known.encoder))
        settings = declared_by_class(encoder.Settings, owner)
        if encoder.forward is RelationEncoder.forward:
            raise RelationEncoderError(encoder, "forward(documents)")
        _REGISTRY[name] = RelationEncoderSpec(name, encoder, settings, reference)
        return encoder

    return register


def available_relation_encoders() -> list[str]:
    """Registered names, sorted."""
    return sorted(_REGISTRY)


def get_relation_encoder(name: str) -> RelationEncoderSpec:
    """
    Looks up a registered relation encoder.

    Args:
        name (`str`): One of [`available_relation_encoders`].

    Raises:
        `SettingError`: Nothing is registered under that name; the message lists what is.
    """
    if name not in _REGISTRY:
        known = ", ".join(map(repr, available_relation_encoders()))
        raise SettingError("get_relation_encoder", "name", name, f"one of {known}")
    return _REGISTRY[name]
