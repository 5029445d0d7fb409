"""COMM: a pretrained encoder, a relation encoder (stage IARA) and a margin-centred loss, as a Transformers model."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoModel
from transformers.utils import ModelOutput, logging

from .backbone_attention import (
    SDPA_WITH_ROWS,
    check_attention_implementation,
    check_backbone_config,
    load_backbone_config,
    mark_last_attention,
    mean_of_layers,
    rows_of_matrix,
)
from .config_checks import plain_errors
from .configuration_comm import IS_REMOTE_CODE, CommConfig
from .evidence import evidence_loss
from .features import without_relations
from .losses import check_loss_of_unasked, get_loss, loss_from_config
from .other_labels import HUB_ARGUMENTS, config_fields, copy_label_rows, take_fields_of_loss
from .pretrained_comm import CommPreTrainedModel, check_sizes
from .relation_encoder_base import EncodedDocuments
from .relation_encoders import get_relation_encoder
from .safe_weights import check_weights, without_report
from .settings import SettingError, check_result
from .windows import WindowMentions, Windows, merge_attention, merge_states, one_window_each, slices

logger = logging.get_logger(__name__)

# Without gradients, the backbone reads this many subword tokens at once of documents that have several windows.
TOKENS_AT_ONCE = 2**13


@dataclass
class CommOutput(ModelOutput):
    """
    Output of [`CommForDocumentRelationExtraction`]. P entity pairs of all documents of the batch, R relations.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): returned when `labels` are given.
        evidence_loss (`torch.FloatTensor` of shape `()`, *optional*): the part of it that `evidence_weight` multiplies.
        logits (`torch.FloatTensor` of shape `(P, R + 1)`): one row per pair, the threshold class in column 0.
        pair_index (`torch.LongTensor` of shape `(P, 3)`): document, head entity and tail entity of each row.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): the backbone's, one row per window.
        attentions (`tuple(torch.FloatTensor)`, *optional*): the backbone's, with eager attention.
        documents ([`EncodedDocuments`], *optional*): what the relation encoder got, which also knows the pairs' attention; with
            `output_documents=True`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    pair_index: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    documents: EncodedDocuments | None = None
    evidence_loss: torch.FloatTensor | None = None


def _check_given(given):
    if not {"id2label", "num_labels"} & set(given):
        raise ValueError("from_backbone: no labels; expected id2label={0: 'Na', 1: 'P17', ...} or a config")
    refused = sorted({"dtype", "torch_dtype", "trust_remote_code"} & set(given))
    if refused:
        raise ValueError(
            f"from_backbone: found {refused}; a new model is float32 (call .to(dtype)) and runs no foreign code"
        )


class CommForDocumentRelationExtraction(CommPreTrainedModel):
    """
    Document-level relation extraction: for every ordered pair of a document's entities, a logit for the threshold class
    and one for each relation. Relations whose logit exceeds the threshold class's are predicted.

    ```python
    >>> from modeling_comm import CommForDocumentRelationExtraction, CommProcessor
    >>> model = CommForDocumentRelationExtraction.from_backbone("roberta-large", id2label={0: "Na", 1: "P17"})
    >>> processor = CommProcessor.from_backbone("roberta-large", model.config)
    >>> outputs = model(**processor(documents, return_tensors="pt"))
    >>> triples = processor.post_process_relation_extraction(outputs, documents)
    ```
    """

    _leaves_out_unasked: tuple[Any, ...] | None = None  # the loss that was found to do so

    def __init__(self, config: CommConfig):
        check_attention_implementation(
            config._attn_implementation
        )  # before Transformers would load a kernel of this name
        super().__init__(config)
        config.validate()
        text_config: Any = config.text_config
        check_backbone_config(text_config, config.averaged_layers)
        backbone_class = AutoModel._model_mapping[type(text_config)]
        arguments = inspect.signature(backbone_class.__init__).parameters
        # The pooler is never used: its weights would get no gradient.
        without_pooler = {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}
        check_attention_implementation(text_config._attn_implementation)
        wants_eager = "eager" in (config._attn_implementation, text_config._attn_implementation)
        reads_rows = backbone_class._supports_attention_backend and not wants_eager
        text_config._attn_implementation = SDPA_WITH_ROWS if reads_rows else "eager"
        # Not the dtype that the encoder was published in: the whole model is built in one.
        self.backbone = AutoModel.from_config(
            text_config, dtype=torch.get_default_dtype(), trust_remote_code=False, **without_pooler
        )
        if backbone_class._supports_attention_backend:
            mark_last_attention(self.backbone, config.averaged_layers)
        self.relation_encoder = get_relation_encoder(config.relation_encoder).build(config)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        config: CommConfig | None = None,
        backbone_overrides: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """
        A new, untrained model around a bare pretrained encoder.

        Args:
            backbone (`str`): name or folder of an encoder that `AutoModel` loads.
            config (`CommConfig`, *optional*): its `text_config` is replaced by the encoder's own.
            backbone_overrides (`dict`, *optional*): fields of the encoder's configuration to change, such as
                `{"attention_probs_dropout_prob": 0.0}`, which makes training on CPU faster.
            kwargs: fields of [`CommConfig`], the settings of the loss and of the relation encoder among them (not together
                with `config`), and `cache_dir`, `revision`, `token`,
                `local_files_only`, `attn_implementation` for loading.

        Returns:
            the model in float32: the encoder's weights pretrained, the relation encoder's newly initialised.

        Raises:
            ValueError: the encoder cannot serve, or its checkpoint is a pickle or lacks weights that the model uses.
        """
        loading = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        attention = kwargs.pop("attn_implementation", None)
        if config is not None and kwargs:
            raise ValueError(
                f"from_backbone: pass either config or its fields, not both (got config and {sorted(kwargs)})"
            )
        text_config = load_backbone_config(backbone, **loading)
        for field, value in (backbone_overrides or {}).items():
            if not hasattr(text_config, field):
                raise ValueError(f"backbone_overrides: {text_config.model_type!r} has no field {field!r}")
            with plain_errors("backbone_overrides"):
                setattr(text_config, field, value)
        check_backbone_config(text_config)
        if config is None:
            _check_given(kwargs)
            config = CommConfig(text_config=text_config, **kwargs)
        else:
            given_config = config
            config = type(config)(**config_fields(config) | {"text_config": text_config})
            attention = attention or given_config._attn_implementation
        if attention is not None:
            config._attn_implementation = attention
        check_weights(
            backbone,
            f"If you trust it, AutoModel.from_pretrained({str(backbone)!r}).save_pretrained(FOLDER) converts it; save the "
            "tokenizer there, too, and name FOLDER instead",
            named=getattr(text_config, "transformers_weights", None),
            **loading,
        )
        model = cls(config)
        with without_report():  # what is missing or has another size is an error below; what is left over is not used
            encoder, info = AutoModel.from_pretrained(
                backbone,
                config=text_config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                **loading,
            )
        check_sizes(backbone, info)
        own = model.backbone.state_dict()
        missing = sorted(set(info["missing_keys"]) & set(own))
        if missing:
            raise ValueError(
                f"the backbone {backbone!r} lacks {len(missing)} of its own weights ({', '.join(missing[:5])}); is it a "
                f"checkpoint of {type(encoder).__name__}?"
            )
        # Strict: every weight of the model's backbone comes from the checkpoint.
        model.backbone.load_state_dict({key: value for key, value in encoder.state_dict().items() if key in own})
        return model

    def set_labels(self, id2label: dict[int, str], **of_loss: Any) -> "CommForDocumentRelationExtraction":
        """
        Gives the model other relations, in place: a trained encoder is the start for relations of one's own. What the relation
        encoder knows of labels that stay is kept, by their names, and so is the threshold class; weights of other labels are
        newly initialised. The processor needs the same labels: `CommProcessor.from_config(tokenizer, model.config)`.

        Args:
            id2label (`dict[int, str]`): the threshold class at 0, then the relations.
            of_loss: arguments of other names: another `loss`, and settings of it, such as those by relation for the new ones.

        Returns:
            the model itself.

        Raises:
            SettingError: the labels do not fit, or the loss has a setting for a relation that is not among them.
            TypeError: an argument is no field of a loss.
        """
        before, fields = self.config.id2label, config_fields(self.config)
        given = take_fields_of_loss(of_loss)
        if of_loss:
            raise TypeError(f"set_labels: found {', '.join(of_loss)}, expected loss, or settings of a loss")
        if "loss" in given:  # the former loss has other settings
            take_fields_of_loss(fields)
        config = type(self.config)(**fields | given | {"id2label": id2label})
        config._attn_implementation = self.config._attn_implementation
        encoder = get_relation_encoder(config.relation_encoder).build(config)
        encoder.apply(self._init_weights)
        encoder.to(device=self.device, dtype=self.dtype).train(self.relation_encoder.training)
        copy_label_rows(self.relation_encoder, encoder, config, before, config.id2label)
        self.config, self.relation_encoder = config, encoder
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        windows: torch.LongTensor | None = None,
        document_mask: torch.BoolTensor | None = None,
        mention_positions: torch.LongTensor | None = None,
        mention_entities: torch.LongTensor | None = None,
        entity_mask: torch.BoolTensor | None = None,
        pair_index: torch.LongTensor | None = None,
        labels: torch.FloatTensor | None = None,
        window_mentions: torch.LongTensor | None = None,
        window_entities: torch.LongTensor | None = None,
        sentences: torch.LongTensor | None = None,
        evidence_pairs: torch.LongTensor | None = None,
        evidence: torch.FloatTensor | None = None,
        asked: torch.BoolTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        num_evidence_pairs: int | torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_documents: bool = False,
        pairs_at_once: int | None = None,
    ) -> CommOutput | tuple:
        """
        W windows of L subword tokens; B documents of C subword tokens, M mentions, E entities and S sentences at most; P pairs.
        All of it is what the processor returns; with `input_ids` and `attention_mask` alone the logits are empty.

        Args:
            input_ids (`(W, L)` int64): subword tokens of each window.
            attention_mask (`(W, L)` int64): 1 for subword tokens, 0 for padding.
            windows (`(W, 4)` int64, *optional*): document, offset, start and end of each window, see [`~windows.Windows`].
            document_mask (`(B, C)` bool): real subword tokens of the documents.
            mention_positions (`(B, M)` int64): document position of each mention's start marker, -1 where cut off or padding.
            mention_entities (`(B, M)` int64): entity of each mention, -1 for padding.
            entity_mask (`(B, E)` bool): real entities.
            pair_index (`(P, 3)` int64): document, head, tail of the pairs wanted.
            labels (`(P, R + 1)`, *optional*): 0/1; the threshold class's column is ignored.
            window_mentions (`(W, N)` int64, *optional*): mentions of its document that each window shows, -1 for none. By
                default every window looks for every mention, at the cost of memory.
            window_entities (`(W, n)` int64, *optional*): entities that attend to tokens which each window keeps, -1 for none. By
                default there is room for all entities of the document.
            sentences (`(B, S, 2)` int64, *optional*): start and end of each sentence among its document's subword tokens, both 0
                for none.
            evidence_pairs (`(N, 3)` int64, *optional*), evidence (`(N, S)` float, *optional*): document, head and tail of the
                pairs that have a relation, and how many of its relations each sentence proves. Needed, beside `labels` and
                `sentences`, where the configuration has an `evidence_weight`.
            asked (`(P, R + 1)` bool, *optional*): the relations that each pair is asked about, by default all. The logits of
                others are far below the threshold, whatever the model. A loss that cannot leave these out is refused in training,
                see [`~losses.check_loss_of_unasked`].
            inputs_embeds (`(W, L, d)` float, *optional*): embeddings of the subword tokens, in place of `input_ids`.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): pairs that the loss's sum is divided by instead of this
                batch's (gradient accumulation, several processes).
            num_evidence_pairs (`int` or `torch.Tensor`, *optional*): the same for the evidence loss.
            output_attentions, output_hidden_states, return_dict (`bool`, *optional*): as in Transformers; by default what the
                configuration says.
            output_documents (`bool`, *optional*, defaults to `False`): return `documents` too.
            pairs_at_once (`int`, *optional*): while training, keep what is computed between contexts and loss for this many
                pairs at most, and compute it again for the backward pass. Gradients are the same, memory is less. By default
                representations of more than 2,048 pairs are computed again, and losses are not.
        """
        self._refuse_data_parallel()
        return_dict = self.config.return_dict if return_dict is None else return_dict
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        with_pairs = pair_index is not None
        layout = {
            "windows": windows,
            "document_mask": document_mask,
            "mention_positions": mention_positions,
            "mention_entities": mention_entities,
            "entity_mask": entity_mask,
        }
        missing = [name for name, value in layout.items() if value is None] if with_pairs else []
        weighs_evidence = labels is not None and self.config.evidence_weight > 0
        if weighs_evidence:
            annotated = {"sentences": sentences, "evidence_pairs": evidence_pairs, "evidence": evidence}
            missing += [name for name, value in annotated.items() if value is None]
        if missing or (labels is not None and not with_pairs):
            raise ValueError(
                f"COMM's forward lacks {', '.join(missing) or 'pair_index'}; the processor returns all of it"
            )
        if output_attentions and self._reads_rows():
            logger.warning_once(
                "COMM returns attentions with attn_implementation='eager' only; with 'sdpa' they are None."
            )
            output_attentions = False
        outputs = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        texts = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        texts = {name: tensor for name, tensor in texts.items() if tensor is not None}
        loss = evidence_term = documents = None
        if with_pairs:
            encoded, documents = self._encode(
                texts, outputs, window_mentions, window_entities, **layout, pair_index=pair_index, sentences=sentences
            )
            if pairs_at_once is not None and (not isinstance(pairs_at_once, int) or pairs_at_once < 1):
                raise SettingError("forward", "pairs_at_once", pairs_at_once, "an integer >= 1, or None")
            documents.pairs_at_once = pairs_at_once
            logits = self.relation_encoder(documents)
            shape = (pair_index.shape[0], self.config.num_labels)
            check_result(
                f"the relation encoder {self.config.relation_encoder!r}", logits, shape, "(pairs, 1 + relations)"
            )
            if asked is not None:
                if labels is not None and self.training:
                    self._check_loss_of_unasked()
                logits = without_relations(logits, asked)
            if labels is not None:
                self_pairs = entity_mask.sum() if self.relation_encoder.self_pairs_in_loss else None
                loss = self._loss(logits, labels, documents, num_items_in_batch, self_pairs)
            if weighs_evidence:
                scores = documents.sentence_scores(evidence_pairs)
                options = (self.config.loss_reduction, self.config.evidence_average, num_evidence_pairs)
                evidence_term = evidence_loss(scores, evidence, *options)
                loss = loss + self.config.evidence_weight * evidence_term
        else:
            encoded = self.backbone(**texts, **outputs, return_dict=True)
            logits = encoded.last_hidden_state.new_zeros(0, self.config.num_labels)
            pair_index = torch.zeros(0, 3, dtype=torch.long, device=logits.device)
        output = CommOutput(
            loss=loss,
            logits=logits,
            pair_index=pair_index,
            hidden_states=encoded.hidden_states if output_hidden_states else None,
            attentions=encoded.attentions if output_attentions else None,
            documents=documents if output_documents else None,
            evidence_loss=evidence_term,
        )
        return output if return_dict else output.to_tuple()

    def _check_loss_of_unasked(self):
        """Once for each loss and its settings: the check takes as long as a small step."""
        found = self.config.loss, loss_from_config(self.config).keywords, self.config.num_labels
        if found != self._leaves_out_unasked:
            check_loss_of_unasked(self.config)
            self._leaves_out_unasked = found

    def _loss(self, logits, labels, documents, num_items_in_batch, self_pairs=None):
        loss_function = loss_from_config(self.config)
        if documents.pairs_at_once is not None and not get_loss(self.config.loss).sums_over_pairs:
            expected = f"None with the loss {self.config.loss!r}, which is no sum over pairs"
            raise SettingError("forward", "pairs_at_once", documents.pairs_at_once, expected)
        mean = self.config.loss_reduction == "mean"
        if documents.pairs_at_once is None and self_pairs is None and (num_items_in_batch is None or not mean):
            return loss_function(logits, labels, reduction=self.config.loss_reduction)
        if documents.pairs_at_once is None:
            loss = loss_function(logits, labels, reduction="sum")
        else:
            loss = documents.by_pairs(partial(loss_function, reduction="none"), logits, labels).sum()
        pairs = len(logits) if self_pairs is not None else max(len(logits), 1)
        if self_pairs is not None:  # adds `self_pairs` rows of zeros, see `RelationEncoder`
            zeros = logits.new_zeros(1, self.config.num_labels)
            loss = loss + self_pairs * loss_function(zeros, zeros, reduction="sum")
            pairs = (pairs + self_pairs).clamp(min=1)
        return loss / (pairs if num_items_in_batch is None else num_items_in_batch) if mean else loss

    def _reads_rows(self):
        """Returns whether the backbone gives only the mentions' attention rows; with eager attention it returns all rows."""
        text_config = self.backbone.config
        check_attention_implementation(text_config._attn_implementation)
        if text_config._attn_implementation == "sdpa":  # by `set_attn_implementation`, which does not know ours
            text_config._attn_implementation = SDPA_WITH_ROWS
        return text_config._attn_implementation == SDPA_WITH_ROWS

    def _encode(
        self,
        texts,
        outputs,
        window_mentions,
        window_entities,
        windows,
        document_mask,
        mention_positions,
        mention_entities,
        entity_mask,
        pair_index,
        sentences,
    ):
        """The backbone's output, and documents merged from its windows."""
        layers = self.config.averaged_layers
        wanted = dict(outputs, output_attentions=True)
        if layers > 1 and not outputs["output_hidden_states"]:
            # Transformers keeps those alone. Some versions count the embeddings as the first, others do not: one more fits both.
            last = self.config.text_config.num_hidden_layers
            wanted["output_hidden_states"] = list(range(last - layers, last + 1))
        windows = Windows.from_tensor(windows)
        mentions = WindowMentions.find(windows, mention_positions, mention_entities, window_mentions)
        # A long document has a hundred windows, of which only states and mentions' attention are wanted.
        count, parts = windows.document.shape[0], [slice(None)]
        in_parts = not torch.is_grad_enabled() and not any(outputs.values())
        if in_parts and not one_window_each(count, document_mask.shape[0]):
            parts = slices(count, TOKENS_AT_ONCE, next(iter(texts.values())).shape[1])
        states, rows = [], []
        for part in parts:
            columns = mentions.columns[part]
            reads_rows = self._reads_rows()
            encoded = self.backbone(
                **{name: tensor[part] for name, tensor in texts.items()},
                **wanted,
                **({"mention_rows": columns} if reads_rows else {}),
                return_dict=True,
            )
            attention = encoded.attentions[-layers:]
            if not reads_rows:
                attention = [
                    rows_of_matrix(matrix, columns, self.config.text_config.model_type) for matrix in attention
                ]
            rows.append(mean_of_layers(attention).transpose(1, 2))
            states.append(
                encoded.last_hidden_state if layers == 1 else mean_of_layers(encoded.hidden_states[-layers:])
            )
        states = merge_states(states[0] if len(states) == 1 else torch.cat(states), windows, document_mask)
        found = mention_positions >= 0
        mention_entities = torch.where(found, mention_entities, -1)
        index = torch.where(found, mention_positions, 0)[:, :, None].expand(-1, -1, states.shape[-1])
        documents = EncodedDocuments(
            token_states=states,
            mention_states=torch.where(found[:, :, None], states.gather(1, index), 0.0),
            mention_entities=mention_entities,
            entity_mask=entity_mask,
            pair_index=pair_index,
            attention=merge_attention(
                rows, windows, mentions, mention_entities, window_entities, document_mask, entity_mask
            ),
            sentences=sentences,
        )
        return encoded, documents

    def _refuse_data_parallel(self):
        if getattr(self, "_is_replica", False):
            raise RuntimeError(
                "COMM does not run under torch.nn.DataParallel, which cuts its flat pair tensors apart. Start one process a "
                "GPU instead: torchrun --nproc_per_node NUMBER_OF_GPUS run_docre.py ... (or set CUDA_VISIBLE_DEVICES=0)"
            )


if not IS_REMOTE_CODE:
    AutoModel.register(CommConfig, CommForDocumentRelationExtraction, exist_ok=True)
    CommForDocumentRelationExtraction.register_for_auto_class("AutoModel")  # so that the code is saved with it
