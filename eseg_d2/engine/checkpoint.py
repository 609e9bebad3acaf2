"""Checkpoints that survive a kill, a full disk and a damaged file."""

import contextlib
import errno
import logging
import os
import re
import shutil

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import distributed, nn

from eseg_d2.engine.weights import (
    WeightsSummary,
    check_normalization,
    fetch_weights,
    in_detectron2_form,
)
from eseg_d2.modeling.gpu import set_precision
from eseg_d2.utils.errors import RunError
from eseg_d2.utils.files import remove_leftovers, write_atomically
from eseg_d2.utils.weights_file import UnreadableWeightsError, read_weights_file

__all__ = [
    "TRAINING_MODEL",
    "SafeCheckpointer",
    "find_checkpoints",
    "load_trained",
    "load_weights",
    "tag_file",
    "what_is_kept",
]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"model_(\d{7}|final)\.pth")
# The weights in training, in a checkpoint whose "model" is their moving average
TRAINING_MODEL = "training_model"
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room on the disk"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "Make the folder writable"),
}


def tag_file(folder: str) -> str:
    """Return the path of the file that names the checkpoint to resume from."""
    return os.path.join(folder, "last_checkpoint")


def find_checkpoints(folder: str) -> list[str]:
    """Return the paths of a run's checkpoints: the tagged one first, then from newest to oldest.

    The best checkpoints (``model_best_*.pth``) hold only weights and are not among them.
    """
    if not os.path.isdir(folder):
        return []
    paths = [os.path.join(folder, name) for name in os.listdir(folder) if _NAME.fullmatch(name)]
    paths = [path for path in paths if os.path.isfile(path)]  # no dangling link
    paths.sort(key=lambda path: (os.path.getmtime(path), path), reverse=True)
    tagged = os.path.join(folder, _tagged_name(folder) or "")
    if tagged in paths:
        paths.remove(tagged)
        paths.insert(0, tagged)
    return paths


def _tagged_name(folder: str) -> str | None:
    if not os.path.isfile(tag_file(folder)):
        return None
    with open(tag_file(folder), errors="replace") as f:
        return os.path.basename(f.read(4096).strip())


def what_is_kept(folder: str, kind: str = "last") -> str:
    """Return a sentence that names the checkpoint from which a run that ends now can be resumed."""
    kept = find_checkpoints(folder)
    return f"The {kind} checkpoint is {kept[0]}." if kept else "There is no checkpoint yet."


def load_weights(model: nn.Module, path: str) -> None:
    """Load weights into a model for evaluation.

    Args:
        model: changed in place.
        path: a local file or any path of Detectron2's PathManager; "" loads nothing.

    Raises:
        ValueError: the file is damaged, holds more than weights, or belongs to another model.
    """
    summary = SafeCheckpointer(model).load_weights(path)
    if summary:
        summary.require_same_model()


def load_trained(cfg: CfgNode, *, architectures: tuple[str, ...]) -> nn.Module:
    """Build the model of a config in evaluation mode with MODEL.WEIGHTS ("" keeps random weights).

    Args:
        cfg: not changed.
        architectures: values of MODEL.META_ARCHITECTURE that the caller supports.

    Raises:
        ValueError: the model has another architecture, or the weights belong to another model.
        FileNotFoundError: MODEL.WEIGHTS cannot be found or downloaded.
    """
    if cfg.MODEL.META_ARCHITECTURE not in architectures:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; expected "
            f"{' or '.join(architectures)}"
        )
    fetch_weights(cfg.MODEL.WEIGHTS)
    set_precision(cfg)
    model = build_model(cfg).eval()
    load_weights(model, cfg.MODEL.WEIGHTS)
    return model


class SafeCheckpointer(DetectionCheckpointer):
    """A checkpointer that writes atomically, and executes nothing in the files that it reads.

    The main process reads and sends the content to the others: only it needs access to the files.
    """

    def save(self, name: str, **extra: object) -> None:
        """Write a checkpoint to resume from; a deleted folder is created again.

        Raises:
            RunError: the file cannot be written, or the weights are not finite. Earlier files are
                left untouched.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: part.state_dict() for key, part in self.checkpointables.items()}
        file_name = f"{name}.pth"
        self._write(file_name, {"model": self.model.state_dict(), **states, **extra})
        self.tag_last_checkpoint(file_name)

    def save_weights(self, name: str, **extra: object) -> None:
        """Write only the model's weights, not to be resumed from; raises like :meth:`save`."""
        if self.save_dir and self.save_to_disk:
            self._write(f"{name}.pth", {"model": self.model.state_dict(), **extra})

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = tag_file(self.save_dir)
        try:
            write_atomically(path, lambda f: f.write(last_filename_basename.encode()))
        except OSError as e:
            raise self._not_written(path, e, len(last_filename_basename)) from e

    def has_checkpoint(self) -> bool:
        """Return whether the main process finds a checkpoint. Call it in all processes."""
        return bool(_of_main_process(find_checkpoints(self.save_dir)))

    def remove_leftovers(self) -> None:
        if self.save_to_disk:
            remove_leftovers(self.save_dir)

    def resume(self) -> dict:
        """Load the newest readable checkpoint into the model and all checkpointables.

        Returns:
            The remaining entries, such as ``iteration``.

        Raises:
            RunError: no checkpoint can be read.
            ValueError: the checkpoint belongs to another model.
        """
        failures = []
        found = _of_main_process(find_checkpoints(self.save_dir))
        tagged = _tagged_name(self.save_dir)
        if found and tagged not in (None, os.path.basename(found[0])):
            text = "%s names %r, which is not a checkpoint in its folder: the newest one is used"
            logger.warning(text, tag_file(self.save_dir), tagged[:100])
        for path in found:
            try:
                content = self._read(path)
                if self.checkpointables and not self.checkpointables.keys() & content.keys():
                    text = f"{path} holds only weights, and no state to resume from"
                    raise UnreadableWeightsError(text)
            except (UnreadableWeightsError, OSError) as e:
                logger.error("%s", e)
                failures.append(str(e))
                continue
            level = logging.WARNING if failures else logging.INFO
            logger.log(level, "Resuming from %s", path)
            self._adapt_average(content)
            self._load_tensors(content, path).require_same_model()
            for key, part in self.checkpointables.items():
                if key in content:
                    part.load_state_dict(content.pop(key))
            return content
        reasons = "\n  ".join(failures or ["there is none"])
        raise RunError(
            f"--resume, but no checkpoint in OUTPUT_DIR {self.save_dir!r} can be read:\n  {reasons}"
            "\n  Start a new run in another OUTPUT_DIR, with a readable file as MODEL.WEIGHTS."
        )

    def load_weights(self, path: str, cfg: CfgNode | None = None) -> WeightsSummary | None:
        """Load the model's weights; None if ``path`` is "".

        Args:
            path: a local file, or any path of Detectron2's PathManager.
            cfg: config of a training, whose normalisation must be that of the file, if it says one.

        Raises:
            UnreadableWeightsError: the file is damaged, or holds more than weights.
            ValueError: MODEL.PIXEL_MEAN or MODEL.PIXEL_STD differ from those of the weights.
        """
        if not path:
            logger.info("MODEL.WEIGHTS is empty: the model starts from random weights.")
            return None
        content = self._read(path)
        if cfg is not None:
            check_normalization(content, path, cfg)
        return self._load_tensors(content, path)

    def _read(self, path: str) -> dict:
        """Return the content of the file in Detectron2's form, which has the key "model"."""
        content = error = None
        if comm.is_main_process():
            try:
                content = read_weights_file(self.path_manager.get_local_path(path))
                content = in_detectron2_form(content, path)
            except (UnreadableWeightsError, OSError) as e:  # the other processes wait for it
                error = e
        content, error = _of_main_process((content, error))
        if error:
            raise error
        return content

    def _adapt_average(self, content: dict) -> None:
        """Adapt a checkpoint without a moving average to a run that has one, or vice versa."""
        if TRAINING_MODEL in content and TRAINING_MODEL not in self.checkpointables:
            content["model"] = content.pop(TRAINING_MODEL)
            logger.warning(
                "The checkpoint was written with MODEL_EMA.ENABLED True, but it is False now: the "
                "run continues with the trained weights, and their moving average is dropped"
            )
        elif TRAINING_MODEL in self.checkpointables and TRAINING_MODEL not in content:
            content[TRAINING_MODEL] = dict(content["model"])
            logger.warning(
                "The checkpoint was written with MODEL_EMA.ENABLED False, but it is True now: the "
                "moving average starts from the checkpoint's weights"
            )

    def _load_tensors(self, content: dict, path: str) -> WeightsSummary:
        given = set(content["model"])
        try:
            incompatible = self._load_model(content)
        except ValueError as e:  # raised when Detectron2 matches names
            raise ValueError(
                f"the weights of {path} cannot be loaded: {e} They may belong to another network."
            ) from e
        summary = WeightsSummary(path, self.model, given, incompatible)
        is_odd = summary.mismatched or summary.is_partial
        logger.log(logging.WARNING if is_odd else logging.INFO, "%s", summary)
        return summary

    def _load_model(self, checkpoint: dict):
        if checkpoint.get("matching_heuristics", False):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["matching_heuristics"] = False
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(),
                checkpoint["model"],
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
        return super()._load_model(checkpoint)

    def _write(self, file_name: str, content: dict) -> None:
        path = os.path.join(self.save_dir, file_name)
        _require_finite(content["model"], path)
        needed = _size(content, set())
        logger.info("Saving checkpoint to %s", path)
        try:
            os.makedirs(self.save_dir, exist_ok=True)
            if needed > shutil.disk_usage(self.save_dir).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_atomically(path, lambda f: torch.save(content, f))
        except (OSError, RuntimeError) as e:
            # PyTorch's writer hides the system's error behind its own
            cause = e if isinstance(e, OSError) else e.__context__
            if not isinstance(cause, OSError):
                raise
            raise self._not_written(path, cause, needed) from e

    def _not_written(self, path: str, error: OSError, needed: int) -> RunError:
        room = f"it needs {needed / 2**20:.1f} MiB"
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.save_dir).free
            room += f", and the disk has {free / 2**20:.1f} MiB left"
        return RunError(
            f"{path} cannot be written: {error}; {room}. {what_is_kept(self.save_dir)} "
            f"{_ADVICE.get(error.errno or 0, 'Fix this')}, then continue with --resume."
        )


def _of_main_process(value):
    """Return the main process's value in all processes."""
    if comm.get_world_size() == 1:
        return value
    values = [value if comm.is_main_process() else None]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def _require_finite(weights: dict[str, torch.Tensor], path: str) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise RunError(
                f"{path} is not written because {name} is not finite: the training has diverged. "
                "Continue from the last checkpoint (--resume) with a lower SOLVER.BASE_LR or "
                "SOLVER.CLIP_GRADIENTS.ENABLED True."
            )


def _size(content, counted: set[int]) -> int:
    """Return roughly how many bytes ``torch.save`` needs, which writes shared memory once.

    The addresses of the memory that is ``counted`` are updated in place.
    """
    if isinstance(content, torch.Tensor):
        storage = content.untyped_storage()
        is_new = storage.data_ptr() not in counted
        counted.add(storage.data_ptr())
        return 256 + (storage.nbytes() if is_new else 0)
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple):
        is_short = len(content) < 10000
        return sum(_size(part, counted) for part in content) if is_short else 16 * len(content)
    return 16
