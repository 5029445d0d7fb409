"""The files that weights are read from: safetensors, which hold numbers; never a pickle, which can run any code when read."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    has_file,
    is_peft_available,
)

# The files in which Transformers looks for weights: it takes the first one that exists.
_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
_FLOATS = {"F64", "F32", "F16", "BF16"}
_WEIGHT_NAMES = {"weight", "bias", "gamma", "beta"}
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """Without the table of missing and unused weights that Transformers prints where it loads a model."""
    logger = logging.getLogger(
        "transformers.modeling_utils"
    )  # a filter: where it has a level, Transformers checks more

    def is_error(record):
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


def check_weights(
    source: str | os.PathLike,
    advice: str,
    named: str | None = None,
    variant: str | None = None,
    adapter: str | os.PathLike | None = None,
    quantized: bool = False,
    **hub: Any,
) -> None:
    """
    Checks, before anything reads them, that a checkpoint's weights are safetensors of floating-point numbers.

    Args:
        source (`str`): folder or repository, or the file itself.
        advice (`str`): what the error tells to do with a pickle.
        named (`str`, *optional*): the file that the checkpoint's own configuration names (`transformers_weights`).
        variant (`str`, *optional*): as in Transformers' `from_pretrained`.
        adapter (`str`, *optional*): folder or repository of an adapter, where it is another one than `source`.
        quantized (`bool`, defaults to `False`): whether the configuration says how integers become weights.
        hub: `subfolder`, `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        ValueError: what would be read is a pickle, or holds integers that would be taken for weights, or is broken.
        OSError: there are no weights, or the repository cannot be reached.
    """
    check_name(source)
    names = [named] if named else [_with_variant(name, variant) for name in _WEIGHTS]
    files = _first_found(source, names, **hub)
    if not files:
        raise OSError(f"{str(source)!r} has no weights; expected {names[0]}")
    if is_peft_available():  # otherwise no adapter is read
        files += _first_found(adapter or source, _ADAPTER, **hub)
    pickles = [name for name in files if not name.endswith(".safetensors")]
    if pickles:
        raise ValueError(
            f"{str(source)!r} offers its weights as {', '.join(pickles)}: a pickle, which can run any code when it is read. "
            f"Expected safetensors. {advice}"
        )
    if not quantized:
        for name in files:
            if name not in _ADAPTER:
                _check_floats(source, name, **hub)


def _check_floats(source, name, subfolder="", **hub):
    """Integers would be converted to floats without their scale."""
    path = name if Path(source).is_file() else cached_file(source, name, subfolder=subfolder, **hub)
    try:
        with safe_open(path, "pt") as file:
            kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{str(source)!r}: {name} is broken ({error}); is the copy complete?") from error
    wrong = [key for key, kind in kinds.items() if key.rpartition(".")[2] in _WEIGHT_NAMES and kind not in _FLOATS]
    if wrong:
        raise ValueError(
            f"{str(source)!r}: {len(wrong)} weights in {name} are of the type {kinds[wrong[0]]}, such as {wrong[0]}; expected "
            "floating-point numbers, or a quantization_config that says how to read them"
        )


def check_name(path: str | os.PathLike | None) -> None:
    """Raises `ValueError` where the name of a folder or file is no UTF-8, which weights and tokenizers need."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{str(path)!r} is no UTF-8, which weights and tokenizers need; expected another name"
        ) from None


def _first_found(source, names, subfolder="", **hub):
    """The first one of the names that exists, as a list; of an index, the files that it lists; else an empty list."""
    if Path(source).is_file():
        return [str(source)]
    for name in names:
        if ".safetensors" not in name:  # not even downloaded
            if has_file(source, f"{subfolder}/{name}" if subfolder else name, **hub):
                return [name]
            continue
        path = cached_file(source, name, subfolder=subfolder, _raise_exceptions_for_missing_entries=False, **hub)
        if path and name.endswith(".json"):
            return sorted(set(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"].values()))
        if path:
            return [name]
    return []


def _with_variant(name, variant):
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{variant}.{ending}" if variant else name
