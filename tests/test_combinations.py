"""Backbones, pyramids, heads and meta-architectures combine freely."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

import eseg_d2

RES = ["res2", "res3", "res4", "res5"]
BACKBONES = {
    ("resnet", "fpn"): ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"],
    ("resnet", "bifpn"): ["MODEL.BACKBONE.NAME", "build_bifpn_backbone"],
    ("efficientnet", "fpn"): ["MODEL.BACKBONE.NAME", "build_efficientnet_fpn_backbone"],
    ("efficientnet", "bifpn"): [
        *("MODEL.BACKBONE.NAME", "build_bifpn_backbone"),
        *("MODEL.BIFPN.BOTTOM_UP", "build_efficientnet_backbone"),
    ],
}
HEADS = ("SemSegFPNHead", "RSPHead", "ESegHead")
KINDS = {"semantic": "SemanticSegmentor", "panoptic": "PanopticRCNN"}
SETTINGS = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.MASK_ON", "True"),
    *("MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.DEPTH", "18"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.OUT_FEATURES", str(RES)),
    *("MODEL.FPN.IN_FEATURES", str(RES), "MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.BIFPN.IN_FEATURES", str(RES), "MODEL.BIFPN.OUT_CHANNELS", "32"),
    *("MODEL.BIFPN.MIN_LEVEL", "2", "MODEL.BIFPN.MAX_LEVEL", "7"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['p2', 'p3', 'p4', 'p5']"),
    *("MODEL.RSP_HEAD.CHANNELS", "32"),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", "8"),
    *("MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p3', 'p4', 'p5']"),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", "1"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32"),
    *("MODEL.RPN.IN_FEATURES", "['p2', 'p3', 'p4', 'p5', 'p6']"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16], [32], [64], [128]]"),
    *("DATASETS.TRAIN", "('scenes_cityscapes_panoptic_train',)"),
]


def example():
    torch.manual_seed(0)
    instances = Instances((64, 96))
    masks = torch.zeros(1, 64, 96, dtype=torch.bool)
    masks[0, 20:50, 30:70] = True
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.tensor([2])
    sem_seg = torch.randint(0, 19, (64, 96))
    return {"image": torch.rand(3, 64, 96) * 255, "sem_seg": sem_seg, "instances": instances}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES, ids="-".join)
def test_every_combination_trains_a_step_and_predicts(backbone, head, kind):
    cfg = get_cfg()
    eseg_d2.add_eseg_config(cfg)
    names = ["MODEL.SEM_SEG_HEAD.NAME", head, "MODEL.META_ARCHITECTURE", KINDS[kind]]
    cfg.merge_from_list([*SETTINGS, *BACKBONES[backbone], *names])
    model = build_model(cfg)
    batch = [example(), example()]
    with EventStorage(0):
        losses = model.train()(batch)
    assert "loss_sem_seg" in losses and ("loss_mask" in losses) == (kind == "panoptic")
    sum(losses.values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # levels of the pyramid that no head reads get no gradients
    assert not [n for n in missing if not n.startswith(("backbone.repeats", "backbone.extra"))]
    with torch.no_grad():
        (out,) = model.eval()([{"image": batch[0]["image"], "height": 64, "width": 96}])
    assert out["sem_seg"].shape == (19, 64, 96)
    assert ("panoptic_seg" in out) == (kind == "panoptic")
