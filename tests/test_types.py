"""Annotations: which functions have them. That they are right is checked by mypy, in `make quality`."""

from helpers import ROOT
from typed_share import public_functions


def test_public_functions_are_fully_typed():
    functions = list(public_functions())
    untyped = [
        f"{one.file.relative_to(ROOT)}:{one.line} {one.name}: {', '.join(one.untyped)}"
        for one in functions
        if one.untyped
    ]
    print(f"{len(functions) - len(untyped)} of {len(functions)} public functions are fully typed")
    assert not untyped, "\n".join(untyped)
    assert any(one.name == "CommProcessor.__call__" for one in functions)
