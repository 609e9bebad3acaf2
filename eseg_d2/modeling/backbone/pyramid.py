"""What our pyramids share: named levels over a bottom-up, which a key of the config names."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

__all__ = ["Pyramid", "build_bottom_up"]


class Pyramid(Backbone):
    """A backbone whose features are p<l> of stride 2**l, all of one width, over a bottom-up."""

    def __init__(
        self,
        bottom_up: Backbone,
        *,
        min_level: int,
        max_level: int,
        channels: int,
        size_divisibility: int,
    ):
        """
        Args:
            bottom_up: the backbone below.
            min_level, max_level: the lowest and the highest level.
            channels: width of every level.
            size_divisibility: multiple, in pixels, that Detectron2 pads a batch to.
        """
        super().__init__()
        self.bottom_up = bottom_up
        # What the base class makes output_shape() from.
        self._out_feature_strides = {f"p{i}": 2**i for i in range(min_level, max_level + 1)}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, channels)
        self._size_divisibility = size_divisibility

    @property
    def size_divisibility(self) -> int:
        """Multiple, in pixels, that Detectron2 pads a batch to; see the class."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The bottom-up's own (newer Detectron2), empty where it has none."""
        return getattr(self.bottom_up, "padding_constraints", {})


def build_bottom_up(
    cfg: CfgNode, input_shape: ShapeSpec, *, node: str, pyramid: str, expected: str
) -> Backbone:
    """Build the backbone that ``BOTTOM_UP`` of a node of ``cfg.MODEL`` names.

    Args:
        cfg: a Detectron2 config with our keys.
        input_shape: shape of the image, handed to the bottom-up's builder.
        node: the node's name.
        pyramid: the registered name of the pyramid's own builder, which cannot be its bottom-up.
        expected: what the message asks for.

    Raises:
        ValueError: the name is not registered, or the pyramid's own.
    """
    name = cfg.MODEL[node].BOTTOM_UP
    if name not in BACKBONE_REGISTRY or name == pyramid:
        raise ValueError(
            f"MODEL.{node}.BOTTOM_UP is {name!r}; expected the registered name of {expected}, "
            f"one of {sorted(known for known, _ in BACKBONE_REGISTRY)}"
        )
    return BACKBONE_REGISTRY.get(name)(cfg, input_shape)
