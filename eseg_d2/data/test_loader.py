"""Detectron2's loader for evaluation, whose errors name the image."""

from collections.abc import Callable, Iterable, Iterator

from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

from eseg_d2.data.panoptic_png import require_whole_image
from eseg_d2.data.workers import explained
from eseg_d2.errors import BadSampleError, RunError

__all__ = ["NamingMapper", "TestLoader"]


class NamingMapper:
    """Gives the message in place of a sample that cannot be read: exceptions of worker processes
    arrive as tracebacks.
    """

    def __init__(self, mapper: Callable[[dict], dict]):
        self._mapper = mapper

    def __call__(self, dataset_dict: dict) -> dict | str:
        errors = (OSError, SyntaxError, ValueError, SizeMismatchError, Image.DecompressionBombError)
        try:
            require_whole_image(dataset_dict["file_name"])
            return self._mapper(dataset_dict)
        except BadSampleError as e:
            return str(e)
        except errors as e:
            return f"cannot read the image {dataset_dict['file_name']}: {e}."


class TestLoader:
    """Batches of one sample, as many as the data set has for this process."""

    __test__ = False  # no test of pytest's

    def __init__(self, loader: Iterable[list]):
        """
        Args:
            loader: Detectron2's, with a :class:`NamingMapper`.
        """
        self._loader = loader
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in explained(self._loader, self._loader.num_workers):
            for sample in batch:
                if isinstance(sample, str):
                    raise RunError(
                        f"{sample}\n  Evaluation needs every image: mend the file, or take it out "
                        "of the data set (tools/check_dataset.py finds all that are broken)."
                    )
            yield batch
