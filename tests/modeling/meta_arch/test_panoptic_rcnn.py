"""The panoptic model: training, predictions, and its relation to Detectron2's PanopticFPN."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import PanopticFPN, build_model
from detectron2.utils.events import EventStorage
from torch import nn

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.engine import load_config
from eseg_d2.modeling.meta_arch.panoptic_rcnn import detect, run_trunk
from eseg_d2.structures.mask_crops import MaskCrops


@pytest.fixture(params=["cityscapes", "coco"])
def cfg(request, root, scenes):
    path = root / f"configs/scenes/rsp_panoptic_R18_{request.param}.yaml"
    return load_config(str(path), ["INPUT.MIN_SIZE_TRAIN", "(64,)"])


def samples(cfg, count):
    name = cfg.DATASETS.TRAIN[0]
    mapper = PanopticMapper(cfg, name)
    return [mapper(record) for record in DatasetCatalog.get(name)[:count]]


def test_detector_is_initialised_as_configured(cfg):
    """Detectron2 draws the weights from N(0, 0.01) and N(0, 0.001); "scratch" draws larger ones."""

    def spread(kind):
        cfg.MODEL.PANOPTIC.INIT = kind
        torch.manual_seed(0)
        model = build_model(cfg)
        proposals = model.proposal_generator.rpn_head
        deltas = model.roi_heads.box_predictor.bbox_pred
        convolution = next(m for m in proposals.conv.modules() if isinstance(m, nn.Conv2d))
        modules = convolution, proposals.anchor_deltas, deltas
        return [float(module.weight.detach().std()) for module in modules]

    assert spread("pretrained") == pytest.approx([0.01, 0.01, 0.001], rel=0.1)
    assert spread("scratch") == pytest.approx([(2 / (64 * 9)) ** 0.5, 0.02, 0.01], rel=0.1)
    with pytest.raises(ValueError, match="MODEL.PANOPTIC.INIT is 'zero'; expected one of"):
        spread("zero")


def test_model_trains_a_step_and_predicts_contiguous_ids(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    batch = samples(cfg, 2)
    with EventStorage():
        losses = model(batch)
    assert set(losses) == {
        *("loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc"),
        *("loss_cls", "loss_box_reg", "loss_mask"),
    }
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    model.eval()
    # keep instances of every class
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    model.merge_options["score_threshold"] = 0.0
    with torch.no_grad():
        (out,) = model([{"image": batch[0]["image"], "height": 50, "width": 90}])
    space = model.label_space
    assert out["sem_seg"].shape == (space.num_semantic, 50, 90)
    assert len(out["instances"]) > 0
    assert set(out["instances"].pred_classes.tolist()) <= set(space.thing_ids)
    panoptic, segments = out["panoptic_seg"]
    assert panoptic.shape == (50, 90)
    assert {s["id"] for s in segments} | {0} >= set(panoptic.unique().tolist())
    for segment in segments:
        assert segment["isthing"] == bool(space.is_thing[segment["category_id"]])
    names = MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes
    assert names == list(space.names)

    with torch.no_grad():
        images = model.preprocess_image(batch[:1])
        features, logits = run_trunk(model, images.tensor)
        (detections,) = detect(model, images, features)
        size = images.image_sizes[0]
        compact = model.finish(logits[0], detections, size, (50, 90), compact=True)
    assert compact["sem_seg"].shape == (50, 90)
    equal = compact["sem_seg"] == out["sem_seg"].argmax(dim=0)
    assert equal.float().mean() > 0.999  # ties may be broken by rounding
    assert (compact["panoptic_seg"][0] == panoptic).all()
    masks = compact["instances"].pred_masks
    assert isinstance(masks, MaskCrops) and torch.equal(masks.tensor(), out["instances"].pred_masks)


def test_outputs_before_the_merge_equal_those_of_detectron2(cfg):
    """PanopticFPN runs the heads and post-processes on its own."""
    model = build_model(cfg).eval()
    (sample,) = samples(cfg, 1)
    inputs = [{"image": sample["image"], "height": 50, "width": 90}]
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    with torch.no_grad():
        (ours,) = model(inputs)
        (theirs,) = PanopticFPN.inference(model, inputs)
        raw = model.inference(inputs, do_postprocess=False)
        expected_raw = PanopticFPN.inference(model, inputs, do_postprocess=False)
    torch.testing.assert_close(ours["sem_seg"], theirs["sem_seg"])
    assert torch.equal(ours["instances"].pred_masks, theirs["instances"].pred_masks)
    assert torch.equal(ours["instances"].pred_boxes.tensor, theirs["instances"].pred_boxes.tensor)
    torch.testing.assert_close(raw[1], expected_raw[1])
    assert torch.equal(raw[0][0].pred_masks, expected_raw[0][0].pred_masks)


class PlainHead(nn.Module):
    """A head with nothing but the interface that Detectron2 requires."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features, targets=None):
        return self.head(features, targets)


def test_heads_need_only_the_interface_of_detectron2(cfg):
    model = build_model(cfg).eval()
    inputs = [{"image": torch.rand(3, 50, 90) * 255, "height": 60, "width": 80}]
    with torch.no_grad():
        (expected,) = model(inputs)
        model.sem_seg_head = PlainHead(model.sem_seg_head)
        (out,) = model(inputs)
    assert torch.equal(out["sem_seg"], expected["sem_seg"])
    assert (out["panoptic_seg"][0] == expected["panoptic_seg"][0]).float().mean() > 0.999


def test_inputs_without_targets_are_named(cfg):
    model = build_model(cfg)
    first, second = samples(cfg, 2)
    del second["sem_seg"], second["instances"]
    with pytest.raises(ValueError, match="lacks sem_seg and instances: .*PanopticMapper") as caught:
        model([first, second])
    assert second["file_name"] in str(caught.value)


def test_image_without_things_trains(cfg):
    model = build_model(cfg)
    (sample,) = samples(cfg, 1)
    sample["instances"] = sample["instances"][:0]
    sample["sem_seg"][:] = 255
    with EventStorage():
        losses = model([sample])
    total = sum(losses.values())
    assert torch.isfinite(total)
    assert losses["loss_sem_seg"] == 0
    total.backward()


def test_images_of_different_and_odd_sizes_are_predicted(cfg):
    model = build_model(cfg).eval()
    images = [torch.zeros(3, 37, 83), torch.zeros(3, 64, 51), torch.zeros(3, 1, 1)]
    with torch.no_grad():
        outputs = model([{"image": image} for image in images])
    for image, out in zip(images, outputs, strict=True):
        assert out["panoptic_seg"][0].shape == out["sem_seg"].shape[1:] == image.shape[1:]


def test_wrong_class_count_is_refused(cfg):
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES += 1
    with pytest.raises(ValueError, match="SEM_SEG_HEAD.NUM_CLASSES is .*eseg_d2.load_config"):
        build_model(cfg)


def test_instance_loss_weight_scales_the_same_losses_as_in_detectron2(cfg):
    """It scales the losses of boxes and masks, but not that of the box classes."""
    torch.manual_seed(0)
    plain = build_model(cfg)
    cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 0.25
    weighted = build_model(cfg)
    weighted.load_state_dict(plain.state_dict())
    batch = samples(cfg, 2)
    losses = []
    for model in plain, weighted:
        torch.manual_seed(0)
        with EventStorage():
            losses.append(model(batch))
    for name, loss in losses[0].items():
        factor = 0.25 if name in ("loss_box_reg", "loss_mask") else 1
        torch.testing.assert_close(losses[1][name], factor * loss)


def test_key_that_detectron2_no_longer_reads_is_warned_about(cfg, caplog):
    cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED = False
    build_model(cfg)
    assert any("COMBINED.ENABLED is no longer used" in r.getMessage() for r in caplog.records)


def test_training_step_is_that_of_the_installed_detectron2(cfg, monkeypatch):
    """How images and targets are padded depends on its version."""
    model = build_model(cfg)
    monkeypatch.setattr(PanopticFPN, "forward", lambda self, batch: {"loss": len(batch)})
    target = {"sem_seg": None, "instances": None}
    assert model([target, target]) == {"loss": 2}
