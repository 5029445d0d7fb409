"""Predictions that were made for other documents or other labels than those of the truth: found, said, and where they have names
for ids, read all the same."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..documents import Document, OfficialPrediction
from .scoring import LabelledDocument, PredictionError


def check_same_entities(
    names: Sequence[str], document: LabelledDocument, truth: str, source: str | None = None, index: int | None = None
) -> None:
    """
    Checks that a record has the entities of the labelled document with its title; a triple's indices mean nothing otherwise.

    Args:
        names (`Sequence[str]`): the names of the record's entities.
        document ([`~modeling_comm.evaluation.scoring.LabelledDocument`]): the labelled document.
        truth (`str`): where that is from, for the message.
        source (`str`, *optional*), index (`int`, *optional*): where the record is from, for the message.

    Raises:
        PredictionError: the record has more or fewer entities, or one whose name none of the document's mentions has.
    """
    if len(names) != len(document.entities):
        found, expected = f"{len(names)} entities", f"the {len(document.entities)} of this document in {truth}"
        raise PredictionError(source, index, document.title, "entities", found, expected)
    for number, (name, mentions) in enumerate(zip(names, document.entities, strict=True)):
        known = list(dict.fromkeys(mention["name"] for mention in mentions))
        if name not in known:
            expected = f"a name of this entity in {truth}: {', '.join(map(repr, known))}"
            raise PredictionError(source, index, document.title, f"entities[{number}].name", repr(name), expected)


def translate_relations(
    facts: Iterable[OfficialPrediction], relations: Collection[str], names: Mapping[str, str]
) -> tuple[list[OfficialPrediction], int]:
    """
    Reads names of relations as ids, or ids as names, where only so the truth has them.

    Args:
        facts (`Iterable[OfficialPrediction]`): predictions in the official format.
        relations (`Collection[str]`): what the truth calls its relations.
        names (`Mapping[str, str]`): readable names by id.

    Returns:
        `tuple[list[OfficialPrediction], int]`: the predictions, and how many of them were changed.
    """
    facts = list(facts)
    meanings = relation_meanings({fact["r"] for fact in facts}, relations, names)
    result: list[OfficialPrediction] = [
        {**fact, "r": meanings[fact["r"]]} if fact["r"] in meanings else fact for fact in facts
    ]
    return result, sum(fact["r"] in meanings for fact in facts)


def relation_meanings(given: Iterable[str], relations: Collection[str], names: Mapping[str, str]) -> dict[str, str]:
    """
    What relations that the truth does not have mean there: a name the id that it is of, or an id its name.

    Args:
        given (`Iterable[str]`): relations of predictions.
        relations (`Collection[str]`): what the truth calls its relations.
        names (`Mapping[str, str]`): readable names by id.

    Returns:
        `dict[str, str]`: the relations of the truth by those that are given; without those that need no translation or have
        none.
    """
    ids: dict[str, list[str]] = {}  # a name may be that of several relations, not all of which the truth has
    for key, name in names.items():
        ids.setdefault(name.casefold(), []).append(key)
    meanings = {}
    for relation in given:
        possible = [*ids.get(relation.casefold(), ()), *filter(None, [names.get(relation)])]
        meant = next((one for one in possible if one in relations), None)
        if relation not in relations and meant is not None:
            meanings[relation] = meant
    return meanings


def mismatch_warnings(
    result: dict, facts: Collection[OfficialPrediction], documents: Collection[Document]
) -> list[str]:
    """
    Says where most predictions have titles or relations that the truth does not have: such scores are 0 for another reason than
    the model.

    Args:
        result (`dict`): what [`~modeling_comm.evaluation.scoring.score`] returned for them.
        facts (`Collection[OfficialPrediction]`), documents (`Collection[Document]`): predictions and truth.
    """
    titles = {document["title"]: None for document in documents}
    relations = {label["r"]: None for document in documents for label in document.get("labels") or ()}
    warnings = []
    for key, field, known in (("unknown_titles", "title", titles), ("unknown_relations", "r", relations)):
        total = result["distinct_predictions"]
        if 2 * result[key] <= total:
            continue
        found = (fact[field] for fact in facts)  # type: ignore[literal-required]
        example = next((one for one in found if one not in known), None)
        if example is None:  # relations whose labels are all on ignored pairs are known
            continue
        there = f"such as {next(iter(known))!r}" if known else "of which there are none"
        what = {"title": "titles", "r": "relations"}[field]
        hint = {
            "title": "are these the predictions for this file?",
            "r": "--rel_info FILE says which names mean which ids",
        }
        warnings.append(
            f"{result[key]:,} of {total:,} predictions have {what} that the truth does not have, such as {example!r}, and count "
            f"as wrong; the truth has {what} {there}; {hint[field]}"
        )
    return warnings
