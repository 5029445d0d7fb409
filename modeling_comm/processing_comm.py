"""Documents to model inputs and model outputs to triples."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Self, cast

import numpy as np
import torch
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import ModelOutput, logging

from .both_directions import labels_both_ways, show_both_ways
from .candidate_pairs import ALL_PAIRS, CandidatePairs
from .configuration_comm import (
    IS_REMOTE_CODE,
    PROCESSOR_FIELDS,
    THRESHOLD_LABEL,
    CommConfig,
    usable_positions,
)
from .decoding import (
    DecisionSettings,
    Predictions,
    TripleInWords,
    add_evidence,
    check_outputs,
    decide_batch,
    warn_of_removed,
)
from .documents import Document, validate_document
from .encode_document import encode_document
from .evidence import collate_evidence, default_evidence_threshold
from .features import (
    DocumentFeatures,
    ModelInputs,
    asked_relations,
    encoding_report,
    no_document,
    pad_rows,
    pair_labels,
    pair_rows,
    what_was_lost,
)
from .losses import get_loss
from .other_labels import HUB_ARGUMENTS
from .processor_settings import check_processor_settings, refuse_assignment, refuse_misspelt, settings_for_labels
from .rules import Rule, check_rules
from .saved_folder import SavedTogether
from .subword_tokens import read_tokenizer, tokenize_words
from .windows import (
    entities_of_windows,
    mentions_in_windows,
    sentence_spans,
    split_document,
    window_row,
    window_tokens,
)

logger = logging.get_logger(__name__)


class CommProcessor(SavedTogether, ProcessorMixin):
    r"""
    Turns DocRED documents into what [`CommForDocumentRelationExtraction`] takes, and its outputs into triples.

    Documents of any length: one longer than `window_size` is cut into overlapping windows, of which the last ends with the
    document. Nothing is truncated unless `max_length` is given.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the backbone's, a fast one or one written in Python.
        id2label (`dict[int, str]`, *optional*): the threshold class and the relations, as in [`CommConfig`].
        relation_names (`dict[str, str]`, *optional*): readable names of labels, e.g. `{"P17": "country"}`.
        markers (`str`, defaults to `"star"`): what marks mentions: `"star"`, `"entity_type"` (DocuNet's `[unusedK]`, BERT
            vocabularies only) or `"none"`.
        marker_types (`Sequence[str]`, *optional*): entity types that `"entity_type"` markers tell apart, 25 at most; by default
            DocRED's, as in DocuNet. An entity of another type is an error.
        window_size (`int`, defaults to 512): length in subword tokens, special tokens included, of what the backbone sees at
            once.
        window_stride (`int`, defaults to 128): subword tokens that neighbouring windows of a longer document share at least
            (the meaning of `stride` in Transformers' tokenizers). 0 gives the originals' two windows.
        window_end_tokens (`int`, defaults to 1): end tokens that close every window but the last; the original RoBERTa
            systems put 2.
        word_leading_space (`bool`, defaults to `True`): byte-level tokenizers (RoBERTa's) read every word with its leading
            space, as in running text. The original systems left it out, and checkpoints converted from them need `False`.
        decision_threshold, threshold_offset, max_relations_per_pair, evidence_threshold, fusion_threshold, fusion_range,
            probability_map, type_constraint, relation_types: as in [`~decision_settings.DecisionSettings`], which the attribute
            `decision` holds:
            `processor.decision.threshold_offset = 1.0` changes one; what changes another setting is [`with_settings`].
        rules (`list[str]`, *optional*): rules such as `"P17(x, y) => P131(x, y)"`, see [`~rules.Rule`]. What follows from the
            predicted triples is added to them.
        candidate_pairs, directed, symmetric, inverse: as in [`~candidate_pairs.CandidatePairs`], which the attribute `candidates`
            holds: which pairs the model is asked about.

    Raises:
        ValueError: a setting does not fit, or the tokenizer cannot serve (no padding token, a marker missing in
            its vocabulary ...).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        id2label: Mapping[int, str] | None = None,
        relation_names: Mapping[str, str] | None = None,
        markers: str = "star",
        window_size: int = 512,
        window_stride: int = 128,
        window_end_tokens: int = 1,
        word_leading_space: bool = True,
        decision_threshold: str = "th",
        threshold_offset: float = 0.0,
        max_relations_per_pair: int | None = None,
        evidence_threshold: float | None = None,
        fusion_threshold: float | None = None,
        fusion_range: float | None = None,
        probability_map: Any = None,
        type_constraint: str = "none",
        relation_types: Any = None,
        rules: Iterable[Rule | str] | None = None,
        candidate_pairs: Iterable[tuple[str, str]] | None = None,
        directed: bool | None = True,
        symmetric: Iterable[str] | None = None,
        inverse: Mapping[str, str] | None = None,
        marker_types: Sequence[str] | None = None,
    ):
        labels = {int(index): label for index, label in (id2label or {0: THRESHOLD_LABEL}).items()}
        self.id2label = {index: labels[index] for index in sorted(labels)}  # columns of logits are read off this order
        self.relation_names = relation_names or {}
        self.markers = markers
        self.marker_types = list(marker_types) if isinstance(marker_types, tuple) else marker_types
        self.window_size = window_size
        self.window_stride = window_stride
        self.window_end_tokens = window_end_tokens
        self.word_leading_space = word_leading_space
        thresholds = (decision_threshold, threshold_offset, max_relations_per_pair, evidence_threshold)
        fusion = (fusion_threshold, fusion_range)
        self.decision = DecisionSettings(*thresholds, probability_map, *fusion, type_constraint, relation_types)
        self.candidates = CandidatePairs(candidate_pairs, directed is not False, symmetric or (), inverse or {})
        self.rules = [str(rule) for rule in check_rules(rules or (), self.relations_of_rules)]
        super().__init__(tokenizer)
        check_processor_settings(self)
        self._traits = read_tokenizer(tokenizer, markers, word_leading_space, self.marker_types)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_traits" in vars(self):  # the end of __init__, which checks the settings together
            refuse_assignment(name, CommProcessor.setting_names())
        super().__setattr__(name, value)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike, *args: Any, trust_remote_code: bool = False, **kwargs: Any
    ) -> Self:
        """
        Loads a saved processor; see [`ProcessorMixin.from_pretrained`] for all arguments.

        Args:
            trust_remote_code (`bool`, defaults to `False`): whether code that the tokenizer's files name may run. Without
                it such a tokenizer is refused; nothing is asked on the terminal.
            kwargs: settings in place of the saved ones, and what Transformers and the tokenizer take.

        Raises:
            TypeError: an argument is nearly a setting's name: it is misspelt.
            ValueError: a setting does not fit.
        """
        refuse_misspelt("CommProcessor.from_pretrained", kwargs, cls.setting_names())
        trusted = trust_remote_code is True  # Transformers asks where it is None
        return super().from_pretrained(pretrained_model_name_or_path, *args, trust_remote_code=trusted, **kwargs)

    @classmethod
    def from_config(cls, tokenizer: PreTrainedTokenizerBase, config: CommConfig, **settings: Any) -> "CommProcessor":
        """
        Processor for a new model.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): the backbone's.
            config ([`CommConfig`]): the model's. Labels come from it, the decision threshold from its loss, the evidence
                threshold (0.2 or none) from its `evidence_weight`, and the windows from what its backbone can take: 512 subword
                tokens or less, a quarter of them shared.
            settings: other arguments of the class, in place of these or of its defaults; None is the default.

        Raises:
            ValueError: a setting does not fit, or the backbone cannot take the windows.
        """
        settings = {name: value for name, value in settings.items() if value is not None}
        window_size = settings.get("window_size", min(512, usable_positions(config.text_config)))
        defaults = {
            "id2label": config.id2label,
            "window_size": window_size,
            "window_stride": window_size // 4 if isinstance(window_size, int) else None,
            "decision_threshold": get_loss(config.loss).decision_threshold,
            "evidence_threshold": default_evidence_threshold(config.evidence_weight),
        }
        processor = cls(tokenizer, **{**defaults, **settings})
        processor.check_model(config)
        return processor

    @classmethod
    def from_backbone(
        cls, backbone: str, config: CommConfig, trust_remote_code: bool = False, **settings: Any
    ) -> "CommProcessor":
        """
        As [`from_config`], with the tokenizer of a bare encoder.

        Args:
            backbone (`str`): name or folder of the encoder.
            config ([`CommConfig`]): the model's.
            trust_remote_code (`bool`, defaults to `False`): as in [`from_pretrained`].
            settings: as in [`from_config`]; others, such as `revision` and `token`, are for `AutoTokenizer.from_pretrained`.

        Raises:
            TypeError: an argument is nearly a setting's name: it is misspelt.
            ValueError: as in [`from_config`].
        """
        own = {name: settings.pop(name) for name in cls.setting_names() if name in settings}
        refuse_misspelt("CommProcessor.from_backbone", settings, cls.setting_names())
        trusted = trust_remote_code is True  # Transformers asks where it is None
        return cls.from_config(
            AutoTokenizer.from_pretrained(backbone, trust_remote_code=trusted, **settings), config, **own
        )

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> tuple[dict, dict]:
        settings, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        missing = set(PROCESSOR_FIELDS) - set(settings)
        if missing:  # saved when the configuration held them
            hub = {name: kwargs[name] for name in (*HUB_ARGUMENTS, "force_download") if name in kwargs}
            config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
            settings |= {field: config[field] for field in missing & set(config)}
        return settings_for_labels(settings, kwargs.get("id2label")), unused

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Names of the arguments that decide how documents are encoded and decided: all but tokenizer and labels."""
        return tuple(name for name in inspect.signature(cls).parameters if name not in ("tokenizer", "id2label"))

    @property
    def settings(self) -> dict:
        """The values of [`setting_names`]."""
        saved = self.to_dict()
        return {name: saved.get(name) for name in self.setting_names()}

    def with_settings(self, **settings: Any) -> "CommProcessor":
        """A processor with the same tokenizer and labels that differs in these settings."""
        return type(self)(self.tokenizer, id2label=self.id2label, **{**self.settings, **settings})

    def check_model(self, config: CommConfig) -> None:
        """Raises `ValueError` where a model's labels are not the processor's, or its backbone cannot take the windows or the
        tokenizer's ids."""
        if self.id2label != config.id2label:
            raise ValueError(f"id2label is {self.id2label} in the processor; expected the model's, {config.id2label}")
        longest = usable_positions(config.text_config)
        if self.window_size > longest:
            raise ValueError(
                f"window_size is {self.window_size}; expected at most {longest}, what the backbone can take"
            )
        last, size = max(self.tokenizer.get_vocab().values(), default=0), config.text_config.vocab_size  # type: ignore[union-attr]
        if last >= size:
            raise ValueError(
                f"the tokenizer has the id {last}; expected ids below {size}, the size of the backbone's embedding (vocab_size)"
            )

    @property
    def model_input_names(self) -> list[str]:
        return list(ModelInputs.__annotations__)

    def to_dict(self) -> dict:
        """The content of `processor_config.json`: the decision settings are beside the others, and of those of candidate pairs
        the ones that differ from their defaults."""
        saved = super().to_dict() | self.decision.to_dict()
        return {
            name: value for name, value in saved.items() if name not in CandidatePairs.field_names()
        } | self.candidates.given()

    @property
    def label2id(self) -> dict[str, int]:
        return {label: index for index, label in self.id2label.items()}

    # ------------------------------------------------------------------------------------------- documents to tensors

    def __call__(
        self,
        documents: Document | Iterable[Document],
        return_tensors: str = "pt",
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Encodes one document or a list of them.

        Args:
            documents (`Document` or `list[Document]`): in DocRED format. `labels` are returned if every document has them.
            return_tensors (`str`): `"pt"` only.
            max_length (`int`, *optional*): truncate documents to this many subword tokens, special tokens included. The
                loss is logged as a warning and counted in [`encode`]'s features. No truncation by default.

        Returns:
            [`BatchFeature`] with the arguments of the model's forward.

        Raises:
            DocumentError: a document is not in DocRED format; the message names document, field, value and expectation.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is {return_tensors!r}; expected 'pt'")
        if kwargs:
            raise ValueError(f"CommProcessor has no arguments {sorted(kwargs)}; truncation is asked for by max_length")
        documents = cast(list[Document], [documents] if isinstance(documents, dict) else list(documents))
        features = self.encode(documents, max_length=max_length)
        lost = what_was_lost(encoding_report(features))
        if lost:
            logger.warning("Encoding %d documents: %s", len(documents), lost)
        return BatchFeature(self.collate(features))

    def encode(
        self, documents: Iterable[Document], max_length: int | None = None, allow_unknown_relations: bool = False
    ) -> list[DocumentFeatures]:
        """
        One [`~features.DocumentFeatures`] per document: plain numbers, not padded, with counts of what was lost.

        Args:
            documents (`Iterable[Document]`): in DocRED format.
            max_length (`int`, *optional*): as for a call of the processor.
            allow_unknown_relations (`bool`, defaults to `False`): whether labels may have relations that the model does not
                have. They are counted and left out of `facts`. For documents that are scored, not for training.

        Raises:
            DocumentError: a document is not in DocRED format.
        """
        if max_length is not None and not (isinstance(max_length, int) and max_length > 2):
            raise ValueError(f"max_length is {max_length!r}; expected an integer > 2, the special tokens' number")
        documents = list(documents)
        relations = None if allow_unknown_relations else {*self.relations, *self.candidates.inverse}
        for index, document in enumerate(documents):
            validate_document(document, index=index, relations=relations, of_model=True)
            if allow_unknown_relations:  # but no label says "no relation"
                given = {fact["r"] for fact in document.get("labels") or ()}
                validate_document(document, index=index, relations=given - {self.id2label[0]})
        pieces = tokenize_words(self.tokenizer, documents, self._traits.leading_space)
        encode = partial(encode_document, pieces, self._traits, self.window_spans, self.label2id, self.candidates)
        return [encode(document, max_length) for document in documents]

    def _is_symmetric(self):
        """For each label, whether pairs are asked about it in one direction only, unlike about others."""
        mixed = self.candidates.directed
        return [mixed and label in self.candidates.symmetric for label in self.id2label.values()]

    def window_spans(self, length: int) -> list[tuple[int, int]]:
        """Spans `[start, end)` of document positions that the windows of a document of `length` subword tokens show."""
        return split_document(length, self.window_size, self.window_stride, self.window_end_tokens)

    def collate(self, features: list[DocumentFeatures]) -> ModelInputs:
        """
        Batches features from [`encode`] into the arguments of the model's forward. An empty list gives a batch without pairs,
        which a process that has no documents left can run beside the others.
        """
        features = features or [no_document(self._traits.start_id, self._traits.end_id)]
        rows, windows, window_mentions, window_entities = [], [], [], []
        end_ids = [self._traits.end_id] * self.window_end_tokens
        for document, feature in enumerate(features):
            tokens = feature["input_ids"]
            spans = self.window_spans(len(tokens))
            rows += [window_tokens(tokens, span, self._traits.start_id, end_ids) for span in spans]
            windows += [window_row(document, span) for span in spans]
            mentions = mentions_in_windows(spans, feature["mention_positions"])
            window_mentions += mentions
            window_entities += entities_of_windows(spans, mentions, feature["mention_entities"])
        sizes = [feature["num_entities"] for feature in features]
        pairs = [pair_rows(document, feature) for document, feature in enumerate(features)]
        lengths = torch.tensor([len(feature["input_ids"]) for feature in features])
        batch: Any = {
            "input_ids": pad_rows(rows, self.tokenizer.pad_token_id),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0),
            "windows": torch.tensor(windows),
            "window_mentions": pad_rows(window_mentions, -1),
            "window_entities": pad_rows(window_entities, -1),
            "document_mask": torch.arange(int(lengths.max())) < lengths[:, None],
            "mention_positions": pad_rows([feature["mention_positions"] for feature in features], -1),
            "mention_entities": pad_rows([feature["mention_entities"] for feature in features], -1),
            "entity_mask": torch.arange(max([1, *sizes])) < torch.tensor(sizes)[:, None],
            "pair_index": torch.from_numpy(np.concatenate(pairs)),
            "sentences": sentence_spans(features),
        }
        if (asked := asked_relations(features, self._is_symmetric())) is not None:
            batch["asked"] = asked
        if all(feature["has_labels"] for feature in features):
            batch["labels"] = torch.cat([pair_labels(feature, len(self.id2label)) for feature in features])
            batch |= collate_evidence(features, batch["sentences"])
        return batch

    # --------------------------------------------------------------------------------------------- outputs to triples

    def post_process_relation_extraction(
        self,
        outputs: ModelOutput,
        documents: Document | list[Document],
        threshold_offset: float | None = None,
        rules: Iterable[str] | None = None,
        both_directions: bool = False,
    ) -> list[list[TripleInWords]]:
        """
        Triples of every document, from the model's output for exactly these documents.

        A `fusion_threshold` is not looked at: asking twice needs the model. Where there is one, the logits have to be those of
        [`~evidence_fusion.fuse_evidence`], as the pipeline's are; with others this warns, once.

        Args:
            outputs (`CommOutput`): with `logits` `(P, R + 1)` and `pair_index` `(P, 3)`. These may be some of the pairs, where
                the model was given fewer in `pair_index`. Evidence also needs `documents`.
            documents (`Document` or `list[Document]`): what was given to the processor.
            threshold_offset (`float`, *optional*): a relation is predicted iff its margin over the threshold exceeds this; by
                default the processor's own.
            rules (`list[str]`, *optional*): rules that complete the triples; by default the processor's own, none with `[]`.
            both_directions (`bool`, defaults to `False`): give triples of symmetric and inverse relations both ways.

        Returns:
            per document a list of [`~decoding.TripleInWords`], by head, tail and falling score.

        Raises:
            ValueError: outputs and documents do not belong together, or logits are not finite.
        """
        documents = cast(list[Document], [documents] if isinstance(documents, dict) else list(documents))
        # Fused logits have 0 for the threshold class.
        if self.decision.fusion_threshold is not None and outputs["logits"][:, 0].any():
            logger.warning_once(
                "fusion_threshold is set, but these logits are of one pass over the documents: other triples than the "
                "pipeline's. Expected logits of modeling_comm.evidence_fusion.fuse_evidence, or fusion_threshold = None"
            )
        predictions = self.decide(outputs, documents, threshold_offset, rules)
        warn_of_removed(predictions, self.decision)
        shown = self.candidates if both_directions else ALL_PAIRS
        labels = labels_both_ways(self.id2label, shown)
        for one in predictions:
            one.triples = show_both_ways(one.triples, labels, shown)
        return [
            one.in_words(document, labels, self.relation_names)
            for one, document in zip(predictions, documents, strict=True)
        ]

    def decide(
        self,
        outputs: ModelOutput,
        documents: list[Document],
        threshold_offset: float | None = None,
        rules: Iterable[str] | None = None,
        type_constraint: str | None = None,
    ) -> list[Predictions]:
        """
        Decides on the model's output for exactly these documents; see [`post_process_relation_extraction`] for the arguments.
        `type_constraint` is by default the processor's own.

        Returns:
            one [`Predictions`] per document.
        """
        given: dict[str, Any] = {"threshold_offset": threshold_offset, "type_constraint": type_constraint}
        changed = {name: value for name, value in given.items() if value is not None}
        settings = dataclasses.replace(self.decision, **changed)
        logits, pair_index = outputs["logits"].detach().cpu(), outputs["pair_index"].detach().cpu()
        expected = [self.candidates.pairs(document) for document in documents]
        check_outputs(logits, pair_index, documents, expected, len(self.id2label))
        excluded = settings.excluded(documents, pair_index, self.id2label)
        predictions = decide_batch(logits, pair_index, len(documents), settings, excluded=excluded)
        predictions = self.complete(predictions, documents, rules)
        if (encoded := outputs.get("documents")) is not None and encoded.sentences is not None:
            add_evidence(predictions, encoded)
        return predictions

    def complete(
        self, predictions: list[Predictions], documents: Sequence[Document], rules: Iterable[str] | None = None
    ) -> list[Predictions]:
        """Adds the triples of these documents that follow by rules, by default by the processor's own."""
        checked = check_rules(self.rules if rules is None else rules, self.relations_of_rules)
        return [
            one.with_rules(checked, self.id2label, self.candidates, document)
            for one, document in zip(predictions, documents, strict=True)
        ]

    @property
    def relations(self) -> list[str]:
        """The labels but that of the threshold class."""
        return [label for index, label in self.id2label.items() if index != 0]

    @property
    def relations_of_rules(self) -> list[str]:
        """[`relations`], and those that are read as the inverse of one of them: rules may name both."""
        return [*self.relations, *self.candidates.inverse]


if not IS_REMOTE_CODE:
    AutoProcessor.register(CommConfig, CommProcessor, exist_ok=True)
    CommProcessor.register_for_auto_class()  # so that the code is saved with it
