"""Loading, saving and initialisation of COMM models."""

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .backbone_attention import without_capturing_hooks
from .config_checks import read_fields
from .configuration_comm import CommConfig
from .extensions import extension_files, save_extensions
from .other_labels import HUB_ARGUMENTS, take_other_labels
from .pipeline_comm import LoadingArguments  # saving copies the code that this imports: the pipeline too
from .safe_weights import check_weights
from .saved_folder import replacing_folder
from .settings import SettingError


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

    def __getstate__(self) -> dict[str, Any]:
        return without_capturing_hooks(self).__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # In a process that never built such a backbone, Transformers does not know that its attention can be captured.
        for module in self.modules():
            if isinstance(module, PreTrainedModel):
                PreTrainedModel.__init__(module.__new__(type(module)), module.config)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: CommConfig | str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> Any:
        """Loads a finished COMM checkpoint; see [`PreTrainedModel.from_pretrained`] for all arguments. Weights are read from
        safetensors, never from a pickle, whatever other files there are.

        Args:
            id2label (`dict[int, str]`, *optional*): other relations than the checkpoint's, for further training. Needs
                `ignore_mismatched_sizes=True`, as in Transformers; see [`set_labels`] for what becomes of the weights.

        Raises:
            ValueError: the checkpoint is a bare encoder or a pickle (the message says what to do instead), or lacks weights; or
                `id2label` is not the checkpoint's, and `ignore_mismatched_sizes` is not set.
        """
        hub = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
        if isinstance(config, PreTrainedConfig):
            fields = vars(config)
        else:
            fields = read_fields(config or pretrained_model_name_or_path, **hub)
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
                quantized="quantization_config" in {*fields, *kwargs},
                **hub,
            )
        config, other_labels = take_other_labels(pretrained_model_name_or_path, config, fields, kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        mismatches = kwargs.pop("ignore_mismatched_sizes", False)
        trusted = kwargs.pop("trust_remote_code", None) is True  # the processor may need it
        model, info = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            config=config,
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
        if not mismatches:
            check_sizes(pretrained_model_name_or_path, info)
        missing = sorted(info["missing_keys"])
        if missing and not wants_info:  # a caller who asks for the loading info looks at it
            raise ValueError(
                f"{pretrained_model_name_or_path!r} lacks {len(missing)} weights of this model, which would have stayed "
                f"untrained: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
            )
        model.loading_arguments = LoadingArguments(trust_remote_code=trusted, **hub)
        if other_labels is not None:
            model.set_labels(**other_labels)
        return (model, info) if wants_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Saves weights, configuration and code, that of a user's own encoder or loss included; see Transformers'. They take
        the places of what was in the folder together, or not at all; see [`~saved_folder.replacing_folder`]."""
        if push_to_hub and extension_files(self.config):
            expected = "False, then push_to_hub(repo_id), which sends the model's own code too"
            raise SettingError("save_pretrained", "push_to_hub", push_to_hub, expected)
        kwargs |= {"is_main_process": is_main_process, "push_to_hub": push_to_hub}
        if not is_main_process or kwargs.get("distributed_checkpoint"):  # several processes write into one folder
            super().save_pretrained(save_directory, **kwargs)
            return
        if push_to_hub:
            kwargs.setdefault("repo_id", Path(save_directory).name)
        with replacing_folder(save_directory) as folder:
            super().save_pretrained(folder, **kwargs)
            save_extensions(self.config, folder)


def check_sizes(source: Any, info: dict) -> None:
    """Raises `ValueError` where weights that were read have other sizes than the model's; `info` is what loading returned."""
    if wrong := sorted(info["mismatched_keys"]):
        name, found, expected = wrong[0]
        raise ValueError(
            f"{str(source)!r}: {len(wrong)} weights have other sizes than the configuration says, such as {name}: found "
            f"{tuple(found)}, expected {tuple(expected)}"
        )
