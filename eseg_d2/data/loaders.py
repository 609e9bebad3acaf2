"""Build the loaders of a config's data sets."""

from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from torch.utils.data import DataLoader

from eseg_d2.data.datasets.panoptic_format import dataset_dicts, is_panoptic
from eseg_d2.data.mapper import EvaluationMapper, LabelCheckedMapper, PanopticMapper
from eseg_d2.data.train_loader import TrainLoader, explained
from eseg_d2.utils.errors import RunError

__all__ = ["TestLoader", "build_test_loader", "build_train_loader"]


class TestLoader:
    """Yields this process's share of a data set, in batches of one sample."""

    __test__ = False  # not a test for pytest

    def __init__(self, loader: DataLoader):
        """Take Detectron2's loader, with an :class:`EvaluationMapper`."""
        self._loader = loader
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in explained(self._loader):
            for sample in batch:
                if isinstance(sample, str):
                    raise RunError(
                        f"{sample}\n  Evaluation needs every image: repair the file, or remove it "
                        "from the data set (tools/check_dataset.py finds all that are broken)."
                    )
            yield batch


def build_train_loader(cfg: CfgNode, *, seed: int) -> TrainLoader:
    """Build the loader of DATASETS.TRAIN, for any kind of data set that Detectron2 supports.

    Args:
        cfg: config of the run.
        seed: seed of order and augmentation, equal in all processes.

    Raises:
        ValueError: the sampler is unknown, or the batch does not divide.
    """
    name = cfg.DATASETS.TRAIN[0]
    if is_panoptic(name):
        images = [image for name in cfg.DATASETS.TRAIN for image in dataset_dicts(name)]
        mapper = PanopticMapper(cfg, name)
    else:
        images = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
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
    mapper = EvaluationMapper(cfg)
    if is_panoptic(dataset_name):
        loader = build_detection_test_loader(
            dataset_dicts(dataset_name), mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
        )
    else:
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
    return TestLoader(loader)


def _build_sampler(
    cfg: CfgNode, images: list[dict], seed: int
) -> TrainingSampler | RepeatFactorTrainingSampler:
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
                f"annotations, but {cfg.DATASETS.TRAIN[0]} has none: set it to TrainingSampler"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            images, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    raise ValueError(
        f"DATALOADER.SAMPLER_TRAIN is {kind!r}; expected TrainingSampler, "
        "RandomSubsetTrainingSampler or RepeatFactorTrainingSampler"
    )
