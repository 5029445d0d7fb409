"""Settings that are declared where they are used: by a loss, as keyword arguments, and by a relation encoder, as its `Settings`.

A declaration is a type, with ranges and help in `Annotated`, and a default:

```python
margin: Annotated[float, InRange(0, 1), "Distance from the threshold."] = 0.2
```

The fields of the configuration, the flags of the training script, the checks and the rows of model cards are derived from it.
"""

import dataclasses
import difflib
import inspect
import itertools
import math
import textwrap
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}

# Names that belong to the configuration itself, to the processor or to Transformers. `configuration_comm` fills it in.
RESERVED_FIELDS: set[str] = set()


class SettingError(ValueError):
    """
    A value that does not fit.

    Args:
        owner (`str`): What has the field, such as `"CommConfig"`.
        field (`str`): The field's name.
        value (`Any`): What was found.
        expected (`str`): What is allowed.
    """

    def __init__(self, owner: str, field: str, value: Any, expected: str):
        super().__init__(f"{owner}: {field} is {value!r}; expected {expected}")
        self.owner, self.field, self.value, self.expected = owner, field, value, expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner, self.field, self.value, self.expected)


def check_field(holder: Any, field: str, fits: bool, expected: str) -> None:
    """
    Checks one field of an object.

    Args:
        holder (`Any`): The object, such as a [`CommConfig`].
        field (`str`): The field's name.
        fits (`bool`): Whether its value is allowed.
        expected (`str`): What is allowed, in words.

    Raises:
        `SettingError`: The value does not fit.
    """
    if not fits:
        raise SettingError(type(holder).__name__, field, getattr(holder, field), expected)


def plain_number(value: Any) -> Any:
    """A number of NumPy or another library as Python's own, which JSON can hold; anything else, booleans too, as it is."""
    if isinstance(value, (bool, int, float)):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """
    The known names that were probably meant: those in which a prefix comes before `name`, such as `cmm_margin` for `margin`, or
    else the most similar one, if any is.

    Args:
        name (`str`): A name that is not known.
        known (`Iterable[str]`): The known names.
    """
    known = sorted(known)
    without_prefix = [one for one in known if one.endswith(f"_{name.lstrip('-')}")]
    return without_prefix or difflib.get_close_matches(name, known, n=1, cutoff=0.75)


class NameTakenError(ValueError):
    """
    Something else is registered under a name.

    Args:
        owner (`str`): What registers, such as `"register_loss"`.
        name (`str`): The name.
        taken_by (`str`): What has it.
    """

    def __init__(self, owner: str, name: str, taken_by: str):
        super().__init__(f"{owner}: the name {name!r} is taken by {taken_by}; expected another name")
        self.owner, self.name, self.taken_by = owner, name, taken_by

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner, self.name, self.taken_by)


class WrongResultError(ValueError):
    """
    A registered loss or relation encoder returned what it may not.

    Args:
        owner (`str`): Which one.
        found (`str`): What it returned.
        expected (`str`): What it should return.
    """

    def __init__(self, owner: str, found: str, expected: str):
        super().__init__(f"{owner} returned {found}; expected {expected}")
        self.owner, self.found, self.expected = owner, found, expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner, self.found, self.expected)


def check_result(owner: str, result: Any, shape: tuple[int, ...], meaning: str) -> None:
    """
    Checks what a registered loss or relation encoder returned.

    Args:
        owner (`str`): How the error calls it.
        result (`Any`): What it returned.
        shape (`tuple[int]`): The expected shape.
        meaning (`str`): What the shape stands for, in words.

    Raises:
        `WrongResultError`: The result is not a floating tensor of that shape.
    """
    import torch  # here, because scoring, which does without it, needs the errors of this module

    if isinstance(result, torch.Tensor) and result.is_floating_point() and tuple(result.shape) == tuple(shape):
        return
    is_tensor = isinstance(result, torch.Tensor)
    found = f"a {result.dtype} tensor of shape {tuple(result.shape)}" if is_tensor else f"a {type(result).__name__}"
    raise WrongResultError(owner, found, f"a floating tensor of shape {tuple(shape)}, {meaning}")


def check_registered_name(decorator: str, name: Any) -> None:
    """Raises [`SettingError`] where a decorator has no name, or one that cannot begin the name of a field."""
    if not (isinstance(name, str) and name.isidentifier()):
        raise SettingError(decorator, "name", name, f'letters, digits and underscores, as in @{decorator}("my_name")')


def full_name(registered: Callable | type) -> str:
    """Module and name of a function or a class, by which a registry knows it again after its module was reloaded."""
    return f"{registered.__module__}.{registered.__qualname__}"


@dataclass(frozen=True)
class AtLeast:
    """Range of a number: `low <= value`."""

    low: float

    def __contains__(self, value: float) -> bool:
        return value >= self.low

    def __str__(self) -> str:
        return f">= {self.low}"


@dataclass(frozen=True)
class InRange:
    """Range of a number: `low <= value < high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value < self.high

    def __str__(self) -> str:
        return f"in [{self.low}, {self.high})"


@dataclass(frozen=True)
class MultipleOf:
    """Range of an integer: a multiple of `factor`."""

    factor: int

    def __contains__(self, value: int) -> bool:
        return value % self.factor == 0

    def __str__(self) -> str:
        return f"that is a multiple of {self.factor}"


_RANGES = (AtLeast, InRange, MultipleOf)


@dataclass(frozen=True)
class Setting:
    """
    One declared setting.

    Args:
        field (`str`): Its field in the configuration, which is also its flag.
        keyword (`str`): Its name where it is declared.
        type (`Any`): `bool`, `int`, `float`, `str`, a `Literal` of texts, `dict[str, float]`, `dict[str, int]`, or one of them
            `| None`.
        default (`Any`): Value where none is given.
        ranges (`tuple`): Each number has to be in all of them; see [`AtLeast`], [`InRange`], [`MultipleOf`].
        help (`str`): What it is, for people.
    """

    field: str
    keyword: str
    type: Any
    default: Any
    ranges: tuple = ()
    help: str = ""

    @property
    def kind(self) -> Any:
        """The type without `| None`."""
        return _without_none(self.type)

    @property
    def is_mapping(self) -> bool:
        """Returns whether it maps relations to numbers."""
        return get_origin(self.kind) is dict

    @property
    def expected(self) -> str:
        """The allowed values, in words."""
        return self.expected_of_value if self.kind is self.type else f"{self.expected_of_value}, or None"

    @property
    def expected_of_value(self) -> str:
        """The allowed values but for None, in words, such as a flag takes them."""
        words = _describe(get_args(self.kind)[1] if self.is_mapping else self.kind, self.ranges)
        return f"a mapping of relations to {words}" if self.is_mapping else words

    def fits(self, value: Any) -> bool:
        """Returns whether `value` has the type and is in the ranges."""
        if value is None:
            return self.kind is not self.type
        if self.is_mapping:
            number = get_args(self.kind)[1]
            return isinstance(value, dict) and all(_fits(number, one, self.ranges) for one in value.values())
        return _fits(self.kind, value, self.ranges)

    def check(self, holder: Any) -> None:
        """Raises [`SettingError`] where the value of `holder` does not fit."""
        check_field(holder, self.field, self.fits(getattr(holder, self.field)), self.expected)


def declared_by_function(function: Callable, owner: str, prefix: str, after: str) -> tuple[Setting, ...]:
    """
    The settings that a function declares: its keyword arguments after one of them.

    Args:
        function (`Callable`): The function.
        owner (`str`): How errors call it.
        prefix (`str`): What the names of its fields begin with.
        after (`str`): The last argument that is no setting.

    Raises:
        `ValueError`: An argument lacks a type or a default, or has a type or a default that cannot serve, or its field belongs
            to the configuration itself.
    """
    parameters = inspect.signature(function).parameters
    if after not in parameters:
        raise ValueError(f"{owner}: the arguments are {', '.join(parameters)}; expected {after!r} among them")
    names = list(parameters)
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    entries = []
    for name in names[names.index(after) + 1 :]:
        if parameters[name].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise ValueError(
                f"{owner}: found the argument {parameters[name]}; expected settings with names of their own"
            )
        entries.append((name, hints.get(name), parameters[name].default))
    return check_names(owner, _declare(owner, prefix, entries, inspect.getdoc(function)))


def declared_by_class(declaration: type, owner: str) -> tuple[Setting, ...]:
    """
    The settings that a class declares: its public attributes, those of its bases first.

    Args:
        declaration (`type`): The class.
        owner (`str`): How errors call it.

    Raises:
        `ValueError`: As for [`declared_by_function`].
    """
    hints = get_type_hints(declaration, include_extras=True)
    plain = {
        name: value
        for base in reversed(declaration.__mro__[:-1])
        for name, value in vars(base).items()
        if not (name.startswith("_") or callable(value) or isinstance(value, (classmethod, staticmethod, property)))
    }
    names = dict.fromkeys([*hints, *plain])
    entries = [(name, hints.get(name), plain.get(name, inspect.Parameter.empty)) for name in names]
    return check_names(owner, _declare(owner, "", entries, inspect.getdoc(declaration)))


def declared_by_dataclass(declaration: type) -> dict[str, Setting]:
    """The settings that a dataclass of the library declares, by field; they need not be fields of the configuration. A field
    whose metadata have `is_setting` False is none."""
    hints = get_type_hints(declaration, include_extras=True)
    fields = [field for field in dataclasses.fields(declaration) if field.metadata.get("is_setting", True)]
    entries = [(field.name, hints[field.name], field.default) for field in fields]
    settings = _declare(declaration.__name__, "", entries, inspect.getdoc(declaration))
    return {setting.field: setting for setting in settings}


def check_names(owner: str, settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """The settings; raises `ValueError` where the field of one belongs to the configuration itself or to Transformers."""
    for setting in settings:
        if setting.field in RESERVED_FIELDS:
            raise ValueError(
                f"{owner}: the setting {setting.keyword!r} would be the field {setting.field!r} of CommConfig, which exists "
                "already; expected another name"
            )
    return settings


def described_arguments(docstring: str | None) -> dict[str, str]:
    """The texts of a docstring's section `Args:`, by argument, on one line each."""
    after = (docstring or "").partition("Args:\n")[2].splitlines()
    section = itertools.takewhile(lambda line: not line or line.startswith(" "), after)
    found, name = {}, None
    for line in textwrap.dedent("\n".join(section)).splitlines():
        if line and not line.startswith(" "):
            heading, _, text = line.partition(": ")
            name = heading.partition(" ")[0].removesuffix(":")
            found[name] = text if heading != line else ""
        elif name:
            found[name] += f" {line.strip()}"
    return {name: " ".join(text.split()) for name, text in found.items()}


def _declare(owner, prefix, entries, docstring):
    described = described_arguments(docstring)
    settings = []
    for name, hint, default in entries:
        if hint is None:
            raise ValueError(f"{owner}: the setting {name!r} has no type; expected one such as `{name}: float = 1.0`")
        if default is inspect.Parameter.empty:
            raise ValueError(
                f"{owner}: the setting {name!r} has no default; expected one such as `{name}: float = 1.0`"
            )
        type_, extras = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
        if not _is_allowed(_without_none(type_)):
            raise ValueError(
                f"{owner}: the setting {name!r} has the type {type_}; expected bool, int, float, str, a Literal of texts, "
                "dict[str, float], dict[str, int], or one of them | None"
            )
        ranges = tuple(extra for extra in extras if isinstance(extra, _RANGES))
        texts = [extra for extra in extras if isinstance(extra, str)] or [described.get(name, "")]
        setting = Setting(f"{prefix}{name}", name, type_, default, ranges, texts[0])
        if not setting.fits(default):
            raise SettingError(f"{owner}, default", name, default, setting.expected)
        settings.append(setting)
    return tuple(settings)


def _without_none(type_):
    if get_origin(type_) in (Union, types.UnionType):
        rest = [one for one in get_args(type_) if one is not type(None)]
        return rest[0] if len(rest) == 1 else type_
    return type_


def _is_allowed(kind):
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind in (*_WORDS, dict[str, float], dict[str, int])


def _describe(kind, ranges):
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    return " ".join([_WORDS[kind], *map(str, ranges)])


def _fits(kind, value, ranges):
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind in (int, float):
        numbers = int if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers) or not math.isfinite(value):
            return False
        return all(value in one for one in ranges)
    return isinstance(value, kind)
