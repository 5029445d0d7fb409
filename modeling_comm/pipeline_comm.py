"""Raw text in, relation triples out: COMM as a Transformers pipeline."""

import dataclasses
import difflib
import inspect
import itertools
import os
import traceback
from collections.abc import Callable, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import AutoModel, AutoProcessor, Pipeline, PreTrainedModel, ProcessorMixin
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from .both_directions import labels_both_ways, show_both_ways
from .candidate_pairs import ALL_PAIRS
from .configuration_comm import IS_REMOTE_CODE, TASK
from .document_input import is_document, read_document_input
from .documents import DocumentError
from .evidence_fusion import fuse_evidence
from .features import what_was_lost
from .number_types import warn_of_slow_bfloat16
from .out_of_memory import DocumentSize, naming_documents
from .prediction_record import RECORD_VERSION, PredictionRecord
from .processing_comm import CommProcessor
from .rules import Rule, check_rules
from .saved_folder import replacing_folder
from .settings import SettingError, plain_number
from .triple_selection import RelatedPairs, TripleSelection, type_warnings

logger = logging.get_logger(__name__)

_SMALLER = (
    "a shorter document, fewer entities, or half the memory a number with dtype=torch.bfloat16 (`--dtype bfloat16`)"
)
# Number of batches that are read ahead, and within which documents are sorted by length.
LOOKAHEAD_BATCHES = 8
# What a record takes over of a triple in words.
_TRIPLE_FIELDS = ("head", "tail", "relation", "relation_name", "score", "probability", "derived")


class LoadingArguments(dict):
    """Arguments that a model was loaded with (`trust_remote_code`, `token`, ...), for loading its processor. Copies and
    pickles of it are empty: a model that is pickled must not take an access token along."""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()


class DocumentRelationExtractionPipeline(Pipeline):
    """
    Relation triples of documents, by [`CommForDocumentRelationExtraction`].

    ```python
    >>> from transformers import pipeline
    >>> import modeling_comm  # registers the task
    >>> extractor = pipeline("document-relation-extraction", model="outputs/demo")
    >>> oslo = {"type": "LOC", "mentions": [{"start": 0, "end": 4}]}
    >>> norway = {"type": "LOC", "mentions": [{"start": 23, "end": 29}]}
    >>> record = extractor({"text": "Oslo is the capital of Norway.", "entities": [oslo, norway]})
    >>> names = [entity["name"] for entity in record["entities"]]
    >>> [(names[triple["head"]], triple["relation_name"], names[triple["tail"]]) for triple in record["triples"]]
    ```

    Args:
        model ([`CommForDocumentRelationExtraction`]): by `pipeline(...)` also a name or folder.
        processor ([`CommProcessor`], `str` or `os.PathLike`, *optional*): the model's, or its name or folder; by default it is
            loaded from where the model was. One of another name does not have the model's `subfolder` and `revision`. Code
            that its files name runs only if the model was loaded with `trust_remote_code=True`; nothing is asked.
        ner, coreference, sentence_splitter, threshold_offset, type_constraint, rules, both_directions, max_sentences, batch_size,
            and the fields of [`~triple_selection.TripleSelection`]: as in a call, for all calls.
        kwargs: as of any pipeline, such as `device`.
    """

    _load_processor = False  # done here: `pipeline` would ask on stdin whether a checkpoint's code may run
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    def __init__(
        self, model: PreTrainedModel, processor: CommProcessor | str | os.PathLike | None = None, **kwargs: Any
    ):
        if model.config.model_type != "comm":
            raise ValueError(f"{TASK}: the model is a {type(model).__name__}; expected a COMM model")
        if processor is None or isinstance(processor, (str, os.PathLike)):
            processor = _load_processor(model, None if processor is None else os.fspath(processor))
        # Not by its class: a checkpoint's own code has one of the same name.
        if not (isinstance(processor, ProcessorMixin) and hasattr(processor, "check_model")):
            expected = "a CommProcessor, or the name or folder of one"
            raise ValueError(f"{TASK}: found the processor {processor!r:.100}; expected {expected}")
        if kwargs.get("tokenizer") not in (None, processor.tokenizer):
            raise ValueError(f"{TASK}: found a tokenizer; expected processor=CommProcessor(...), which has its own")
        processor.check_model(model.config)
        self._related_pairs = RelatedPairs()
        self._postprocess_params: dict[str, Any] = {}
        super().__init__(model, processor=processor, **{"task": TASK, **kwargs})
        warn_of_slow_bfloat16(self.device, self.model.dtype, "load it with dtype=torch.float32 (`--dtype float32`)")

    def __call__(
        self, inputs: Any, batch_size: int | None = None, show_progress_bar: bool = False, **kwargs: Any
    ) -> Any:
        """
        Extracts triples.

        Args:
            inputs: one document or many: a list, a generator, a `datasets` object or a column of one, a PyTorch data set, a data
                frame of pandas as a list of its rows. [`~document_input.read_document_input`] has all forms of a document.

                - in DocRED's format, `{"title", "sents", "vertexSet"}` (labels are not looked at), or
                - `{"text", "entities": [{"mentions": [{"start", "end"}, ...], "type", "name"}, ...], "title"}`, or
                - `{"text", "mentions": [{"start", "end", "type"}, ...], "title"}`, whose mentions are grouped into entities, see
                  [`~mentions.group_mentions`], or
                - a text or `{"text", "title"}`, whose mentions `ner` finds, or
                - a spaCy `Doc`, its JSON, or a line of Prodigy's.

                Offsets count characters, the end exclusive; type, name and title may be left out or None. Types of a text's
                entities become DocRED's, unless the checkpoint knows them by their own name.
            batch_size (`int`, *optional*): documents that the model sees at once, 1 by default.
            show_progress_bar (`bool`, defaults to `False`): over many documents.
            ner (`Callable`, *optional*): finds mentions in a bare text, see [`~mentions.find_mentions`]. Where it finds none in
                all documents of a list, that is a warning.
            coreference (`Callable`, *optional*): groups mentions instead of the rules, see [`~mentions.group_mentions`].
            sentence_splitter (`Callable`, *optional*): instead of the rules, see [`~text_to_document.document_from_text`].
            threshold_offset (`float`, *optional*): a relation is predicted iff its margin over the threshold exceeds this; by
                default the checkpoint's own, which is 0 unless it was tuned.
            type_constraint (`str`, *optional*): with `"hard"` a relation is predicted only between types of head and tail that it
                had in training, if the checkpoint knows these; `"none"` does without; by default the checkpoint's own. Entities
                without a type are never left out. Rules are applied afterwards: what they add is not held back.
            rules (`list[str]`, *optional*): rules such as `"P17(x, y) => P131(x, y)"`: what follows from the predicted triples is
                added to them, and says so; by default the checkpoint's own, none with `[]`.
            both_directions (`bool`, defaults to `False`): give triples of symmetric and inverse relations, and of undirected
                data, both ways. The other direction says so: it is `derived`.
            max_sentences (`int`, defaults to 3): sentences of an explanation at most; with 0 none is computed.
            min_score, top_k, top_k_per_pair, relations, head_types, tail_types: which of the triples are wanted, all by default;
                see [`~triple_selection.TripleSelection`]. The others are counted in `lost`, as `triples_not_selected`. Of one
                document or a list, a type that no entity has is a warning.

        Returns:
            [`~prediction_record.PredictionRecord`] for one document, a list of them for a list or tuple, else a generator,
            which reads ahead 8 batches at most (a single document if `batch_size` is 1). Records come in the order of the
            inputs, ready for JSON. The text of a DocRED document is its tokens and sentences, joined by spaces. Triples are
            sorted by head, tail and falling score. `lost` has what encoding lost, `relations_over_cap`, the relations
            that `max_relations_per_pair` left out, and `relations_of_other_types`, those that `type_constraint` left out.

            A triple's `explanation` is what the model looked at, not evidence: the sentences that hold most of the pair's
            attention (what head and tail both attend to in the backbone's last layers, by which every relation encoder
            averages the pair's context), heaviest first. The weight is the sentence's share of what the document's sentences have
            of it, so that the weights of all sentences add up to 1; what rests on special tokens, often most of it, is left out.
            It does not say why the relation was chosen, and is the same for all relations of a pair. A pair without common
            context (far apart in a long document) has none.

            A model that was trained with an `evidence_weight` also gives each triple its `evidence`: the sentences, in order,
            whose share of the attention, special tokens included, exceeds the processor's `evidence_threshold`. Of other models
            the attention is not trained to point at evidence, and there is no such field.

        Raises:
            ValueError: an argument does not fit, or `inputs` is neither a document nor many.
            DocumentError: a document does not fit, also not into memory ([`~out_of_memory.DocumentMemoryError`]); the message
                says which. Other errors carry that as a note. Of a generator, the documents before it come first.
        """
        labels = self.model.config.id2label
        if self.processor.id2label != labels:  # checked at first, too, but `set_labels` changes them
            found = f"{labels}, and its processor's are {self.processor.id2label}"
            expected = "the same: pipeline(..., processor=CommProcessor.from_config(tokenizer, model.config))"
            raise ValueError(f"{TASK}: the model's labels are {found}; expected {expected}")
        size = plain_number((self._batch_size or 1) if batch_size is None else batch_size)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"batch_size is {size!r}; expected an integer >= 1")
        own = (self._preprocess_params, self._forward_params, self._postprocess_params)
        given = self._sanitize_parameters(**kwargs)
        parameters = [{**of_all, **of_this} for of_all, of_this in zip(own, given, strict=True)]
        if hasattr(inputs, "to_dict") and hasattr(
            inputs, "columns"
        ):  # a data frame, which iterates over its columns' names
            inputs = inputs.to_dict("records")
        if isinstance(inputs, bytes) or not (hasattr(inputs, "__iter__") or isinstance(inputs, Sized)):
            expected = "a document (a text or a dict), or many, such as a list or a generator of them"
            raise ValueError(f"inputs is {inputs!r:.100}; expected {expected}")
        if is_document(inputs):
            (record,) = records = list(self._records([inputs], 1, *parameters))
            self._warn_of_nothing_found(records, *parameters)
            return record
        records = self._records(inputs, size, *parameters)
        if show_progress_bar:
            total = len(inputs) if isinstance(inputs, Sized) else None
            records = iter(logging.tqdm(records, total=total, unit="document"))
        if not isinstance(inputs, (list, tuple)):
            return records
        records = list(records)
        self._warn_of_nothing_found(records, *parameters)
        return records

    def _sanitize_parameters(
        self,
        ner=None,
        coreference=None,
        sentence_splitter=None,
        threshold_offset=None,
        type_constraint=None,
        rules=None,
        both_directions=None,
        max_sentences=None,
        **selection,
    ):
        callables = {"ner": ner, "coreference": coreference, "sentence_splitter": sentence_splitter}
        preprocess = {name: value for name, value in callables.items() if value is not None}
        for name, value in preprocess.items():
            if not callable(value):
                example = ", such as spacy.load(...)" if name == "ner" else ""
                raise ValueError(f"{name} is {value!r}; expected something to call{example}")
        forward, postprocess = {}, {}
        if threshold_offset is not None:
            postprocess["threshold_offset"] = dataclasses.replace(
                self.processor.decision, threshold_offset=threshold_offset
            ).threshold_offset
        if type_constraint is not None:
            self.processor.decision.check_type_constraint(type_constraint)
            postprocess["type_constraint"] = type_constraint
        if rules is not None:
            postprocess["rules"] = [str(rule) for rule in check_rules(rules, self.processor.relations_of_rules)]
        if both_directions is not None:
            if not isinstance(both_directions, bool):
                raise ValueError(f"both_directions is {both_directions!r}; expected true or false")
            postprocess["both_directions"] = both_directions
        if max_sentences is not None:
            max_sentences = plain_number(max_sentences)
            if isinstance(max_sentences, bool) or not isinstance(max_sentences, int) or max_sentences < 0:
                raise ValueError(f"max_sentences is {max_sentences!r}; expected an integer >= 0")
            forward["explain"] = max_sentences > 0
            postprocess["max_sentences"] = max_sentences
        if unknown := sorted(selection.keys() - set(TripleSelection.field_names())):
            raise TypeError(_unknown_argument(unknown[0], self._sanitize_parameters))
        chosen = TripleSelection(**selection)
        postprocess |= {name: getattr(chosen, name) for name, value in selection.items() if value is not None}
        self._check_relations({**self._postprocess_params, **postprocess})
        return preprocess, forward, postprocess

    def _check_relations(self, postprocess_params):
        """Refuses relations that are not among those shown at once, not only after the first batch."""
        shown = self._shown(postprocess_params.get("both_directions", False))
        wanted = TripleSelection(relations=postprocess_params.get("relations"))
        wanted.label_ids(labels_both_ways(self.processor.id2label, shown), self.processor.relation_names)

    def _shown(self, both_directions):
        """The relations that are shown in both directions."""
        return self.processor.candidates if both_directions else ALL_PAIRS

    # ---------------------------------------------------------------------------------------------- from many to many

    def _records(self, inputs, batch_size, preprocess_params, forward_params, postprocess_params):
        """Records in the order of the inputs. Batches hold documents of similar length, out of a window that is read ahead."""

        def examples():
            # A PyTorch data set need not have an end that iteration would find.
            items = inputs if hasattr(inputs, "__iter__") else (inputs[index] for index in range(len(inputs)))
            for index, item in enumerate(items):
                with _naming_document(index):
                    example = self.preprocess(item, index=index, **preprocess_params)
                yield example

        def predict(chosen):
            features = [example["feature"] for example in chosen]
            outputs = self.forward(self.processor.collate(features), features=features, **forward_params)
            return self.postprocess({"outputs": outputs, "examples": chosen}, **postprocess_params)

        examples = examples()
        size = batch_size * LOOKAHEAD_BATCHES if batch_size > 1 else 1
        window = failure = None
        while failure is None and (window is None or len(window) == size):
            window = []
            try:
                window.extend(itertools.islice(examples, size))
            except Exception as error:
                failure = error  # after the documents before it
            yield from _predict_window(predict, window, batch_size)
        if failure is not None:
            raise failure

    # ------------------------------------------------------------------------------------------------- the three stages

    def preprocess(
        self,
        input_: Any,
        index: int = 0,
        ner: Callable | None = None,
        coreference: Callable | None = None,
        sentence_splitter: Callable | None = None,
    ) -> dict[str, Any]:
        """One input as an encoded document."""
        known_types = _known_types(self.processor)
        document = read_document_input(input_, index, ner, coreference, sentence_splitter, known_types)
        (feature,) = self.processor.encode([document.document])
        return {"index": index, "document": document, "feature": feature}

    def _forward(self, model_inputs, features=None, explain=True):
        self.model.eval()  # a model object may come from training
        model_inputs.pop("labels", None)
        explain = explain or self.processor.decision.evidence_threshold is not None
        outputs = self.model(**model_inputs, output_documents=explain, return_dict=True)
        if self.processor.decision.fusion_threshold is not None:
            outputs["logits"] = fuse_evidence(self.model, self.processor, outputs, features)
        return outputs

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        threshold_offset: float | None = None,
        type_constraint: str | None = None,
        rules: Sequence[Rule] | None = None,
        both_directions: bool = False,
        max_sentences: int = 3,
        **selection: Any,
    ) -> list[PredictionRecord]:
        """A record for each document of a batch."""
        wanted = TripleSelection(**selection)
        outputs, examples = model_outputs["outputs"], model_outputs["examples"]
        documents = [example["document"].document for example in examples]
        predictions = self.processor.decide(outputs, documents, threshold_offset, rules, type_constraint)
        shown, names = self._shown(both_directions), self.processor.relation_names
        labels = labels_both_ways(self.processor.id2label, shown)
        for decided in predictions:
            if warning := self._related_pairs.add(decided.triples, len(decided.pairs)):
                logger.warning(warning)
            # Before the selection, which is about what the record shows.
            decided.triples = show_both_ways(decided.triples, labels, shown)
        left_out = self._select(wanted, labels, predictions, examples)
        symmetric = self.processor.candidates.is_symmetric
        triples = [
            decided.in_words(document, labels, names) for decided, document in zip(predictions, documents, strict=True)
        ]
        records: list[Any] = []
        for index, (example, found) in enumerate(zip(examples, triples, strict=True)):
            document, decided = example["document"], predictions[index]
            removed = {
                "relations_over_cap": decided.removed_by_cap,
                "relations_of_other_types": decided.removed_by_types,
                "triples_not_selected": left_out[index],
            }
            records.append(
                {
                    "version": RECORD_VERSION,
                    "title": document.title,
                    "text": document.text,
                    "sentences": [list(span) for span in document.sentences],
                    "entities": [_entity(entity) for entity in document.entities],
                    "triples": [
                        {
                            **{key: triple[key] for key in _TRIPLE_FIELDS if key in triple},
                            "explanation": _explain(decided, triple, max_sentences),
                            **({"evidence": triple["evidence"]} if "evidence" in triple else {}),
                            **({"symmetric": True} if symmetric(triple["relation"]) else {}),
                        }
                        for triple in found
                    ],
                    "lost": what_was_lost(example["feature"])
                    | {name: number for name, number in removed.items() if number},
                }
            )
        return records

    def _select(self, selection, labels, predictions, examples):
        """Takes the triples that are not wanted out of the predictions; returns how many of each document."""
        wanted, left_out = selection.label_ids(labels, self.processor.relation_names), []
        for decided, example in zip(predictions, examples, strict=True):
            entities = example["document"].entities
            before = len(decided.triples)
            decided.triples = selection.select(decided.triples, [entity["type"] for entity in entities], wanted)
            left_out.append(before - len(decided.triples))
        return left_out

    def _warn_of_nothing_found(self, records, preprocess_params, _, postprocess_params):
        """What is strange of all records of a call together."""
        if "ner" in preprocess_params and records and not any(record["entities"] for record in records):
            logger.warning("ner found no entity in %d documents, so there are no triples", len(records))
            return
        candidates = self.processor.candidates
        types = [[entity["type"] for entity in record["entities"]] for record in records]
        if any(len(one) > 1 for one in types) and not any(candidates.matrix(one).any() for one in types):
            asked = ", ".join(" and ".join(pair) for pair in candidates.candidate_pairs)
            found = ", ".join(sorted({kind for one in types for kind in one}))
            logger.warning(
                "no pair of entities in %d documents has types that the model is asked about (%s): no triples; found %s",
                *(len(records), asked, found),
            )
            return
        selection = TripleSelection(**{name: postprocess_params.get(name) for name in TripleSelection.field_names()})
        for warning in type_warnings(selection, itertools.chain(*types)):
            logger.warning(warning)

    # --------------------------------------------------------------------------------------------------------- saving

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves model, processor and code; `pipeline("document-relation-extraction", model=save_directory)` loads them. See
        [`CommPreTrainedModel.save_pretrained`] for arguments."""
        if kwargs.get("push_to_hub"):
            expected = "False, then push_to_hub(repo_id), which sends everything at once"
            raise SettingError("save_pretrained", "push_to_hub", kwargs["push_to_hub"], expected)
        with replacing_folder(save_directory) as folder:
            self.model.save_pretrained(folder, **kwargs)
            self.processor.save_pretrained(folder)


def _unknown_argument(name, function):
    """A message about an argument that is unknown, with the one that is most like it."""
    names = [*TripleSelection.field_names(), *inspect.signature(function).parameters]
    known = [*(name for name in names if name != "selection"), "batch_size", "show_progress_bar"]
    close = difflib.get_close_matches(name, known, n=1)
    return f"{TASK}: found the argument {name!r}, expected " + (
        f"{close[0]!r}?" if close else f"one of {', '.join(known)}"
    )


def _predict_window(predict, window, batch_size):
    order = sorted(range(len(window)), key=lambda index: len(window[index]["feature"]["input_ids"]))
    records, failures = {}, {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        try:
            records.update(zip(chosen, predict([window[index] for index in chosen]), strict=True))
        except Exception as failure:
            if len(chosen) == 1:
                traceback.clear_frames(failure.__traceback__)  # of the document's tensors, perhaps all memory there is
                failures[chosen[0]] = failure
            else:
                name = type(failure).__name__
                logger.warning("Documents failed together (%s: %s); trying them one by one", name, failure)
            break
    # Outside of `except`, where the failure of a batch would still hold its tensors.
    for index, example in enumerate(window):
        if index not in records:
            with _naming_document(example["index"]), naming_documents(partial(_sizes, example), _SMALLER):
                if index in failures:
                    raise failures[index]
                (records[index],) = predict([example])
        yield records.pop(index)


def _sizes(example):
    feature, title = example["feature"], example["document"].document["title"]
    numbers = len(feature["input_ids"]), len(feature["mention_positions"]), feature["num_entities"]
    return [DocumentSize(example["index"], title, *numbers)]


@contextmanager
def _naming_document(index):
    """Lets an error say which document it is about."""
    try:
        yield
    except DocumentError:  # says it
        raise
    except Exception as error:
        error.add_note(f"This happened with document {index}.")
        raise


def _load_processor(model, name=None):
    config, loaded_with = model.config, getattr(model, "loading_arguments", {})
    if name is None:
        name = config._name_or_path
        # The same commit as the model's, whatever has been published since.
        loaded_with = loaded_with | {"revision": getattr(config, "_commit_hash", None) or loaded_with.get("revision")}
    elif name != config._name_or_path:  # another place, where the model's folder and commit need not be
        loaded_with = {key: value for key, value in loaded_with.items() if key not in ("subfolder", "revision")}
    if not name:
        raise ValueError(
            f"{TASK}: a model that was not loaded has no processor; expected processor=CommProcessor(...)"
        )
    return AutoProcessor.from_pretrained(name, **{"trust_remote_code": False, **loaded_with})


def _known_types(processor):
    """The entity types that a checkpoint tells apart by name. Its candidate pairs are not among them: these read a label and
    DocRED's type for it as the same."""
    seen = processor.decision.relation_types
    return {*(processor.marker_types or ()), *(seen.types if seen else ())}


def _entity(entity):
    """An entity of a record; the texts of its mentions are in the document's."""
    mentions = [{key: mention[key] for key in ("start", "end", "sentence")} for mention in entity["mentions"]]
    ids = {"ids": entity["ids"]} if "ids" in entity else {}
    return {"name": entity["name"], "type": entity["type"], "mentions": mentions, **ids}


def _explain(decided, triple, max_sentences):
    """Explanation of a triple; see the call."""
    pair, of_pairs = (triple["head"], triple["tail"]), decided.sentence_scores or {}
    scores = of_pairs.get(pair) or of_pairs.get(pair[::-1], ())  # the other direction of a triple has its explanation
    total = sum(scores)  # without special tokens, which have a share of the attention, too
    heaviest = sorted((-weight / total, number) for number, weight in enumerate(scores) if weight > 0)
    return [{"sentence": number, "weight": -weight} for weight, number in heaviest[:max_sentences]]


if not (IS_REMOTE_CODE or TASK in PIPELINE_REGISTRY.get_supported_tasks()):  # registering twice warns
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=DocumentRelationExtractionPipeline, pt_model=AutoModel, type="text"
    )
