"""Knowledge distillation on distantly supervised documents, as KD-DocRE does it (Tan et al., ACL Findings 2022).

A teacher labels the documents once: its logits for every entity pair are stored on disk, in half precision. A student then
trains on those documents with `loss + weight * MSE(student, teacher)`, and on human labels alone afterwards.
"""

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from tqdm.auto import tqdm
from transformers.utils import logging

from ..candidate_pairs import CandidatePairs
from ..documents import Document
from ..features import encoding_report
from ..loss_base import reduce_losses
from ..modeling_comm import CommForDocumentRelationExtraction
from ..processing_comm import CommProcessor
from ..utils.files import read_json, write_json
from ..utils.unchanged import check_unchanged
from ..utils.writer import remove_unfinished, write_bytes
from .batching import FEATURE_COLUMNS, DocumentCollator, DocumentStream, EncodedOnDemand
from .trainer import CommTrainer

logger = logging.get_logger(__name__)

_SETTINGS = "teacher.json"
_SHARD = "logits-{:05d}.safetensors"
_FORMAT = 1
_FINISHED = ("documents", "encoding", "record")  # fields that are added once all shards exist
_POSITION = "teacher_position"
_IDENTITY = ("title", "sents", "vertexSet", "ignored_pairs")
# Settings that decide, beside the teacher's weights, which logits a document gets.
_READING = ("markers", "marker_types", "window_size", "window_stride", "window_end_tokens", "word_leading_space")


def document_key(document: Mapping[str, Any]) -> bytes:
    """SHA-256 of what identifies a document: title, sentences, mentions and ignored pairs, not its labels."""
    mentions = [
        [[mention["name"], mention["sent_id"], list(mention["pos"]), mention["type"]] for mention in entity]
        for entity in document["vertexSet"]
    ]
    parts = [document["title"], document["sents"], mentions]
    if document.get("ignored_pairs"):  # they have no logits
        parts.append(sorted(map(list, document["ignored_pairs"])))
    content = json.dumps(parts, separators=(",", ":"))
    return hashlib.sha256(content.encode()).digest()


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights, whatever file or format they come from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------- the teacher


@torch.no_grad()
def predict_teacher_logits(
    model: CommForDocumentRelationExtraction,
    processor: CommProcessor,
    documents: Iterable[Document],
    folder: str | os.PathLike,
    *,
    batch_size: int = 8,
    shard_size: int = 500,
    max_length: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    total: int | None = None,
) -> int:
    """
    Stores a teacher's logits for every entity pair of every document, in bounded memory. Given again after an interruption, it
    keeps the shards that are finished. [`finish_teacher_logits`] has to follow.

    Args:
        model, processor: the teacher, on its device.
        documents (iterable of `dict`): in DocRED's format; labels are ignored. Read `shard_size` at a time.
        folder (`str`): where the shards are written, as float16 in safetensors, beside `teacher.json`, which says what made
            them.
        batch_size (`int`, defaults to 8): documents a forward pass.
        shard_size (`int`, defaults to 500): documents per file; what an interruption can cost.
        max_length (`int`, *optional*): as for a call of [`CommProcessor`].
        rank, world_size (`int`): which of several processes this is; each reads all documents and labels its shards.
        autocast (callable, *optional*): gives the context of the forward passes, for half precision.
        total (`int`, *optional*): number of documents, for the progress bar.

    Returns:
        the number of documents that there are, which [`finish_teacher_logits`] takes.

    Raises:
        ValueError: the processor is not the teacher's, or the folder holds logits of another teacher, other settings or other
            documents.
        FloatingPointError: a logit is not finite, or too large for float16.
    """
    processor.check_model(model.config)
    folder = Path(folder)
    settings = {
        "format": _FORMAT,
        "teacher_sha256": weights_sha256(model),
        "labels": [processor.id2label[index] for index in range(len(processor.id2label))],
        "decision_threshold": processor.decision.decision_threshold,
        "shard_size": shard_size,
        "max_length": max_length,
        **{field: getattr(processor, field) for field in _READING},
        **processor.candidates.given(),
    }
    finished = _begin(folder, settings)
    model.eval()
    documents, read = iter(documents), 0
    bar = tqdm(desc="Teacher", unit=" documents", total=total, disable=rank > 0 or not logger.isEnabledFor(20))
    for index in itertools.count():
        chunk = list(itertools.islice(documents, shard_size))
        if not chunk:
            break
        read += len(chunk)
        if finished is not None and read > finished:
            raise ValueError(
                f"{folder} holds the logits of {finished} documents; found more, the first one "
                f"{chunk[finished - read]['title']!r}. Choose another folder, or delete it"
            )
        if index % world_size == rank:
            keys = torch.stack([torch.frombuffer(bytearray(document_key(one)), dtype=torch.uint8) for one in chunk])
            file = folder / _SHARD.format(index)
            if file.is_file():
                _check_shard(file, keys, chunk)
            else:
                logits, rows, report = _label(model, processor, chunk, batch_size, max_length, autocast)
                tensors = {"logits": logits, "rows": rows, "keys": keys}
                write_bytes(file, save(tensors, metadata={"encoding": json.dumps(report)}))
        bar.update(len(chunk))
    bar.close()
    return read


def finish_teacher_logits(folder: str | os.PathLike, documents: int, record: Mapping[str, Any] | None = None) -> dict:
    """
    Says in `teacher.json` that all shards exist. To be called once [`predict_teacher_logits`] is done in all processes; a
    folder that is finished stays as it is.

    Args:
        folder (`str`): as in [`predict_teacher_logits`].
        documents (`int`): what that has returned.
        record (`dict`, *optional*): of the run that made the logits.

    Returns:
        the contents of `teacher.json`, with `documents`, `record`, and `encoding`, what encoding made of all documents and
        lost, see [`~modeling_comm.features.encoding_report`].

    Raises:
        ValueError: there are no documents, or more or less shards than these documents fill.
    """
    folder = Path(folder)
    settings = read_json(folder / _SETTINGS)
    expected = [_SHARD.format(index) for index in range(-(-documents // settings["shard_size"]))]
    found = {file.name for file in folder.glob("*.safetensors")}
    missing, surplus = sorted(set(expected) - found), sorted(found - set(expected))
    if not documents or missing or surplus:
        raise ValueError(
            f"{folder}: {documents} documents fill {len(expected)} shards; missing are {missing[:3] or 'none'}, left over from "
            f"other documents {surplus[:3] or 'none'}"
        )
    if "documents" not in settings:
        encoding = Counter()
        for name in expected:
            with safe_open(folder / name, "pt") as shard:
                encoding.update(json.loads(shard.metadata()["encoding"]))
        settings |= {"documents": documents, "encoding": dict(encoding), "record": record}
        remove_unfinished(folder)
        write_json(folder / _SETTINGS, settings)
    return settings


def _begin(folder, settings):
    """Writes the settings, or checks those of an earlier call and returns its number of documents if it was finished."""
    file = folder / _SETTINGS
    if not file.is_file():
        write_json(file, settings)
        return None
    before = read_json(file)
    made_with = {key: value for key, value in before.items() if key not in _FINISHED}
    check_unchanged(made_with, settings, folder, "Choose another folder, or delete it")
    return before.get("documents")


def _check_shard(file, keys, documents):
    with safe_open(file, "pt") as shard:
        stored = shard.get_tensor("keys")
    size = min(len(stored), len(keys))
    different = (stored[:size] != keys[:size]).any(1).nonzero().flatten().tolist()
    if different or len(stored) != len(keys):
        first = f"; the first other document is {documents[different[0]]['title']!r}" if different else ""
        raise ValueError(
            f"{file} holds logits of {len(stored)} documents; now there are {len(keys)}, {len(different)} of them others or in "
            f"another order{first}. Choose another folder, or delete it"
        )


def _label(model, processor, documents, batch_size, max_length, autocast):
    """Logits `(rows, R + 1)` float16 of all pairs of the documents in order, the first row of each and the end `(D + 1,)`, and
    what encoding lost."""
    unlabelled = [{key: value for key, value in one.items() if key != "labels"} for one in documents]
    features = processor.encode(unlabelled, max_length=max_length)
    # Similar lengths side by side: nothing is padded needlessly, and a document's logits do not depend on its batch.
    order = sorted(range(len(features)), key=lambda index: len(features[index]["input_ids"]))
    found = [None] * len(features)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = processor.collate([features[index] for index in batch])
        with autocast():
            outputs = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
        document, logits = outputs.pair_index[:, 0].cpu(), outputs.logits.half().cpu()
        for position, index in enumerate(batch):
            found[index] = logits[document == position]
            if not torch.isfinite(found[index]).all():
                raise FloatingPointError(
                    f"document {documents[index]['title']!r}: a logit is not finite, or beyond float16's "
                    f"{torch.finfo(torch.float16).max:.0f}"
                )
    rows = torch.tensor([0, *map(len, found)]).cumsum(0)
    return torch.cat(found), rows, encoding_report(features)


# ---------------------------------------------------------------------------------------------------------- the student


class TeacherLogits:
    """
    The logits that [`predict_teacher_logits`] has stored, found by the identity of a document. Memory holds 40 bytes per
    document.

    Args:
        folder (`str`): the one that was given to [`predict_teacher_logits`].

    Attributes:
        settings (`dict`): what made them: SHA-256 of the teacher's weights, labels, decision threshold, number of documents.

    Raises:
        ValueError: there are no logits, or they are not complete.
        FileNotFoundError: a shard was deleted.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        file = self.folder / _SETTINGS
        if not file.is_file():
            raise ValueError(
                f"{folder}: found no {_SETTINGS}; expected the folder of a teacher's logits (--do_predict_teacher)"
            )
        self.settings = read_json(file)
        if self.settings["format"] != _FORMAT:
            raise ValueError(f"{file}: found format {self.settings['format']}; this version reads {_FORMAT}")
        if "documents" not in self.settings:
            raise ValueError(
                f"{folder}: the logits are not complete; the same --do_predict_teacher command finishes them"
            )
        keys = []
        for index in range(-(-self.settings["documents"] // self.settings["shard_size"])):
            with safe_open(self.folder / _SHARD.format(index), "pt") as shard:
                keys.append(shard.get_tensor("keys").numpy())
        # Sorted arrays, not a dict: a tenth of the memory, which processes that are started share.
        keys = np.concatenate(keys).view("S32")[:, 0]
        self._order = keys.argsort(kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, processor: CommProcessor) -> None:
        """Raises `ValueError` where the labels or the decision threshold are not the student's."""
        labels = [processor.id2label[index] for index in range(len(processor.id2label))]
        declared = json.loads(json.dumps(processor.candidates.given()))
        pairs = {field: declared.get(field) for field in CandidatePairs.field_names()}
        threshold = processor.decision.decision_threshold
        for field, own in {"labels": labels, "decision_threshold": threshold, **pairs}.items():
            stored = self.settings.get(field)
            if stored != own:
                where = ""
                if field == "labels":  # others may be no lists
                    first = next((i for i, (a, b) in enumerate(zip(stored, own, strict=False)) if a != b), None)
                    where = "" if first is None else f" (the first difference at {first})"
                raise ValueError(
                    f"{self.folder}: the teacher's {field} are {_shortened(stored)}, the student's {_shortened(own)}{where}; "
                    "expected the same"
                )

    def position(self, document: Mapping[str, Any]) -> int:
        """The position of the document's logits. Raises `ValueError` if the teacher has not labelled exactly this document."""
        (key,) = np.frombuffer(document_key(document), self._keys.dtype)
        place = self._keys.searchsorted(key)
        if place == len(self) or self._keys[place] != key:
            raise ValueError(
                f"{self.folder}: no logits for the document {document['title']!r}; {len(self)} documents were labelled, and "
                "title, sentences and mentions have to be the same"
            )
        return int(self._order[place])

    def __getitem__(self, position: int) -> torch.Tensor:
        """Logits `(p, R + 1)` float16 of a document's pairs, in the processor's order."""
        shard, index = divmod(position, self.settings["shard_size"])
        # Opened for each call: the system may then forget a file's mapped pages, and workers can be started.
        with safe_open(self.folder / _SHARD.format(shard), "pt") as file:
            first, end = file.get_slice("rows")[index : index + 2].tolist()
            return file.get_slice("logits")[first:end]


def _shortened(value):
    return f"{len(value)} from {value[0]!r} to {value[-1]!r}" if isinstance(value, list) else repr(value)


def distillation_loss(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    decision_threshold: str = "th",
    raw: bool = False,
    reduction: str = "mean",
    asked: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Mean squared difference between a student's and a teacher's logits.

    Args:
        logits, teacher_logits (`(P, R + 1)` float): rows are pairs, column 0 the threshold class.
        decision_threshold (`str`): `"th"`: logits are compared relative to the threshold class's, because the losses leave
            a constant added to all logits of a pair free, and a student has nothing to learn from it; `"zero"`: as they are.
        raw (`bool`, defaults to `False`): as they are in any case, as KD-DocRE's code does.
        reduction (`str`): `"mean"` over pairs, `"sum"` or `"none"` (`(P,)`); over a pair's columns it is always the mean.
        asked (`(P, R + 1)` bool, *optional*): the columns that each pair is asked about, see
            [`~modeling_comm.features.asked_relations`]. The others, whose logits mean nothing, take no part. By default all are.

    Returns:
        float32 at least. 0 with a gradient for no pairs.
    """
    if logits.shape != teacher_logits.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, the teacher's {tuple(teacher_logits.shape)}; expected the same"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    difference = logits.to(dtype) - teacher_logits.to(dtype)
    if decision_threshold == "th" and not raw:
        difference = difference[:, 1:] - difference[:, :1]
        asked = None if asked is None else asked[:, 1:]
    if asked is None:
        return reduce_losses(difference.square().mean(dim=-1), reduction)
    total = difference.where(asked, 0.0).square().sum(dim=-1)
    return reduce_losses(total / asked.sum(dim=-1).clamp(min=1), reduction)


class DistillationTrainer(CommTrainer):
    """
    [`CommTrainer`] whose training loss is `loss + weight * MSE(student logits, teacher logits)`; evaluation is the parent's.

    Args:
        teacher_logits (`TeacherLogits`): has to hold every training document.
        distillation_weight (`float`, defaults to 1.0): KD-DocRE's.
        distillation_raw_logits (`bool`, defaults to `False`): see [`distillation_loss`].

    Raises:
        ValueError: documents, labels or decision threshold are not those that the teacher has labelled.
    """

    feature_columns = (*FEATURE_COLUMNS, _POSITION)
    learns_from_facts = False  # the teacher's logits say more

    def __init__(
        self,
        *args: Any,
        teacher_logits: TeacherLogits,
        distillation_weight: float = 1.0,
        distillation_raw_logits: bool = False,
        **kwargs: Any,
    ):
        if not distillation_weight > 0:
            raise ValueError(f"distillation_weight is {distillation_weight!r}; expected a number above 0")
        self.teacher_logits = teacher_logits
        self.distillation_weight = distillation_weight
        self.distillation_raw_logits = distillation_raw_logits
        super().__init__(*args, **kwargs)
        teacher_logits.check(self.processing_class)
        self.data_collator = _DistillationCollator(self.processing_class, teacher_logits)
        if self.train_dataset is not None and not isinstance(self.train_dataset, DocumentStream):
            self.train_dataset = self._with_positions(self.train_dataset)

    def distillation_record(self) -> dict:
        """Weight, kind of logits and teacher, for the record of a run."""
        return {
            "weight": self.distillation_weight,
            "raw_logits": self.distillation_raw_logits,
            "teacher": self.teacher_logits.settings,
        }

    def _with_positions(self, dataset):
        known = hasattr(dataset, "select_columns") and [name for name in _IDENTITY if name in dataset.column_names]
        documents = dataset.select_columns(known) if known else dataset
        positions = [self.teacher_logits.position(document) for document in documents]
        if hasattr(dataset, "add_column"):
            others = [
                column for column in dataset.column_names if column != _POSITION
            ]  # it may have had another teacher
            return dataset.select_columns(others).add_column(_POSITION, positions)
        return [{**row, _POSITION: position} for row, position in zip(dataset, positions, strict=True)]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        inputs = dict(inputs)
        teacher_logits = inputs.pop("teacher_logits", None)  # there is none where a process has no documents left
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        part: torch.Tensor | float = 0.0
        if teacher_logits is not None:
            term = distillation_loss(
                outputs.logits,
                teacher_logits,
                self.processing_class.decision.decision_threshold,
                self.distillation_raw_logits,
                reduction="sum",
                asked=inputs.get("asked"),
            )
            term = term * self.args.world_size  # as the loss, see the parent
            if self.model.config.loss_reduction == "mean":
                term = term / num_items_in_batch
            loss = loss + self.distillation_weight * term
            part = term.detach()
        self._add_to_log("distillation_loss", part)
        return (loss, outputs) if return_outputs else loss

    def _encoded_stream(self):
        return _LabelledOnDemand(self.processing_class, self.train_dataset.max_length, self.teacher_logits)


class _LabelledOnDemand(EncodedOnDemand):
    def __init__(self, processor, max_length, teacher_logits):
        super().__init__(processor, max_length)
        self.teacher_logits = teacher_logits

    def __getitems__(self, documents):
        positions = [self.teacher_logits.position(document) for document in documents]
        features = super().__getitems__(documents)
        return [{**one, _POSITION: position} for one, position in zip(features, positions, strict=True)]


class _DistillationCollator(DocumentCollator):
    def __init__(self, processor, teacher_logits):
        super().__init__(processor)
        self.teacher_logits = teacher_logits

    def __call__(self, features):
        batch = super().__call__(features)
        if features and _POSITION in features[0]:  # not in evaluation
            batch["teacher_logits"] = torch.cat([self.teacher_logits[feature[_POSITION]] for feature in features])
        return batch
