"""COMM: a pretrained encoder, a relation encoder (stage IARA) and a margin-centred loss, as a Transformers model."""

import inspect
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, logging

from .backbone_attention import (
    SDPA_WITH_ROWS,
    check_attention_implementation,
    check_backbone_config,
    load_backbone_config,
    mark_last_attention,
)
from .configuration_comm import CommConfig
from .extensions import extension_files, save_extensions
from .losses import is_built_in_loss, loss_from_config
from .pipeline_comm import LoadingArguments
from .relation_encoder_base import EncodedDocuments, at_least_float32, pool_entity_attention
from .relation_encoders import get_relation_encoder, is_built_in_encoder
from .safe_weights import check_weights

logger = logging.get_logger(__name__)

_HUB_ARGUMENTS = ("cache_dir", "revision", "token", "subfolder", "local_files_only")


@dataclass
class CommOutput(ModelOutput):
    """
    Output of [`CommForDocumentRelationExtraction`]. P entity pairs of all documents of the batch, R relations.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): returned when `labels` are given.
        logits (`torch.FloatTensor` of shape `(P, R + 1)`): one row a pair, the threshold class in column 0.
        pair_index (`torch.LongTensor` of shape `(P, 3)`): document, head entity and tail entity of each row.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): the backbone's, one row a window.
        attentions (`tuple(torch.FloatTensor)`, *optional*): the backbone's, with eager attention.
        entity_attention (`torch.FloatTensor` of shape `(B, E, A, C)`, *optional*): last layer's attention of each entity to its
            document's C word pieces by attention head, mean over its mentions; with `output_entity_attention=True`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    pair_index: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    entity_attention: torch.FloatTensor | None = None


class CommPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation of COMM models."""

    config_class = CommConfig
    base_model_prefix = "comm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _is_composite = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        # The relation encoders' layers start as their authors' did, with torch's own scheme: fan-ins reach 49,152, where
        # the usual normal(0, 0.02) would saturate.
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, **kwargs):
        # Reentrant checkpointing cuts the attention probabilities, which leave the layer beside its output, off from the
        # gradient: in silence, and the encoder's gradients come out wrong.
        arguments = getattr(gradient_checkpointing_func, "keywords", {})
        if enable and arguments.get("use_reentrant", True):
            raise ValueError(
                f"gradient checkpointing with the arguments {arguments}: COMM needs {{'use_reentrant': False}}, which is the "
                "default where no arguments are given"
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Loads a finished COMM checkpoint; see [`PreTrainedModel.from_pretrained`] for all arguments. Weights are read from
        safetensors, never from a pickle, whatever lies beside them.

        Raises:
            ValueError: the checkpoint is a bare encoder or a pickle (the message says what to do instead), or lacks weights.
        """
        hub = {key: kwargs[key] for key in _HUB_ARGUMENTS if key in kwargs}
        if isinstance(config, PreTrainedConfig):
            fields = vars(config)
        else:
            fields, _ = PreTrainedConfig.get_config_dict(config or pretrained_model_name_or_path, **hub)
            model_type = fields.get("model_type")
            if model_type != cls.config_class.model_type:
                raise ValueError(
                    f"{str(pretrained_model_name_or_path)!r} is a {model_type!r} checkpoint, not a COMM model. To start a "
                    f"new model from it: {cls.__name__}.from_backbone({str(pretrained_model_name_or_path)!r}, id2label=...)"
                )
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError("use_safetensors=False: COMM reads weights from safetensors only, never from a pickle")
        if pretrained_model_name_or_path is not None:
            check_weights(
                pretrained_model_name_or_path,
                "comm-docre convert brings checkpoints of the original ATLOP, DocuNet and KD-DocRE into COMM's form",
                named=fields.get("transformers_weights"),
                variant=kwargs.get("variant"),
                adapter=(kwargs.get("adapter_kwargs") or {}).get("_adapter_model_path"),
                **hub,
            )
        wants_info = kwargs.pop("output_loading_info", False)
        trusted = kwargs.pop("trust_remote_code", None) is True  # the processor may need it
        model, info = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            config=config,
            output_loading_info=True,
            use_safetensors=True,
            **kwargs,
        )
        missing = sorted(info["missing_keys"])
        if missing and not wants_info:  # whoever asks for the loading info looks at it
            raise ValueError(
                f"{pretrained_model_name_or_path!r} lacks {len(missing)} weights of this model, which would have stayed "
                f"untrained: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
            )
        model.loading_arguments = LoadingArguments(trust_remote_code=trusted, **hub)
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory, is_main_process=True, push_to_hub=False, **kwargs):
        """Saves weights, configuration and code, that of a user's own encoder or loss included; see Transformers'."""
        if push_to_hub and extension_files(self.config):
            raise ValueError(
                "save_pretrained(push_to_hub=True): use push_to_hub(repo_id), which sends the model's own code too"
            )
        super().save_pretrained(save_directory, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)
        if is_main_process:
            save_extensions(self.config, save_directory)


def _check_given(given):
    if not {"id2label", "num_labels"} & set(given):
        raise ValueError("from_backbone: no labels; expected id2label={0: 'Na', 1: 'P17', ...} or a config")
    refused = sorted({"dtype", "torch_dtype", "trust_remote_code"} & set(given))
    if refused:
        raise ValueError(
            f"from_backbone: found {refused}; a new model is float32 (call .to(dtype)) and runs no foreign code"
        )


def _check_unknown(config, given):
    if not (is_built_in_encoder(config.relation_encoder) and is_built_in_loss(config.loss)):
        return  # a user's own may have fields of its own
    known = set(inspect.signature(CommConfig.__init__).parameters) | set(vars(PreTrainedConfig()))
    unknown = sorted(set(given) - known - {"id2label", "label2id", "num_labels"})
    if unknown:
        raise ValueError(f"from_backbone: CommConfig has no fields {unknown}")


def _check_buffers(relation_encoder):
    # Loading builds the model without memory and fills in what the checkpoint holds.
    for name, module in relation_encoder.named_modules():
        lost = sorted(module._non_persistent_buffers_set)
        if lost:
            raise ValueError(
                f"{type(relation_encoder).__name__} has the non-persistent buffers {lost} in {name or 'itself'}, which loading a "
                "checkpoint would leave uninitialised; expected register_buffer(..., persistent=True)"
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

    def __init__(self, config):
        super().__init__(config)
        config.validate_fields()
        text_config = config.text_config
        check_backbone_config(text_config)
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
            mark_last_attention(self.backbone)
        self.relation_encoder = get_relation_encoder(config.relation_encoder)(config)
        _check_buffers(self.relation_encoder)
        self.post_init()

    @classmethod
    def from_backbone(cls, backbone, config=None, backbone_overrides=None, **kwargs):
        """
        A new, untrained model around a bare pretrained encoder.

        Args:
            backbone (`str`): name or folder of an encoder that `AutoModel` loads.
            config (`CommConfig`, *optional*): its `text_config` is replaced by the encoder's own.
            backbone_overrides (`dict`, *optional*): fields of the encoder's configuration to change, such as
                `{"attention_probs_dropout_prob": 0.0}`, which makes training on CPU faster.
            kwargs: fields of [`CommConfig`] (not together with `config`), and `cache_dir`, `revision`, `token`,
                `local_files_only`, `attn_implementation` for loading.

        Returns:
            the model in float32: the encoder's weights pretrained, the relation encoder's newly initialised.

        Raises:
            ValueError: the encoder cannot serve, or its checkpoint is a pickle or lacks weights that the model uses.
        """
        loading = {key: kwargs.pop(key) for key in _HUB_ARGUMENTS if key in kwargs}
        attention = kwargs.pop("attn_implementation", None)
        if config is not None and kwargs:
            raise ValueError(
                f"from_backbone: pass either config or its fields, not both (got config and {sorted(kwargs)})"
            )
        text_config = load_backbone_config(backbone, **loading)
        for field, value in (backbone_overrides or {}).items():
            if not hasattr(text_config, field):
                raise ValueError(f"backbone_overrides: {text_config.model_type!r} has no field {field!r}")
            setattr(text_config, field, value)
        check_backbone_config(text_config)
        if config is None:
            _check_given(kwargs)
            config = CommConfig(text_config=text_config, **kwargs)
            _check_unknown(config, kwargs)
        else:
            given_config = config
            fields = config.to_dict() | {"text_config": text_config}
            config = type(config)(**{key: value for key, value in fields.items() if key != "model_type"})
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
        encoder, info = AutoModel.from_pretrained(
            backbone,
            config=text_config,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
            **loading,
        )
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

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        windows=None,
        document_mask=None,
        mention_positions=None,
        mention_entities=None,
        entity_mask=None,
        pair_index=None,
        labels=None,
        inputs_embeds=None,
        num_items_in_batch=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        output_entity_attention=None,
    ) -> CommOutput | tuple:
        """
        W windows of L word pieces; B documents of C word pieces, M mentions and E entities at most; P pairs. All of it is
        what the processor returns; with `input_ids` and `attention_mask` alone the logits are empty.

        Args:
            input_ids (`(W, L)` int64): word pieces of each window.
            attention_mask (`(W, L)` int64): 1 for word pieces, 0 for padding.
            windows (`(W, 4)` int64, *optional*): document, document position of column 0, first and one past the last column
                that stand for a word piece of the document (the others are special tokens put around the window).
            document_mask (`(B, C)` bool): real word pieces of the documents.
            mention_positions (`(B, M)` int64): document position of each mention's start marker, -1 where cut off or padding.
            mention_entities (`(B, M)` int64): entity of each mention, -1 for padding.
            entity_mask (`(B, E)` bool): real entities.
            pair_index (`(P, 3)` int64): document, head, tail of the pairs wanted.
            labels (`(P, R + 1)`, *optional*): 0/1; the threshold class's column is ignored.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): pairs that the loss's sum is divided by instead of this
                batch's (gradient accumulation, several processes).
            output_entity_attention (`bool`, *optional*): return `entity_attention` too.
        """
        self._refuse_data_parallel()
        return_dict = self.config.return_dict if return_dict is None else return_dict
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        with_pairs = pair_index is not None
        where = {"windows": windows, "document_mask": document_mask, "mention_positions": mention_positions}
        where |= {"mention_entities": mention_entities, "entity_mask": entity_mask}
        missing = [name for name, value in where.items() if value is None] if with_pairs else []
        if missing or (labels is not None and not with_pairs):
            raise ValueError(
                f"COMM's forward lacks {', '.join(missing) or 'pair_index'}; the processor returns all of it"
            )
        reads_rows = self._reads_rows()
        if output_attentions and reads_rows:
            logger.warning_once(
                "COMM returns attentions with attn_implementation='eager' only; with 'sdpa' they are None."
            )
            output_attentions = False
        rows = self._mention_rows(windows, mention_positions) if with_pairs else None
        arguments = {"mention_rows": rows[0]} if with_pairs and reads_rows else {}
        encoded = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=with_pairs or output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **arguments,
        )
        states = encoded.last_hidden_state
        loss = entity_attention = None
        if with_pairs:
            attention = self._attention_at(encoded.attentions[-1], *rows, reads_rows)
            documents = self._documents(
                states, attention, windows, document_mask, mention_positions, mention_entities, entity_mask, pair_index
            )
            logits = self.relation_encoder(documents)
            if output_entity_attention:
                entity_attention = pool_entity_attention(documents)
            if labels is not None:
                self_pairs = entity_mask.sum() if self.relation_encoder.self_pairs_in_loss else None
                loss = self._loss(logits, labels, num_items_in_batch, self_pairs)
        else:
            logits = states.new_zeros(0, self.config.num_labels)
            pair_index = torch.zeros(0, 3, dtype=torch.long, device=states.device)
        output = CommOutput(
            loss=loss,
            logits=logits,
            pair_index=pair_index,
            hidden_states=encoded.hidden_states if output_hidden_states else None,
            attentions=encoded.attentions if output_attentions else None,
            entity_attention=entity_attention,
        )
        return output if return_dict else output.to_tuple()

    def _loss(self, logits, labels, num_items_in_batch, self_pairs=None):
        loss_function = loss_from_config(self.config)
        mean = self.config.loss_reduction == "mean"
        if self_pairs is None and (num_items_in_batch is None or not mean):
            return loss_function(logits, labels, reduction=self.config.loss_reduction)
        loss = loss_function(logits, labels, reduction="sum")
        pairs = len(logits)
        if self_pairs is not None:  # so many rows of zeros more, see `RelationEncoder`
            zeros = logits.new_zeros(1, self.config.num_labels)
            loss = loss + self_pairs * loss_function(zeros, zeros, reduction="sum")
            pairs = (pairs + self_pairs).clamp(min=1)
        return loss / (pairs if num_items_in_batch is None else num_items_in_batch) if mean else loss

    def _reads_rows(self):
        """Whether the backbone returns the mentions' attention rows alone; with eager attention it returns all rows."""
        text_config = self.backbone.config
        check_attention_implementation(text_config._attn_implementation)
        if text_config._attn_implementation == "sdpa":  # by `set_attn_implementation`, which does not know ours
            text_config._attn_implementation = SDPA_WITH_ROWS
        return text_config._attn_implementation == SDPA_WITH_ROWS

    @staticmethod
    def _mention_rows(windows, mention_positions):
        """Column of every mention of its document in each window `(W, M)`, and whether the window really holds it."""
        _, offset, first, end = windows[:, :, None].unbind(1)
        positions = mention_positions[windows[:, 0]]
        columns = positions - offset
        inside = (positions >= 0) & (columns >= first) & (columns < end)
        return torch.where(inside, columns, 0), inside

    def _attention_at(self, attention, columns, inside, reads_rows):
        """Attention rows `(W, M, A, L)`, zero where the window does not hold the mention."""
        if not reads_rows:
            if attention.shape[-1] != attention.shape[-2]:
                raise ValueError(
                    f"{self.config.text_config.model_type!r} cannot be COMM's backbone: its attentions have the shape "
                    f"{tuple(attention.shape)}; expected (windows, heads, length, length)"
                )
            index = columns[:, None, :, None].expand(-1, attention.shape[1], -1, attention.shape[-1])
            attention = attention.gather(2, index)
        return torch.where(inside[:, :, None, None], attention.transpose(1, 2), 0.0)

    @staticmethod
    def _documents(
        states, attention, windows, document_mask, mention_positions, mention_entities, entity_mask, pair_index
    ):
        """Merges windows into documents: states averaged where windows overlap, attention summed and renormalised."""
        batch, length = document_mask.shape
        if windows.shape[0] == batch:  # one window a document: nothing to merge
            token_states = torch.where(document_mask[:, :, None], states, 0.0)
        else:
            column = torch.arange(states.shape[1], device=states.device)
            kept = (column >= windows[:, 2:3]) & (column < windows[:, 3:4])
            # Cells outside the document (special tokens put around a window, padding) go to one spare row at the end.
            spare = batch * length
            cell = torch.where(kept, windows[:, :1] * length + windows[:, 1:2] + column, spare).flatten()
            times = torch.zeros(spare + 1, device=states.device, dtype=states.dtype)
            times = times.index_add(0, cell, torch.ones_like(cell, dtype=states.dtype))[:spare, None]
            token_states = states.new_zeros(spare + 1, states.shape[-1]).index_add(0, cell, states.flatten(0, 1))
            token_states = (token_states[:spare] / times.clamp(min=1)).view(batch, length, -1)
            mentions, heads = attention.shape[1:3]
            merged = attention.new_zeros(spare + 1, mentions * heads)
            merged = merged.index_add(0, cell, attention.permute(0, 3, 1, 2).reshape(-1, mentions * heads))
            merged = merged[:spare].view(batch, length, mentions, heads).permute(0, 2, 3, 1)
            merged = at_least_float32(merged)  # the small number below is 0 in float16
            attention = merged / (merged.sum(-1, keepdim=True) + 1e-10)
        found = mention_positions >= 0
        index = torch.where(found, mention_positions, 0)[:, :, None].expand(-1, -1, token_states.shape[-1])
        return EncodedDocuments(
            token_states=token_states,
            mention_states=torch.where(found[:, :, None], token_states.gather(1, index), 0.0),
            mention_attention=attention,
            mention_entities=torch.where(found, mention_entities, -1),
            entity_mask=entity_mask,
            pair_index=pair_index,
        )

    def _refuse_data_parallel(self):
        if getattr(self, "_is_replica", False):
            raise RuntimeError(
                "COMM does not run under torch.nn.DataParallel, which cuts its flat pair tensors apart. Start one process a "
                "GPU instead: torchrun --nproc_per_node NUMBER_OF_GPUS run_docre.py ... (or set CUDA_VISIBLE_DEVICES=0)"
            )
