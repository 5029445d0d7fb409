"""A data set as one entry: everything that loader, scorer, cards and scripts have to know of it, and the registry of entries."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ..candidate_pairs import CandidatePairs
from ..settings import NameTakenError, SettingError

# The distantly supervised documents are many times the others and often not wanted: they are loaded when they are named.
DEFAULT_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """
    The publisher of documents, and the terms of use.

    Args:
        name (`str`): what its authors call it.
        license, language (`str` or `list[str]`): as the Hub spells them, such as `"mit"` and `"en"`.
        description (`str`): Markdown: what the documents are, where they are from, and who states the licence.
        citation (`str`, *optional*): BibTeX.
        domain (`str`, *optional*): the kind of text, such as `"English Wikipedia"`.
        hub_name (`str`, *optional*): `"owner/name"`, by which a model card names what the model was trained on.
    """

    name: str
    license: str | Sequence[str]
    language: str | Sequence[str]
    description: str
    citation: str | None = None
    domain: str | None = None
    hub_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """
    The file of a split.

    Args:
        name (`str`): what it is called in a folder of the data set; `.gz` may follow.
        address (`str`, *optional*): where it is published.
        documents (`int`, *optional*): how many it has there.
        source ([`DatasetSource`], *optional*): where its documents come from.
    """

    name: str
    address: str | None = None
    documents: int | None = None
    source: DatasetSource | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """
    A data set.

    Args:
        name (`str`): the value of `--dataset_config`.
        title (`str`): its name in words.
        files (`dict[str, DatasetFile]`): by split: `"train"`, `"validation"`, `"test"`, and `"train_distant"` for documents that
            were labelled without people.
        null_label (`str`, defaults to `"Na"`): the label of the threshold class, where no `rel2id.json` says another one.
        entity_types (`tuple[str, ...]`): types that mentions have.
        type_words (`dict[str, str]`): by entity type, the word that stands for it where names are masked, if its own name is
            not what a text would say, see [`~modeling_comm.data.masked_names.mask_names`].
        candidate_pairs (`tuple[tuple[str, str], ...]`, *optional*), directed (`bool`, defaults to `True`), symmetric
            (`tuple[str, ...]`), inverse (`dict[str, str]`): which pairs of entities its relations are asked about, see
            [`~modeling_comm.candidate_pairs.CandidatePairs`]. A model that is trained on it keeps them.
        format (`str`, *optional*): what its files are in, a name of [`~modeling_comm.formats.available_formats`]. Files that do
            not look like it are DocRED's JSON. By default the files are DocRED's JSON, or in the format that they look like.
        relation_info_address (`str`, *optional*): where the names of its relations are published (`rel_info.json`).
        frequent_relations (`frozenset[str]`, *optional*): the relations that its own evaluation calls frequent; it has one score
            for these and one for all others.
        scores (`tuple[str, ...]`): names of the scores that its field has beside F1 and Ign F1, see
            [`~modeling_comm.evaluation.field_scores`].
        published_statistics (`dict[str, str]`): figures that were published of it, by their names in
            [`~dataset_scripts.describe.describe_documents`].

    Example:

    ```python
    >>> from modeling_comm.data import DatasetEntry, DatasetFile, get_dataset, register_dataset
    >>> files = {"train": DatasetFile(name="letters.json"), "test": DatasetFile(name="later_letters.json")}
    >>> entry = register_dataset(DatasetEntry(name="letters", title="Letters", files=files, null_label="no_relation"))
    >>> get_dataset("letters").files["test"].name
    'later_letters.json'

    ```
    """

    name: str
    title: str
    files: Mapping[str, DatasetFile]
    null_label: str = "Na"
    entity_types: tuple[str, ...] = ()
    type_words: Mapping[str, str] = field(default_factory=dict)
    candidate_pairs: tuple[tuple[str, str], ...] | None = None
    directed: bool = True
    symmetric: tuple[str, ...] = ()
    inverse: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    relation_info_address: str | None = None
    frequent_relations: frozenset[str] | None = None
    scores: tuple[str, ...] = ()
    published_statistics: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.candidates  # a wrong one is refused here
        words, types = self.type_words, self.entity_types
        if not all(isinstance(word, str) and word.strip() for word in words.values()):
            raise SettingError("DatasetEntry", "type_words", words, "a word or several for each type")
        if unknown := sorted(set(words) - set(types)) if types else []:
            raise SettingError("DatasetEntry", "type_words", unknown, f"entity_types, which are {', '.join(types)}")

    @property
    def candidates(self) -> CandidatePairs:
        """The pairs of entities that its relations are asked about."""
        return CandidatePairs(**{name: getattr(self, name) for name in CandidatePairs.field_names()})

    def published_sources(self, files: Mapping[str, Mapping]) -> dict[str, dict]:
        """
        Sources of the files that were read from their public addresses, for the record of a run and its card. A file
        from anywhere else is the user's own, whatever its name.

        Args:
            files (`dict[str, dict]`): by split, what [`~dataset_scripts.provenance.read_provenance`] returned.

        Returns:
            `dict[str, dict]`: by split, the fields of its [`DatasetSource`].
        """
        return {
            split: asdict(self.files[split].source)
            for split, file in files.items()
            if split in self.files and self.files[split].source and self.files[split].address == file["source"]
        }


_DATASETS: dict[str, DatasetEntry] = {}


def register_dataset(entry: DatasetEntry) -> DatasetEntry:
    """
    Makes an entry known by its name, and returns it.

    Raises:
        NameTakenError: another entry has this name.
    """
    if _DATASETS.setdefault(entry.name, entry) != entry:
        raise NameTakenError("register_dataset", entry.name, "another data set")
    return entry


def get_dataset(name: str) -> DatasetEntry:
    """
    The entry of this name.

    Raises:
        SettingError: none is registered.
    """
    if name not in _DATASETS:
        raise SettingError("get_dataset", "name", name, f"one of {', '.join(available_datasets())}")
    return _DATASETS[name]


def available_datasets() -> list[str]:
    """Names of all registered data sets."""
    return sorted(_DATASETS)


# The user's own documents, of which nothing else is known. The default.
LOCAL = register_dataset(
    DatasetEntry(
        name="local",
        title="local files",
        files={
            "train": DatasetFile(name="train.json"),
            "validation": DatasetFile(name="dev.json"),
            "test": DatasetFile(name="test.json"),
            "train_distant": DatasetFile(name="train_distant.json"),
        },
    )
)
