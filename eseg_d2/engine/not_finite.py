"""What to do about a loss or gradient that is not finite."""

import logging
from collections.abc import Sequence

from detectron2.utils import comm

from eseg_d2.engine.checkpoint import what_is_kept
from eseg_d2.engine.train_step import NotFiniteError
from eseg_d2.utils.errors import RunError, listing

__all__ = ["NotFiniteGuard"]

logger = logging.getLogger(__name__)


class NotFiniteGuard:
    """Leaves out a bounded number of steps, then ends the run; says which images it was.

    Attributes:
        skipped: steps that were left out so far.
    """

    def __init__(self, output_dir: str, max_skipped: int):
        """
        Args:
            output_dir: of the run, with its checkpoints.
            max_skipped: so many steps may be left out in the whole run.
        """
        self._output_dir = output_dir
        self._max_skipped = max_skipped
        self.skipped = 0

    def handle(
        self, error: NotFiniteError, parts: Sequence[list[dict]], *, iteration: int, lr: float
    ) -> None:
        """Called in all processes, after the weights were left as they were.

        Args:
            error: of this process.
            parts: its share of the batch.
            iteration: from 0.
            lr: the learning rate.

        Raises:
            RunError: too many steps have been left out.
        """
        files = [sample.get("file_name", "?") for part in parts for sample in part]
        reports = comm.all_gather((str(error), files))
        figures = "; ".join(dict.fromkeys(figures for figures, _ in reports))
        images = listing([file for _, files in reports for file in files], limit=64)
        message = (
            f"loss or gradient not finite at iteration {iteration} (lr {lr:.5g}): {figures}.\n"
            f"  Images of the batch: {images}"
        )
        self.skipped += 1
        if self.skipped <= self._max_skipped:
            logger.warning(
                "%s\n  The step is left out, %d of SOLVER.MAX_SKIPPED_STEPS %d",
                message,
                self.skipped,
                self._max_skipped,
            )
            return
        last = what_is_kept(self._output_dir, "last good")
        raise RunError(
            f"{message}\n  {last} Look at these images (tools/check_dataset.py, "
            "tools/browse_dataset.py), or lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, set "
            "SOLVER.CLIP_GRADIENTS.ENABLED True; then go on with --resume. "
            f"SOLVER.MAX_SKIPPED_STEPS (now {self._max_skipped}) lets a run leave such steps out."
        )
