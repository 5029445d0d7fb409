"""Models as programs that run without this package: `torch.export`, and from that ONNX."""

import importlib.util
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental import _config as symbolic_sizes

from ..modeling_comm import CommForDocumentRelationExtraction
from ..processing_comm import CommProcessor
from ..processor_settings import marked_types
from ..settings import SettingError
from ..utils.imports import of_extra

# The dimension of a tensor's columns, which stays as it is; all others are free.
_COLUMNS = {"windows": 1, "pair_index": 1}
OPSET = 18


def export_program(model: CommForDocumentRelationExtraction, processor: CommProcessor) -> torch.export.ExportedProgram:
    """
    The model as a program of `torch.export`. The numbers of documents, windows, subword tokens, mentions, entities and pairs are
    free, but a batch needs a document with two entities, or there is nothing to predict.

    The program computes all windows and all pairs of a batch at once. With long documents it needs more memory than the model.

    Args:
        model ([`CommForDocumentRelationExtraction`]): with a relation encoder whose layers do not depend on the sizes of the
            batch's documents, as those of DocuNet and KD-DocRE do. It is put into evaluation mode.
        processor ([`CommProcessor`]): the model's.

    Returns:
        `torch.export.ExportedProgram`: `program.module()` takes what the processor returns for documents without labels, and
        gives a [`CommOutput`] with logits and pairs.

    Raises:
        ValueError: the relation encoder depends on the sizes of documents.
    """
    return _export(model, _example(processor, (4, 3), (40, 2 * processor.window_size)))


class _Logits(nn.Module):
    """The model with its logits alone: ONNX has trouble with an output, the pairs, that is an input too."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids,
        attention_mask,
        windows,
        window_mentions,
        window_entities,
        document_mask,
        mention_positions,
        mention_entities,
        entity_mask,
        pair_index,
    ):
        batch = dict(locals())
        del batch["self"]
        return self.model(**batch).logits


def _export(model, given):
    device = next(model.parameters()).device
    given = {name: tensor.to(device) for name, tensor in given.items()}
    free = torch.export.Dim.AUTO
    sizes = {
        name: {axis: free for axis in range(tensor.ndim) if axis != _COLUMNS.get(name)}
        for name, tensor in given.items()
    }
    # By default every size would have to be 2 at least, and the number of windows 3.
    with torch.no_grad(), symbolic_sizes.patch(backed_size_oblivious=True):
        return torch.export.export(model.eval(), (), kwargs=given, dynamic_shapes=sizes, strict=False)


def export_onnx(model: CommForDocumentRelationExtraction, processor: CommProcessor, path: str | Path) -> None:
    """
    Writes the model as ONNX: one file, and beside it `FILE.data` with the weights of a model that is too large for that. Inputs
    have the names that the processor gives them; the output is `logits` `(P, R + 1)`, in the order of the input `pair_index`.

    Args:
        model, processor: as of [`export_program`].
        path (`str` or `Path`): the file.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: the relation encoder depends on the sizes of documents, or there are symmetric relations among directed ones.
    """
    if processor.candidates.directed and processor.candidates.symmetric:
        raise SettingError(
            "export_onnx", "symmetric", processor.candidates.symmetric, "no symmetric relations among directed ones"
        )
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"ONNX needs {package!r}{of_extra('onnx')}")
    given = _example(processor, (4, 3), (40, 2 * processor.window_size))
    given = {name: given[name] for name in inspect.signature(_Logits.forward).parameters if name != "self"}
    program = _export(_Logits(model), given)
    converter = logging.getLogger("torch.onnx")
    level = converter.level
    converter.setLevel(logging.ERROR)  # it lists the operators of packages that are not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
            converted = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,  # onnxscript would take 1e-10 for 0, and a document without entities would give NaN
                verbose=False,
                opset_version=OPSET,
                input_names=list(given),
                output_names=["logits"],
            )
    finally:
        converter.setLevel(level)
    converted.save(path)


@torch.no_grad()
def largest_difference(
    model: CommForDocumentRelationExtraction,
    processor: CommProcessor,
    run: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
) -> float:
    """
    How far an exported model is from the model itself, on batches of several sizes, other ones than it was exported with.

    Args:
        model, processor: as of [`export_program`].
        run (`Callable`): gives the logits `(P, R + 1)` of a batch by the exported model.

    Returns:
        `float`: the largest difference of two logits, not a number where a logit is none.
    """
    differences = []
    for entities, words in (((2,), (12,)), ((3, 6), (20, 30)), ((0, 5, 1, 7), (9, 3 * processor.window_size, 12, 60))):
        batch = _example(processor, entities, words)
        expected = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
        differences.append((run(batch).cpu() - expected.cpu()).abs().max().item())
    return max(differences, key=lambda difference: (isnan(difference), difference))


def _example(processor, entities, words):
    """A batch of documents with these numbers of entities, two mentions each, and words. Their types are candidates, and those
    of markers where mentions are marked by them."""
    kind = (processor.marker_types or ("PER",))[0]
    asked = processor.candidates.candidate_pairs or ((kind, kind),)
    documents, types = [], next(filter(None, (marked_types(processor, pair) for pair in asked)))
    for size, length in zip(entities, words, strict=True):
        starts = [[entity, length - entity - 1] for entity in range(size)]
        vertex_set = [
            [{"name": "a", "sent_id": 0, "pos": [start, start + 1], "type": types[entity % 2]} for start in of_entity]
            for entity, of_entity in enumerate(starts)
        ]
        documents.append({"title": f"{length} words", "sents": [["a"] * length], "vertexSet": vertex_set})
    return dict(processor(documents))
