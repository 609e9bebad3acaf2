"""Make a file of weights and its card of a finished run."""

import hashlib
import tempfile
from pathlib import Path

from eseg_d2 import Predictor
from eseg_d2.apps.cards.examples import example_metrics
from eseg_d2.config import load_config
from eseg_d2.engine import Trainer, load_trained
from eseg_d2.engine.output_dir import plain_results
from eseg_d2.export.convert_weights import convert_weights
from eseg_d2.utils.json_yaml import read_json, write_json

__all__ = ["pack_run"]

ARCHITECTURES = ("PanopticRCNN", "SemanticSegmentor")


def pack_run(
    run: Path, target: Path, *, config_file: str, test_set: str, use: str, examples: Path
) -> dict:
    """Write ``target`` (``.safetensors``, half precision) and its card, a json beside it.

    The metrics in the card are those of the written file, measured anew.

    Args:
        run: OUTPUT_DIR of a run that has ended.
        target: the file to write.
        config_file: of ``configs/``, that the run was started with.
        test_set: the data set that the model is evaluated on.
        use: who may use the weights for what, in a sentence.
        examples: see :func:`~eseg_d2.apps.cards.examples.example_metrics`.

    Returns:
        The card.

    Raises:
        FileNotFoundError: the run, its ``run.json`` or ``model_final.pth`` is not there.
        ValueError: the run's model is not that of the config, or is neither semantic nor panoptic.
    """
    provenance = read_json(run / "run.json")
    convert_weights(str(run / "model_final.pth"), str(target), half=True)
    trained = load_config(str(run / "config.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "MODEL.WEIGHTS": str(target),
            "DATASETS.TEST": (test_set,),
            "OUTPUT_DIR": folder,
        }
        overrides = [str(word) for item in options.items() for word in item]
        cfg = load_config(config_file, overrides)
        results = Trainer.test(cfg, load_trained(cfg, architectures=ARCHITECTURES))
        shown = example_metrics(Predictor.from_config(cfg), examples)
    card = {
        "name": target.stem,
        "config": config_file,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "bytes": target.stat().st_size,
        "use": use,
        "data": {name: provenance["datasets"][name]["images"] for name in trained.DATASETS.TRAIN},
        "recipe": {
            "iterations": trained.SOLVER.MAX_ITER,
            "images an iteration": trained.SOLVER.IMS_PER_BATCH,
            "learning rate": trained.SOLVER.BASE_LR,
            "seed": trained.SEED,
            "command": " ".join(_portable(word) for word in provenance["command"][1:]),
        },
        "commit": provenance["git"]["commit"],
        "environment": provenance["environment"],
        "metrics": {"data set": test_set, **_rounded(results)},
        "examples": {name: round(value, 2) for name, value in shown.items()},
    }
    write_json(target.with_suffix(".json"), card, indent=1, sort_keys=False)
    return card


def _portable(word: str) -> str:
    """Return the word; of an absolute path, which says nothing to others, only its name."""
    return f".../{Path(word).name}" if Path(word).is_absolute() else word


def _rounded(results: dict) -> dict:
    """Return the results of each task, in percent; None where there is no number."""
    return {
        task: {name: None if value is None else round(value, 2) for name, value in metrics.items()}
        for task, metrics in plain_results(results).items()
    }
