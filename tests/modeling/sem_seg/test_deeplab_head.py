"""DeepLabV3 on images of any size, not only that of its training crop."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import DatasetMapperTTA, build_model
from detectron2.projects.deeplab import DeepLabV3Head

from eseg_d2.engine import load_config
from eseg_d2.inference import Predictor
from eseg_d2.modeling.sem_seg.deeplab_head import AnySizeDeepLabV3Head
from eseg_d2.modeling.test_time_augmentation import SemanticTTA

SMALL = (
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "(64, 128)"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "16"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.SEM_SEG_HEAD.NORM", "BN"),
    *("INPUT.MIN_SIZE_TEST", "75", "INPUT.MAX_SIZE_TEST", "200"),
)


@pytest.fixture
def cfg(root):
    return load_config(str(root / "configs/cityscapes/deeplab_v3_R50.yaml"), [*SMALL])


def test_any_size_is_predicted_with_and_without_augmentation(cfg):
    model = build_model(cfg).eval()
    image = torch.randint(0, 256, (3, 75, 131), dtype=torch.uint8)
    with torch.no_grad():
        (out,) = model([{"image": image}])
    assert out["sem_seg"].shape == (19, 75, 131)
    tta = SemanticTTA(model, mapper=DatasetMapperTTA([48, 64, 90], 1000, True))
    assert tta([{"image": image}])[0]["sem_seg"].shape == (19, 75, 131)
    predictor = Predictor.from_model(cfg, model)
    assert predictor(image.permute(1, 2, 0).numpy()).semantic.shape == (75, 131)


def test_head_equals_that_of_detectron2_on_the_crop(cfg):
    shape = {"res5": ShapeSpec(channels=12, stride=8)}
    theirs, ours = (kind(cfg, shape).eval() for kind in (DeepLabV3Head, AnySizeDeepLabV3Head))
    torch.nn.init.normal_(theirs.predictor.weight)
    ours.load_state_dict(theirs.state_dict())
    x = {"res5": torch.randn(2, 12, 8, 16)}
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])
        with pytest.raises(ValueError, match="pool_kernel_size"):
            theirs({"res5": torch.randn(2, 12, 10, 16)})
