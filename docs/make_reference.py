"""
Prints `docs/reference.md`: names, types and defaults from signatures, docstrings and declarations of settings.

    python docs/make_reference.py > docs/reference.md

A docstring that lacks an argument, or has another default than the code, is an error.
"""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import comm_docre
import modeling_comm as comm
from modeling_comm import losses
from modeling_comm import relation_encoders as encoders
from modeling_comm.candidate_pairs import CandidatePairs
from modeling_comm.configuration_comm import OWN_FIELDS
from modeling_comm.decision_settings import DecisionSettings
from modeling_comm.reporting.markdown import join_cells
from modeling_comm.training import script_arguments
from modeling_comm.triple_selection import TripleSelection

HEADER = ("name", "type", "default", "what it is")
UNKNOWN = inspect.Parameter.empty
# What an entry of `Args:` begins with, such as "a (`int`, *optional*), b: ".
_NAME = r"(\w+)(?: \(((?:`[^`]*`|[^()`])*)\))?"
_HEAD = re.compile(rf"{_NAME}(?:, {_NAME})*: ")


def plain(docstring: str) -> str:
    """A docstring's text, its links as code: [`~module.name`] becomes `name`."""
    return re.sub(r"\[`(?:~[\w.]*\.)?([\w.]+)`\]", r"`\1`", inspect.cleandoc(docstring))


def first_sentence(documented: Any) -> str:
    """That of a docstring, on one line."""
    sentence = re.split(r"\n\n|(?<=\.)\s+(?=[A-Z])", plain(documented.__doc__))[0]
    return f"{' '.join(sentence.split()).rstrip('.')}."


def code(value: Any) -> str:
    """A value as Markdown's code, a text in quotes; nothing for one that is unknown."""
    return "" if value is UNKNOWN else f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def listed(names: Iterable[str]) -> str:
    """Names as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown."""
    return join_cells([*header], [[cell.replace("|", "\\|") for cell in row] for row in rows])


def defaults_of(function: Callable) -> dict[str, Any]:
    """The arguments that a function names, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.name != "self" and one.kind != one.VAR_KEYWORD}


def arguments(documented: Any, defaults: dict[str, Any] | None = None) -> str:
    """The table of what a docstring says of its arguments, or of these `defaults`; of several paragraphs it has the first. Raises
    `ValueError` where it lacks one of them, or has another default."""
    defaults = defaults_of(documented) if defaults is None else defaults
    section = re.search(r"(?ms)^Args:\n(.*?)(?=^\S|\Z)", plain(documented.__doc__))[1]
    rows, described = [], set()
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section).strip()):
        text = " ".join(entry.partition("\n\n")[0].split())
        head = _HEAD.match(text)
        if head is None:
            raise ValueError(f"{documented.__qualname__}: found {text!r}, expected NAME (`TYPE`): TEXT")
        about = dict(re.findall(_NAME, head[0]))
        types = dict.fromkeys(re.sub(r",? ?(\*optional\*|defaults to ).*", "", one) for one in about.values())
        values = {_default(documented, name, one, defaults) for name, one in about.items()}
        default = values.pop() if len(values) == 1 else ""
        rows.append((listed(about), ", ".join(filter(None, types)), default, text[head.end() :]))
        described |= about.keys()
    if missing := sorted(defaults.keys() - described):
        raise ValueError(f"{documented.__qualname__}: the docstring lacks {', '.join(missing)}")
    return table(HEADER, rows)


def _default(documented, name, about, defaults):
    said = re.search(r"defaults to (.+)", about)
    value = ast.literal_eval(said[1].strip("`")) if said else None if "*optional*" in about else UNKNOWN
    if said and value != defaults.get(name, value):
        found = f"the docstring has the default {value!r} of {name}, expected {defaults[name]!r}"
        raise ValueError(f"{documented.__qualname__}: {found}")
    return code(defaults.get(name, value)) or ("required" if name in defaults else "")


def section(level: str, documented: Any, defaults: dict[str, Any] | None = None, more: str = "") -> str:
    """Heading, first sentence and arguments of a function or a class."""
    heading = f"{level} {documented.__name__}\n\n{first_sentence(documented)} {more}"
    return f"{heading.rstrip()}\n\n{arguments(documented, defaults)}"


def fields(declaration: type, prefix: str = "") -> str:
    """The table of the fields that a dataclass itself declares, with their help."""
    # Not by the fields' own types: Transformers' parser of arguments changes these.
    types = {name: f"`{inspect.formatannotation(one)}`" for name, one in inspect.get_annotations(declaration).items()}
    own = [declaration.__dataclass_fields__[name] for name in types]
    rows = ((f"`{prefix}{one.name}`", types[one.name], code(one.default), one.metadata["help"]) for one in own)
    return table(HEADER, rows)


def methods(owner: type) -> str:
    """The table of the public methods that this library gives a class, and describes."""
    rows = {}
    for base in owner.__mro__:
        for name, value in vars(base).items() if base.__module__.startswith("modeling_comm.") else ():
            function = getattr(value, "__func__", value)  # of a class method
            if inspect.isfunction(function) and function.__doc__ and not name.startswith("_"):
                _self, *parameters = inspect.signature(function).parameters.values()
                call = inspect.Signature([one.replace(annotation=UNKNOWN) for one in parameters])
                rows.setdefault(name, (f"`{name}{call}`", first_sentence(function)))
    return table(("method", "what it does"), rows.values())


def registered(specs: list[Any], registered_as: str) -> str:
    """The tables of losses or relation encoders, and of their settings; the attribute `registered_as` has the description."""
    own = (
        (f"`{spec.name}`", listed(one.field for one in spec.settings), first_sentence(getattr(spec, registered_as)))
        for spec in specs
    )
    settings = {setting.field: setting for spec in specs for setting in spec.settings}.values()
    rows = ((f"`{one.field}`", one.expected, code(one.default), plain(one.help)) for one in settings)
    return f"{table(('name', 'settings', 'what it is'), own)}\n\n{table(HEADER, rows)}"


def page() -> str:
    """The text of the page. What others have registered is not on it."""
    model, processor = comm.CommForDocumentRelationExtraction, comm.CommProcessor
    pipeline = comm.DocumentRelationExtractionPipeline
    # What a call passes to these two: its signature has only `kwargs` for it.
    taken, used = defaults_of(pipeline._sanitize_parameters), defaults_of(pipeline.postprocess)
    of_call = defaults_of(pipeline.__call__) | {name: used.get(name, default) for name, default in taken.items()}
    of_config = {one.name: one.default for one in dataclasses.fields(comm.CommConfig) if one.name in OWN_FIELDS}
    of_pairs = {name: defaults_of(processor)[name] for name in CandidatePairs.field_names()}
    names_of_losses = filter(losses.is_built_in_loss, losses.available_losses())
    names_of_encoders = filter(encoders.is_built_in_encoder, encoders.available_relation_encoders())
    groups = ("ModelArguments", "DataArguments", "DistillationArguments", "RunArguments")
    commands = ((f"`{name}`", summary) for name, summary in comm_docre.SUMMARIES.items())
    parts = (
        "# Reference",
        "Arguments, fields, flags and their defaults. `docs/make_reference.py` prints this page from the code.",
        "## Pipeline",
        'A call of `pipeline("document-relation-extraction", model=...)`, see [Your own text](your_text.md).',
        arguments(pipeline.__call__, of_call),
        section("###", TripleSelection),
        section("##", processor),
        methods(processor),
        section("###", processor.post_process_relation_extraction),
        section("###", DecisionSettings, more="All fields are arguments of `CommProcessor`."),
        section("###", CandidatePairs, of_pairs, "All fields are arguments of `CommProcessor`."),
        section("##", comm.CommConfig, of_config, "Further fields are settings of its loss and its relation encoder."),
        f"## {model.__name__}\n\n{first_sentence(model)}",
        *(section("###", method) for method in (model.from_backbone, model.forward, model.set_labels)),
        "## Losses",
        "In the formulas `t` are a pair's logits, `t_0` that of the threshold class, `d` is a relation's logit minus `t_0`, "
        "`s` the logistic function, `P` the pair's gold relations, `N` its others. [Choosing](choosing.md) compares losses.",
        registered([losses.get_loss(name) for name in names_of_losses], "function"),
        "## Relation encoders",
        registered([encoders.get_relation_encoder(name) for name in names_of_encoders], "encoder"),
        "## CommTrainingArguments",
        "Fields of its own, and those of Transformers' `TrainingArguments` with another default or meaning.",
        fields(comm.CommTrainingArguments),
        section("##", comm.CommTrainer),
        methods(comm.CommTrainer),
        "## run_docre.py",
        "Its own flags; see [Training](training.md). Fields of `CommConfig` and `CommTrainingArguments`, and settings of losses "
        "and relation encoders, are flags of the same names.",
        *(fields(getattr(script_arguments, name), "--") for name in groups),
        "## comm-docre",
        "`comm-docre COMMAND --help` explains the flags of each command.",
        table(("command", "what it gives"), commands),
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(page())
