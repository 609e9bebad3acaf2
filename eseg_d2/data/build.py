"""The loaders of a config's data sets."""

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)

from eseg_d2.data.label_check import LabelCheckedMapper
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.data.test_loader import EvaluationMapper, TestLoader
from eseg_d2.data.train_loader import TrainLoader

__all__ = ["build_test_loader", "build_train_loader"]


def build_train_loader(cfg: CfgNode, *, seed: int) -> TrainLoader:
    """The loader of DATASETS.TRAIN, of any kind that Detectron2 knows.

    Args:
        cfg: of the run.
        seed: of order and augmentation, the same in all processes.

    Raises:
        ValueError: an unknown sampler, or a batch that does not divide.
    """
    images = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    name = cfg.DATASETS.TRAIN[0]
    if MetadataCatalog.get(name).get("panoptic_json"):
        mapper = PanopticMapper(cfg, name)
    else:
        mapper = LabelCheckedMapper(cfg, DatasetMapper(cfg, True))
    parts = cfg.SOLVER.ACCUMULATE_STEPS
    return TrainLoader(
        images,
        mapper,
        _build_sampler(cfg, images, seed),
        batch_size=cfg.SOLVER.IMS_PER_BATCH * parts,
        num_parts=parts,
        group_by_orientation=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        prefetch=cfg.DATALOADER.PREFETCH,
        pin_memory=cfg.DATALOADER.PIN_MEMORY,
        seed=seed,
        max_bad_samples=cfg.DATALOADER.MAX_BAD_SAMPLES,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> TestLoader:
    """Build Detectron2's loader for evaluation, whose errors name the image."""
    loader = build_detection_test_loader(cfg, dataset_name, mapper=EvaluationMapper(cfg))
    return TestLoader(loader)


def _build_sampler(cfg: CfgNode, images: list[dict], seed: int) -> TrainingSampler:
    kind = cfg.DATALOADER.SAMPLER_TRAIN
    if kind == "TrainingSampler":
        return TrainingSampler(len(images), seed=seed)
    if kind == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
        return RandomSubsetTrainingSampler(
            len(images), ratio, seed_shuffle=seed, seed_subset=seed + 1
        )
    if kind == "RepeatFactorTrainingSampler":
        if "annotations" not in images[0]:
            raise ValueError(
                "DATALOADER.SAMPLER_TRAIN is RepeatFactorTrainingSampler, which needs instance "
                f"annotations, and {cfg.DATASETS.TRAIN[0]} has none: set it to TrainingSampler"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            images, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    raise ValueError(
        f"DATALOADER.SAMPLER_TRAIN is {kind!r}; expected TrainingSampler, "
        "RandomSubsetTrainingSampler or RepeatFactorTrainingSampler"
    )
