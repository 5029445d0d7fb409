"""Which entities of different documents are one: those to which a linker gives the same text."""

from collections.abc import Callable

from ..mentions import normalize_name, normalize_name_of_any_type
from ..prediction_record import PredictionRecord, RecordEntity
from ..settings import NameTakenError, SettingError, check_registered_name, full_name

# From an entity and the record of its document to what names the entity in the graph, or None where that is not known.
Linker = Callable[[RecordEntity, PredictionRecord], str | None]

DEFAULT_LINKER = "name_and_type"
_REGISTRY: dict[str, Linker] = {}


def register_linker(name: str) -> Callable[[Linker], Linker]:
    """
    Decorator that makes a linker known as `build_graph(..., linker=name)` and `comm-docre graph --linker name`.

    A linker takes an entity ([`~modeling_comm.prediction_record.RecordEntity`]) and the record of its document, and gives a text:
    all entities with the same text are one, and it is their id in the graph. An entity to which it gives None is linked by name
    and type.

    Args:
        name (`str`): The name.

    Raises:
        `SettingError`: The name cannot serve.
        `NameTakenError`: Another linker has it.
    """
    check_registered_name("register_linker", name)

    def register(linker):
        known = _REGISTRY.get(name)
        if known is not None and full_name(known) != full_name(linker):
            raise NameTakenError("register_linker", name, full_name(known))
        _REGISTRY[name] = linker
        return linker

    return register


def available_linkers() -> list[str]:
    """Registered names, sorted."""
    return sorted(_REGISTRY)


def get_linker(linker: str | Linker) -> Linker:
    """
    A registered linker; a function stays as it is.

    Args:
        linker (`str` or `Linker`): One of [`available_linkers`], or a function.

    Raises:
        `SettingError`: Nothing is registered under that name; the message lists what is.
    """
    if callable(linker):
        return linker
    if linker not in _REGISTRY:
        raise SettingError("get_linker", "linker", linker, f"one of {', '.join(map(repr, available_linkers()))}")
    return _REGISTRY[linker]


@register_linker(DEFAULT_LINKER)
def link_by_name_and_type(entity: RecordEntity, record: PredictionRecord) -> str | None:
    """The normalized name and the type: `"LOC:oslo"`. None if there is nothing of the name that can be read."""
    name = normalize_name(entity["name"], entity["type"])
    return f"{entity['type']}:{name}" if name else None


@register_linker("name")
def link_by_name(entity: RecordEntity, record: PredictionRecord) -> str | None:
    """The normalized name alone, for named-entity models that give a name now this type and now that one; see
    [`~modeling_comm.mentions.normalize_name_of_any_type`]."""
    return normalize_name_of_any_type(entity["name"]) or None


@register_linker("id")
def link_by_id(entity: RecordEntity, record: PredictionRecord) -> str | None:
    """The first of the entity's `ids` in a knowledge base; None if it has none."""
    return next(iter(entity.get("ids", ())), None) or None
