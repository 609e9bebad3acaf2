"""Score prediction files with cityscapesscripts: a program, which reads and prints json.

It is run in a process of its own, since cityscapesscripts keeps its settings in its modules,
prints, writes files beside the user's, and calls a function that NumPy 2.4 has no more.
"""

import contextlib
import io
import json
import math
import sys
from collections.abc import Callable

import numpy as np


def main() -> None:
    """Read ``{kind: arguments}`` from the standard input, and print ``{metric: percent}``."""
    vars(np)["in1d"] = np.isin  # cityscapesscripts calls it
    scores: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for kind, arguments in json.load(sys.stdin).items():
            scores |= _KINDS[kind](**arguments)
    print(json.dumps(scores))


def _pixels(predictions: list[str], truths: list[str]) -> dict[str, float]:
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

    results = official.evaluateImgLists(predictions, truths, _quiet(official.args))
    return {
        "IoU": 100 * results["averageScoreClasses"],
        "iIoU": 100 * results["averageScoreInstClasses"],
        "IoU_sup": 100 * results["averageScoreCategories"],
        "iIoU_sup": 100 * results["averageScoreInstCategories"],
    }


def _instances(folder: str, predictions: list[str], truths: list[str]) -> dict[str, float]:
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official

    official.args.predictionPath = folder
    official.args.gtInstancesFile = ""  # else it would keep the truth's instances for later
    official.writeDict2JSON = lambda *_: None  # of matches, into the current folder
    results = official.evaluateImgLists(predictions, truths, _quiet(official.args))["averages"]
    return {"AP": 100 * results["allAp"], "AP50": 100 * results["allAp50%"]}


def _panoptic(paths: list[str]) -> dict[str, float]:
    from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic

    suffixes = {"All": "", "Things": "_th", "Stuff": "_st"}
    metrics = ("pq", "sq", "rq")
    try:
        results = evaluatePanoptic(*paths)
    except ZeroDivisionError:  # neither truth nor prediction has a thing, or any stuff
        results = {key: dict.fromkeys(metrics, math.nan) for key in suffixes}
    return {
        metric.upper() + suffix: 100 * results[key][metric]
        for key, suffix in suffixes.items()
        for metric in metrics
    }


def _quiet(args):
    args.JSONOutput, args.colorized, args.quiet = False, False, True
    return args


_KINDS: dict[str, Callable[..., dict[str, float]]] = {
    "sem_seg": _pixels,
    "instances": _instances,
    "panoptic_seg": _panoptic,
}

if __name__ == "__main__":
    main()
