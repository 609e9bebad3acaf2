"""Detectron2's DeepLabV3 head, for images of any size."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import DeepLabV3Head

__all__ = ["AnySizeDeepLabV3Head"]


@SEM_SEG_HEADS_REGISTRY.register()
class AnySizeDeepLabV3Head(DeepLabV3Head):
    """DeepLabV3 whose image-level feature is the mean over the whole map, as in its paper.

    With INPUT.CROP Detectron2's own head takes it from windows of the crop's size, and refuses maps
    that the crop does not divide: other test sizes, and most sizes of TEST.AUG. On a crop both are
    the same function, and their weights have the same names.
    """

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]):
        """
        Args:
            cfg: a Detectron2 config with the keys of its DeepLab project.
            input_shape: what the backbone gives.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.CROP.ENABLED = False  # read by Detectron2's head for the window alone
        super().__init__(cfg, input_shape)
