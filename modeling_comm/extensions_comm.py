"""What a user's own relation encoder or loss is built from, and how its file travels with a checkpoint that uses it.

Transformers copies the modules that a model class imports. A registered extension is imported by the user, not by the
model, so its file is copied here, and a small entry module that imports it first becomes what the Auto classes load.
"""

import ast
import inspect
import json
from pathlib import Path

from .encoder_base import (
    EncodedDocuments,
    GroupedBilinear,
    RelationEncoder,
    pool_entity_attention,
    pool_entity_embeddings,
    pool_pair_context,
)
from .encoders import get_relation_encoder, is_built_in_encoder, register_relation_encoder
from .losses import check_inputs, get_loss, reduce_losses, register_loss, relation_distances

# A user's file imports these from the installed package; its copy beside a checkpoint imports them from here.
__all__ = [
    "EncodedDocuments",
    "GroupedBilinear",
    "RelationEncoder",
    "check_inputs",
    "pool_entity_attention",
    "pool_entity_embeddings",
    "pool_pair_context",
    "reduce_losses",
    "register_loss",
    "register_relation_encoder",
    "relation_distances",
]

ENTRY_MODULE = "extended_comm"
_PACKAGE = "modeling_comm"


def extension_files(config) -> list[Path]:
    """Source files of the relation encoder and the loss that `config` names and that do not come with the library.

    Raises:
        ValueError: one of them is defined in the running script, so that there is no module to copy.
    """
    loss = get_loss(config.loss).function
    extensions = (
        [] if is_built_in_encoder(config.relation_encoder) else [get_relation_encoder(config.relation_encoder)]
    )
    if loss.__module__ != get_loss.__module__:
        extensions.append(loss)
    files = []
    for extension in extensions:
        file = inspect.getsourcefile(inspect.unwrap(extension))
        if file is None or extension.__module__ == "__main__":
            raise ValueError(
                f"{extension.__qualname__} is defined in the running script; put it in a module of its own, so that its "
                "file can be saved with the model"
            )
        if Path(file) not in files:
            files.append(Path(file))
    return files


def save_extensions(config, save_directory):
    """Adds the files of `config`'s extensions to a saved model, and an entry module that the Auto classes load.

    Raises:
        ValueError: a file imports `modeling_comm` in a way that cannot be followed.
    """
    files = extension_files(config)
    if not files:
        return
    folder = Path(save_directory)
    lines = [
        '"""Written on save: registers this model\'s own relation encoder or loss before anything is loaded."""',
        "",
    ]
    for file in files:
        source, defined = _relocated(file)
        (folder / file.name).write_text(source, encoding="utf-8")
        lines.append(f"from .{file.stem} import {defined}  # noqa: F401")
    auto_classes = {
        "AutoConfig": ("configuration_comm", "CommConfig"),
        "AutoModel": ("modeling_comm", "CommForDocumentRelationExtraction"),
    }
    lines += [f"from .{module} import {name}  # noqa: F401" for module, name in auto_classes.values()]
    (folder / f"{ENTRY_MODULE}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config_file = folder / "config.json"
    saved = json.loads(config_file.read_text(encoding="utf-8"))
    saved["auto_map"] = {auto: f"{ENTRY_MODULE}.{name}" for auto, (_, name) in auto_classes.items()}
    config_file.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _relocated(file):
    """The file's text with its imports from the package made relative, and the name of something that it defines."""
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    rows = source.splitlines(keepends=True)
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in sorted(imports, key=lambda node: -node.lineno):  # from the end, so that line numbers stay true
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == _PACKAGE for alias in node.names):
            raise ValueError(
                f"{file.name}, line {node.lineno}: write `from {_PACKAGE} import NAME`, so that the file can travel"
            )
        if not isinstance(node, ast.ImportFrom) or node.level or node.module.split(".")[0] != _PACKAGE:
            continue
        names = [alias.name for alias in node.names]
        module = node.module.partition(".")[2] or "extensions_comm"
        unknown = sorted(set(names) - set(__all__)) if module == "extensions_comm" else []
        if unknown:
            raise ValueError(
                f"{file.name}, line {node.lineno}: a model's own file can import {', '.join(__all__)} from {_PACKAGE}, "
                f"found {', '.join(unknown)}"
            )
        imported = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in node.names)
        rows[node.lineno - 1 : node.end_lineno] = [f"{' ' * node.col_offset}from .{module} import {imported}\n"]
    defined = next(node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)))
    return "".join(rows), defined
