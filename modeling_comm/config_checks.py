"""Checks of configuration fields that Transformers takes without a look, and then fails on in words of its own, or not at all."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .settings import SettingError

_POSITIVE = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"),
    *("intermediate_size", "dim", "n_layers", "n_heads", "hidden_dim", "embedding_size", "type_vocab_size"),
)
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation")


def read_fields(source: Any, **hub: Any) -> dict[str, Any]:
    """
    The fields of a `config.json`.

    Args:
        source (`str`): folder or repository, or the file itself.
        hub: `cache_dir`, `revision`, `token`, `subfolder`, `local_files_only`.

    Raises:
        `ValueError`: it holds no object.
        `OSError`: there is none, or it is no JSON.
    """
    try:
        fields = PreTrainedConfig.get_config_dict(source, **hub)[0]
    except OSError as error:
        if Path(source).exists():
            raise
        # Without a network Transformers does not say what it looked for, and a mistyped folder is a name for the Hub.
        raise OSError(f"{source}: found no model, neither in a folder here nor on the Hub ({error})") from error
    except (AttributeError, TypeError):  # what Transformers raises for a number or null
        fields = None
    except RecursionError as error:
        raise ValueError(f"{str(source)!r}: config.json is nested too deep ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{str(source)!r}: config.json holds no object; expected the fields of a configuration")
    return fields


@contextlib.contextmanager
def plain_errors(owner: str) -> Iterator[None]:
    """Errors of Transformers' own checks of fields within the context are `ValueError`s that begin with `owner`."""
    try:
        yield
    except StrictDataclassError as error:
        cause = error.__cause__
        raise (cause if isinstance(cause, ValueError) else ValueError(f"{owner}: {cause or error}")) from None


def check_given_fields(fields: Mapping[str, Any], owner: str = "CommConfig") -> None:
    """
    Checks fields before Transformers' own configuration class gets them.

    Args:
        fields (`Mapping[str, Any]`): as a `config.json` has them.
        owner (`str`, defaults to `"CommConfig"`): what has the fields, for the message.

    Raises:
        `SettingError`: a field does not fit.
    """
    for field in ("dtype", "torch_dtype"):
        if not _is_dtype(fields.get(field)):
            raise SettingError(owner, field, fields[field], "the name of a floating-point type, such as 'float32'")
    kinds = fields.get("architectures")
    if kinds is not None and not (isinstance(kinds, (list, tuple)) and all(isinstance(kind, str) for kind in kinds)):
        raise SettingError(owner, "architectures", kinds, "a list of names of classes")
    if not isinstance(fields.get("model_type", ""), str):
        raise SettingError(owner, "model_type", fields["model_type"], "the name of a kind of model, such as 'bert'")
    pad = fields.get("pad_token_id")
    if pad is not None and (not isinstance(pad, int) or isinstance(pad, bool)):
        raise SettingError(owner, "pad_token_id", pad, "an integer")


def check_text_config(text_config: PreTrainedConfig) -> None:
    """
    Checks the sizes and names of a backbone's configuration.

    Args:
        text_config (`PreTrainedConfig`): the backbone's.

    Raises:
        `SettingError`: a field does not fit.
    """
    from transformers.activations import ACT2FN  # takes seconds, which importing this library should not

    owner = "CommConfig.text_config"
    for field in _POSITIVE:
        size = vars(text_config).get(field)  # what is stored: XLNet computes a number of positions of -1
        is_unused = field == "type_vocab_size" and size == 0  # DeBERTa's
        if isinstance(size, (int, float)) and size < 1 and not is_unused:
            raise SettingError(owner, field, size, "an integer of 1 or more")
    for field in _ACTIVATIONS:
        name = getattr(text_config, field, None)
        if isinstance(name, str) and name not in ACT2FN:
            raise SettingError(owner, field, name, f"one of {', '.join(map(repr, ACT2FN))}")
    pad, size = getattr(text_config, "pad_token_id", None), getattr(text_config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(size, int) and not -size <= pad < size:
        raise SettingError(owner, "pad_token_id", pad, f"an id of the vocabulary, below {size}")


def _is_dtype(value):
    if isinstance(value, str):
        value = getattr(torch, value.removeprefix("torch."), value)
    return value is None or value == "auto" or (isinstance(value, torch.dtype) and value.is_floating_point)
