"""How many public functions have full annotations: every argument and the result. `make quality` prints it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("modeling_comm", "dataset_scripts", "comm_docre.py", "run_docre.py")


class Function(NamedTuple):
    """A public function or method, and the names of what has no annotation."""

    file: Path
    name: str
    line: int
    untyped: list[str]


def public_functions() -> Iterator[Function]:
    """Functions and methods whose names, and those of their modules and classes, begin without an underscore; and the methods
    with two underscores at both ends, which others call by an operator."""
    for source in SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield from _of_body(file, ast.parse(file.read_text(encoding="utf-8")).body, "", in_class=False)


def _of_body(file, body, prefix, in_class):
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _of_body(file, node.body, f"{prefix}{node.name}.", in_class=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            special = in_class and node.name.startswith("__") and node.name.endswith("__")
            if special or not node.name.startswith("_"):
                yield Function(file, f"{prefix}{node.name}", node.lineno, _untyped(node, in_class))


def _untyped(node, in_class):
    parts = node.args
    arguments = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs, *filter(None, (parts.vararg, parts.kwarg))]
    static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
    missing = [one.arg for one in arguments[in_class and not static :] if one.annotation is None]
    # What `__init__` returns is known.
    return missing + ["result"] * (node.returns is None and node.name != "__init__")


def typed_share() -> tuple[int, int]:
    """How many are fully typed, and how many there are."""
    functions = list(public_functions())
    return sum(not function.untyped for function in functions), len(functions)


if __name__ == "__main__":
    print("{} of {} public functions are fully typed".format(*typed_share()))
