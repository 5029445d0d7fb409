"""One comparison for everything that is resumed: a run continues with the settings that it started with, and with no others."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

_MOST_SHOWN = 6  # changes in a message; other relations alone are as many changes as relations


class SettingsChangedError(ValueError):
    """
    A folder or file was made with other settings.

    Attributes:
        place (`str`): the folder or file.
        changed (`dict[str, tuple]`): by setting, the value that it had and the one that it has. Names of nested ones have
            dots.
    """

    def __init__(self, place: str | os.PathLike, changed: Mapping[str, tuple], advice: str):
        self.place, self.changed, self.advice = str(place), dict(changed), advice
        changes = [_change(name, *values) for name, values in self.changed.items()]
        if len(changes) > _MOST_SHOWN:
            changes[_MOST_SHOWN:] = [f"and {len(changes) - _MOST_SHOWN} more"]
        super().__init__(f"{place} has other settings: {'; '.join(changes)}. {advice}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.changed, self.advice)


def check_unchanged(before: Mapping, now: Mapping, place: str | os.PathLike, advice: str) -> None:
    """
    Compares settings with those that were stored.

    Args:
        before (`Mapping`), now (`Mapping`): settings, as JSON has them; they may be nested.
        place (`str` or `Path`): where the old ones were found, for the message.
        advice (`str`): what the user can do.

    Raises:
        SettingsChangedError: some differ. One that is missing on one side is taken for None.
    """
    before, now = dict(_flat(before)), dict(_flat(now))
    changed = {name: (before.get(name), now.get(name)) for name in before | now if before.get(name) != now.get(name)}
    if changed:
        raise SettingsChangedError(place, changed, advice)


def _flat(settings, prefix="") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _change(name, was, now):
    """A change in words; of two lists the first difference."""
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        index = next(index for index in range(len(was)) if was[index] != now[index])
        return f"{name}[{index}] was {was[index]!r}, is {now[index]!r}"
    return f"{name} was {_shown(was)}, is {_shown(now)}"


def _shown(value):
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} from {value[0]!r} to {value[-1]!r}"
    return repr(value)
