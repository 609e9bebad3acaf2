"""What of a file of weights went into a model, and whether it is of that model at all."""

from collections import Counter
from collections.abc import Collection, Sequence

from torch import nn

from eseg_d2.utils.errors import listing

__all__ = ["WeightsSummary"]

# Detectron2's loader fills these in, or they are counted anew
_NOT_NEEDED = ("pixel_mean", "pixel_std", "running_mean", "running_var", "num_batches_tracked")


class WeightsSummary:
    """Of one loading.

    Attributes:
        loaded: number of tensors that the model took.
        missing: names of the model's tensors that the file lacks.
        unexpected: names of the file's tensors that the model lacks.
        mismatched: (name, shape in the file, shape in the model).
    """

    def __init__(
        self,
        path: str,
        model: nn.Module,
        *,
        given: int,
        missing: Sequence[str],
        unexpected: Sequence[str],
        mismatched: Sequence[tuple],
    ):
        """
        Args:
            path: of the file, for the messages.
            model: that was loaded.
            given: number of tensors in the file.
            missing, unexpected, mismatched: as fvcore's ``Checkpointer`` gives them.
        """
        self.path = path
        self._model = model
        self.mismatched = list(mismatched)
        self.unexpected = list(unexpected)
        differing = {name for name, _, _ in mismatched}
        self.missing = [n for n in missing if n not in differing and not n.endswith(_NOT_NEEDED)]
        self.loaded = given - len(self.unexpected) - len(differing)

    def __str__(self) -> str:
        total = len(self._model.state_dict())
        parts = [f"Weights of {self.path}: {self.loaded} of the model's {total} tensors loaded"]
        if self.missing:
            parts.append(
                f"{len(self.missing)} missing, left as they were ({_groups(self.missing)})"
            )
        if self.mismatched:
            parts.append(f"{len(self.mismatched)} of another shape, left out ({self._shapes()})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} not used ({_groups(self.unexpected)})")
        return "; ".join(parts)

    def require_same_model(self) -> None:
        """For what evaluates or resumes.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        if self.missing or self.mismatched:
            raise ValueError(
                f"the weights are not of this model. {self}.\n  "
                f"{self._hint()}Give the config that they were trained with, or other weights."
            )

    def require_similar_model(self) -> None:
        """For what starts to train from the weights: new heads are fine, another network is not.

        Raises:
            ValueError: most of the file does not fit, or the bottom-up is another one.
        """
        given = self.loaded + len(self.unexpected) + len(self.mismatched)
        if 2 * self.loaded < given:
            raise ValueError(
                f"the weights are of another network. {self}.\n  Most of the file does not fit: "
                "give weights of this architecture, or MODEL.WEIGHTS '' to start from random ones."
            )
        prefix = "backbone.bottom_up."
        parameters = {name for name, _ in self._model.named_parameters() if name.startswith(prefix)}
        missing = [name for name in self.missing if name in parameters]
        if missing and len(missing) < len(parameters):
            raise ValueError(
                f"MODEL.WEIGHTS {self.path} lacks {len(missing)} of the {len(parameters)} "
                f"parameters of backbone.bottom_up ({listing(missing)}): they are of another "
                "depth or kind. Set the bottom-up's keys (MODEL.RESNETS.DEPTH, ...) to those of "
                "the weights, or give other weights."
            )

    def _shapes(self) -> str:
        return listing(
            [f"{n}: {tuple(file)}, model {tuple(own)}" for n, file, own in self.mismatched]
        )

    def _hint(self) -> str:
        for name, of_file, own in self.mismatched:
            if len(of_file) == len(own) and of_file[1:] == own[1:] and "predict" in name:
                return (
                    f"{name} has {of_file[0]} outputs in the file and {own[0]} in the model: the "
                    "numbers of classes differ, which this project takes from the data set. "
                )
        return ""


def _groups(names: Collection[str]) -> str:
    """Names by their first parts, with the number of each."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return listing([f"{group}.*: {count}" for group, count in counts.most_common()], limit=5)
