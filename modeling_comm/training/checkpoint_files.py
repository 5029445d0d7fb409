"""The folders `checkpoint-NUMBER` that a training leaves behind."""

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from ..utils.files import read_json
from ..utils.writer import UNFINISHED, delete_folder, remove_unfinished

logger = logging.get_logger(__name__)

_STATE = "trainer_state.json"  # written last: a checkpoint that has it is complete
_MARK = f"_checkpoint{UNFINISHED}"  # in a checkpoint that is being saved; a push leaves out names with _
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # peft's; a checkpoint of adapters has no others


def _numbered(folder):
    paths = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(paths, key=_number)


def _number(checkpoint):
    return int(checkpoint.name.split("-")[1])


def own_checkpoints(folder: str | Path) -> list[Path]:
    """The folders `checkpoint-NUMBER` that a trainer has completed, by number."""
    return [path for path in _numbered(folder) if (path / _STATE).is_file()]


def half_checkpoints(folder: str | Path) -> list[Path]:
    """Those that a trainer has begun to save, and that were not completed."""
    return [path for path in _numbered(folder) if (path / _MARK).is_file() and not (path / _STATE).is_file()]


def refuse_checkpoints_of_others(folder: str | Path) -> None:
    """
    Refuses a folder to train in where a checkpoint could be saved into somebody's own folder, and be deleted with it later.

    Args:
        folder (`str` or `Path`): the training's.

    Raises:
        ValueError: it has a `checkpoint-NUMBER` that is not empty and that no trainer has made.
    """
    own = {*own_checkpoints(folder), *half_checkpoints(folder)}
    for path in _numbered(folder):
        is_empty = path.is_dir() and not any(path.iterdir())
        if path not in own and not is_empty:
            raise ValueError(
                f"{path}: found files that no training has saved, expected a checkpoint of this training or none of this name; "
                "move it away, or choose another output_dir"
            )


@contextmanager
def being_saved(checkpoint: Path) -> Iterator[None]:
    """
    Within the context a checkpoint is incomplete, and marked as the trainer's own; after an error or a kill it stays so.

    Args:
        checkpoint (`Path`): its folder. It is created where it is missing. Files that an earlier attempt was writing are deleted.
    """
    checkpoint.mkdir(parents=True, exist_ok=True)
    mark = checkpoint / _MARK
    mark.touch()
    (checkpoint / _STATE).unlink(missing_ok=True)
    remove_unfinished(checkpoint)
    yield
    mark.unlink()


def warn_of_other_checkpoints(folder: str | Path, resume_from: str | None) -> None:
    """
    Warns of complete checkpoints with a higher number than a training begins from: to resume it could be to continue those.

    Args:
        folder (`str` or `Path`): the training's.
        resume_from (`str`, *optional*): the checkpoint that it resumes from.
    """
    state = Path(resume_from or "", _STATE)
    step = read_json(state)["global_step"] if resume_from and state.is_file() else 0
    if later := [path.name for path in own_checkpoints(folder) if _number(path) > step]:
        logger.warning(
            "%s has checkpoints of another training, or of later steps of this one, which begins from step %d: %s. They are "
            "the first that save_total_limit deletes; until then resume_from_checkpoint=True takes the last of them",
            folder,
            step,
            ", ".join(later),
        )


def delete_old_checkpoints(
    folder: str | Path, limit: int | None, step: int, best: str | None = None, *, ended: bool = False
) -> None:
    """
    Deletes the oldest checkpoints of a training, but neither the best one nor, before the training has ended, the newest; and
    what earlier calls have left that were killed while they saved or deleted one. None may be being saved meanwhile.

    Args:
        folder (`str` or `Path`): the training's.
        limit (`int`, *optional*): number of complete checkpoints to keep; by default nothing is deleted.
        step (`int`): the training's. Checkpoints with higher numbers are of an earlier training, and count as the oldest.
        best (`str`, *optional*): folder of the best checkpoint.
        ended (`bool`, defaults to `False`): whether the training needs its newest checkpoint no longer.
    """
    if not limit:
        return
    for path in Path(folder).glob(f"_checkpoint-*{UNFINISHED}"):
        remove_unfinished(folder, path.name[1:].partition(".")[0])
    checkpoints = sorted(own_checkpoints(folder), key=lambda path: (_number(path) <= step, _number(path)))
    # By name: an earlier call may have named the same folder by another path.
    kept = {path for path in checkpoints if best and path.name == Path(best).name}
    if not (ended and kept):
        kept.update(checkpoints[-1:])
    surplus = max(len(checkpoints) - max(limit, len(kept)), 0)
    for path in (*half_checkpoints(folder), *[path for path in checkpoints if path not in kept][:surplus]):
        with suppress(OSError):  # the training continues, and one checkpoint too many is kept
            delete_folder(path)


def last_complete_checkpoint(output_dir: str | os.PathLike, world_size: int = 1) -> str | None:
    """
    Newest checkpoint in `output_dir` from which training can be resumed exactly; None if there is none. A newer one that lacks a
    file or the end of one, because a run was killed while it was saved, is skipped with a warning.

    Args:
        output_dir (`str`): a run's folder.
        world_size (`int`, defaults to 1): number of processes; each has saved its random state.
    """
    random_states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    states = [_STATE, "optimizer.pt", "scheduler.pt", *random_states]
    for path in reversed(_numbered(output_dir)):
        has_adapters = (path / ADAPTER_WEIGHTS).exists()
        needed = [ADAPTER_WEIGHTS] if has_adapters else [SAFE_WEIGHTS_NAME, "config.json", "processor_config.json"]
        broken = [name for name in (*needed, *states) if not is_complete(path / name)]
        if not broken:
            return str(path)
        logger.warning("%s is skipped: %s missing or truncated", path, ", ".join(broken))
    return None


def has_weights(folder: str | Path) -> bool:
    """Returns whether a folder holds weights, none of them truncated."""
    files = list(Path(folder).glob("*.safetensors"))
    return bool(files) and all(map(is_complete, files))


def checkpoint_size(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of a checkpoint's weights and of its optimizer, about."""
    states = sum(len(state) for state in optimizer.state.values()) if optimizer is not None else 0
    weights = [parameter.numel() * parameter.element_size() for parameter in model.parameters()]
    return sum(weights) * (1 + states // max(len(weights), 1))


def is_complete(file: Path) -> bool:
    """Returns whether a file exists and is not truncated, which each of these formats tells."""
    try:
        if file.suffix == ".json":
            return isinstance(read_json(file), dict)
        elif file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
        else:  # torch.save's
            return zipfile.is_zipfile(file)
    except (OSError, ValueError, SafetensorError):
        return False
    return True
