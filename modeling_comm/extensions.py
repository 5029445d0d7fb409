"""Tools for a user's own relation encoder or loss, whose file is saved with each checkpoint that uses it.

Transformers copies the modules that a model class imports. A registered extension is imported by the user, not by the
model, so its file is copied here, and a small entry module that imports it first becomes what the Auto classes load.
"""

import ast
import copy
import importlib.util
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig
from transformers.dynamic_module_utils import custom_object_save

from .grouped_bilinear import GroupedBilinear
from .loss_base import check_inputs, reduce_losses, relation_distances, relation_values
from .losses import *  # noqa: F403
from .losses import FUNCTIONS, get_loss, is_built_in_loss, register_loss
from .number_types import at_least_float32
from .pair_grids import PairGrids
from .relation_encoder_base import (
    EncodedDocuments,
    RelationEncoder,
    project_with_entity,
)
from .relation_encoders import get_relation_encoder, is_built_in_encoder, register_relation_encoder
from .saved_folder import destination_of
from .settings import AtLeast, InRange, MultipleOf

# A user's file imports these from the installed package; its copy beside a checkpoint imports them from here.
__all__ = [
    "AtLeast",
    "EncodedDocuments",
    "GroupedBilinear",
    "InRange",
    "MultipleOf",
    "PairGrids",
    "RelationEncoder",
    "at_least_float32",
    "check_inputs",
    "project_with_entity",
    "reduce_losses",
    "register_loss",
    "register_relation_encoder",
    "relation_distances",
    "relation_values",
]
__all__ += FUNCTIONS

ENTRY_MODULE = "extended_comm"
_PACKAGE = "modeling_comm"
_IMPORTED = set()  # names of a user's own modules


class ExtensionError(ValueError):
    """
    A user's own relation encoder or loss cannot be imported, or cannot be saved with a model.

    Args:
        file (`str`): Its file, or its name where there is no file.
        found (`str`): What is wrong.
        expected (`str`): What would serve.
        line (`int`, *optional*): The line of the file.
    """

    def __init__(self, file: str, found: str, expected: str, line: int | None = None):
        where = file if line is None else f"{file}, line {line}"
        super().__init__(f"{where}: found {found}; expected {expected}")
        self.file, self.found, self.expected, self.line = file, found, expected, line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.found, self.expected, self.line)


def import_extensions(files: Iterable[str | os.PathLike] | None) -> None:
    """
    Imports a user's own files, so that the names which they register are known.

    Raises:
        ExtensionError: there is no such file, it is not Python's, or another module has its name.
        ImportError: it fails.
    """
    for file in map(Path, files or ()):
        if file.suffix != ".py" or not file.is_file():
            raise ExtensionError(str(file), "no such file", "a Python file")
        taken = importlib.util.find_spec(file.stem) if file.stem.isidentifier() else None
        if taken and file.stem not in _IMPORTED and Path(taken.origin or "").resolve() != file.resolve():
            raise ExtensionError(str(file), f"a module {file.stem!r} that exists already", "another name")
        _IMPORTED.add(file.stem)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # of any kind: it is the user's code
            raise ImportError(f"--extensions {file}: {type(error).__name__}: {error}") from error


def extension_files(config: PreTrainedConfig) -> list[Path]:
    """Source files of the relation encoder and the loss that `config` names and that do not come with the library.

    Raises:
        ExtensionError: one of them is defined in the running script, so that there is no module to copy, or its file's name is
            taken.
    """
    loss = get_loss(config.loss).function
    extensions: list[Any] = (
        [] if is_built_in_encoder(config.relation_encoder) else [get_relation_encoder(config.relation_encoder).encoder]
    )
    if not is_built_in_loss(config.loss):
        extensions.append(loss)
    files = []
    for extension in extensions:
        file = _source_file(extension)
        if file not in files:
            files.append(file)
    for file in files:
        own = Path(__file__).absolute().with_name(file.name)
        if not file.stem.isidentifier():
            raise ExtensionError(str(file), "a name that cannot be imported", "letters, digits and underscores")
        taken = file.stem == ENTRY_MODULE or (own != file and own.exists())
        if taken or sum(other.name == file.name for other in files) > 1:
            raise ExtensionError(str(file), "another file of this name that the model is saved with", "another name")
    return files


def _source_file(extension):
    try:
        file = inspect.getsourcefile(inspect.unwrap(extension))
    except (OSError, TypeError):  # typed in, or from a module that is not kept
        file = None
    if file is None or extension.__module__ == "__main__":
        name = getattr(extension, "__qualname__", repr(extension))
        expected = "a module of its own, whose file can be saved with the model"
        raise ExtensionError(name, "that the running script defines it", expected)
    return Path(file).absolute()


def save_extensions(config: PreTrainedConfig, save_directory: str | os.PathLike) -> None:
    """Adds the files of `config`'s extensions to a saved model, and an entry module that the Auto classes load.

    Raises:
        ExtensionError: a file imports `modeling_comm` or a neighbour in a way that cannot be followed, or is where the model will
            be.
    """
    files = extension_files(config)
    if not files:
        return
    folder = Path(save_directory)
    auto_classes = {
        "AutoConfig": ("configuration_comm", "CommConfig"),
        "AutoModel": ("modeling_comm", "CommForDocumentRelationExtraction"),
    }
    # The library's modules come first, so that what the own files register is checked against its fields.
    lines = [
        '"""Written on save: registers this model\'s own relation encoder or loss before anything is loaded."""',
        "",
        *(f"from .{module} import {name}  # noqa: F401" for module, name in auto_classes.values()),
    ]
    for file in files:
        if Path(destination_of(folder), file.name).resolve() == file.resolve():
            raise ExtensionError(str(file), "it where its copy would be saved", "another folder for the model")
        (folder / file.name).write_text(_relocated(file, folder), encoding="utf-8")
        lines.append(f"from .{file.stem} import *  # noqa: F403")
    (folder / f"{ENTRY_MODULE}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config_file = folder / "config.json"
    saved = json.loads(config_file.read_text(encoding="utf-8"))
    saved["auto_map"] = {auto: f"{ENTRY_MODULE}.{name}" for auto, (_, name) in auto_classes.items()}
    config_file.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_extensions(model: nn.Module) -> None:
    """Raises what saving the code of `model`'s own encoder or loss would raise."""
    if not extension_files(model.config):
        return
    config = copy.deepcopy(model.config)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        custom_object_save(model, folder, config=config)
        save_extensions(config, folder)


def _relocated(file, folder):
    """The file's text with its imports from the package made relative to the files in `folder`."""
    source = file.read_text(encoding="utf-8")
    rows = source.encode().split(b"\n")  # columns of `ast` count bytes
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    # From the end, so that positions stay true.
    for node in sorted(imports, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            if any(name.split(".")[0] == _PACKAGE for name in names):
                raise ExtensionError(file.name, ast.unparse(node), f"from {_PACKAGE} import NAME", node.lineno)
            continue
        package, _, module = (node.module or "").partition(".")
        if node.level > 0:
            module = node.module
        elif package != _PACKAGE:
            continue
        elif not module:
            module = "extensions"
            unknown = sorted(set(names) - set(__all__))
            if unknown:
                expected = f"from {_PACKAGE} these alone: {', '.join(__all__)}"
                raise ExtensionError(file.name, ", ".join(unknown), expected, node.lineno)
        if node.level > 1 or module is None or not (folder / f"{module}.py").is_file():
            expected = "no other file of yours, because none is saved with the model; move here what it imports"
            raise ExtensionError(file.name, ast.unparse(node), expected, node.lineno)
        first, last = node.lineno - 1, node.end_lineno - 1
        before, after = rows[first][: node.col_offset], rows[last][node.end_col_offset :]
        relative = ast.unparse(ast.ImportFrom(module, node.names, level=1))
        rows[first : last + 1] = [before + relative.encode() + after]
    return b"\n".join(rows).decode()
