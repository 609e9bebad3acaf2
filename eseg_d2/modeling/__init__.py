"""Components of the models; importing this registers them with Detectron2."""

from eseg_d2.modeling.backbone.bifpn import BiFPN
from eseg_d2.modeling.backbone.efficientnet import EfficientNet, TimmHandler
from eseg_d2.modeling.backbone.rsp_pyramid import RSPPyramid
from eseg_d2.modeling.meta_arch.panoptic_rcnn import PanopticRCNN
from eseg_d2.modeling.sem_seg.deeplab_head import AnySizeDeepLabV3Head
from eseg_d2.modeling.sem_seg.eseg_head import ESegHead
from eseg_d2.modeling.sem_seg.rsp_head import RSPHead

__all__ = [
    "AnySizeDeepLabV3Head",
    "BiFPN",
    "ESegHead",
    "EfficientNet",
    "PanopticRCNN",
    "RSPHead",
    "RSPPyramid",
    "TimmHandler",
]
