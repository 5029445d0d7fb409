"""Imports that wait until they are needed."""

import importlib
import importlib.abc
import sys


class _Follower(importlib.abc.MetaPathFinder):
    """Imports a module as soon as another one has been imported, whoever imports that."""

    def __init__(self):
        self.waiting: dict[str, str] = {}

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.waiting:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_both(module):
                execute(module)
                importlib.import_module(self.waiting[fullname])

            spec.loader.exec_module = execute_both  # of this loader alone, which is made anew for each import
        return spec


_FOLLOWER = _Follower()


def import_after(module: str, follower: str) -> None:
    """
    Imports `follower` right after `module`: now where `module` is imported already, else when somebody imports it.

    Args:
        module (`str`): A module that is slow to import, by its full name.
        follower (`str`): A module that has to be there whenever `module` is used. It may import `module` itself.
    """
    if module in sys.modules:
        importlib.import_module(follower)
        return
    _FOLLOWER.waiting[module] = follower
    if _FOLLOWER not in sys.meta_path:
        sys.meta_path.insert(0, _FOLLOWER)


def of_extra(extra: str) -> str:
    """The end of a message about a package that is missing: how to install it. This library is in no package index."""
    return f', of the extra {extra!r}: pip install -e ".[{extra}]" in a clone of comm-docre'
