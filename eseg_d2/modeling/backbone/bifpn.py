"""BiFPN: a weighted bidirectional feature pyramid over any Detectron2 backbone."""

from collections.abc import Callable, Sequence
from functools import partial

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eseg_d2.layers.fusion import BiFPNLayer, FusionNode
from eseg_d2.layers.resample import conv1x1_norm, make_downsampling
from eseg_d2.modeling.backbone.pyramid import Pyramid, build_bottom_up
from eseg_d2.utils.errors import check_choice

__all__ = ["BiFPN", "build_bifpn_backbone"]

_EXTRA_LEVELS = ("pool_conv", "pool")
_LOWEST_LEVEL, _HIGHEST_LEVEL = 2, 9


class BiFPN(Pyramid):
    """BiFPN (EfficientDet, arXiv 1911.09070) with levels up to P9 (ESeg, arXiv 2203.12683).

    Level l has stride 2**l. The bottom-up gives the first ones; those above are made from its last:
    P6 by a 1x1 convolution to the pyramid's width, norm and pooling, P7 and up by pooling, followed
    (`extra_levels="pool_conv"`) by a 1x1 convolution and norm, or (`"pool"`, as in EfficientDet)
    by nothing. The first is our choice for the levels that ESeg adds.

    Sizes need not divide: level l + 1 has the size of level l halved and rounded up, and resampling
    goes to the target's size. `size_divisibility` is therefore the one of the bottom-up, or the
    stride of its last feature if that is more (Detectron2's ResNets state 0): this is what
    Detectron2's own heads, which upsample by exactly 2, need, and P9 never forces multiples of 512.

    Norm: the top levels are only a few cells large. There "BN" has few values to take statistics
    from, and where it has a single one (a 1x1 map, one image) it takes the running statistics and
    leaves them as they are (:class:`~eseg_d2.layers.separable_conv.ConvNorm`). "SyncBN" on several
    GPUs has more values, "GN" does not depend on the batch, "FrozenBN" is the identity unless
    weights are loaded.

    Shape:
        image (N, C, H, W), H and W >= the stride of the last in_feature, to {"p3": float
        (N, out_channels, ceil(H / 8), ceil(W / 8)), ...} for a bottom-up that rounds up.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        min_level: int,
        max_level: int,
        out_channels: int,
        num_repeats: int = 1,
        norm: str = "BN",
        norm_momentum: float = 0.01,
        norm_eps: float = 1e-3,
        fusion: str = "fast_normalized",
        activation: str = "swish",
        separable: bool = True,
        downsample: str = "max_pool",
        extra_levels: str = "pool_conv",
    ):
        """
        Args:
            bottom_up: any backbone that gives `in_features` with their channels and strides.
            in_features: names of the bottom-up's features for the levels from `min_level` on, in
                any order: their strides tell the levels.
            min_level: lowest level; `in_features` start at stride 2**min_level.
            max_level: highest level, above `min_level`; levels are within 2..9.
            out_channels: channels of every level, the width of the pyramid.
            num_repeats: how often the top-down and bottom-up passes are repeated, >= 1.
            norm: name of a norm as Detectron2's `get_norm` knows it: "BN", "SyncBN", "GN",
                "FrozenBN", or "" for none.
            norm_momentum: momentum of batch norms in PyTorch's sense: the part of the new value.
            norm_eps: epsilon of batch norms; both defaults are EfficientDet's.
            fusion: "fast_normalized" or "sum".
            activation: "swish" or "relu".
            separable: depthwise separable 3x3 convolutions in the nodes, or full ones.
            downsample: "max_pool" (PyTorch's padding) or "max_pool_same" (TensorFlow's).
            extra_levels: "pool_conv" or "pool", see above.

        Raises:
            ValueError: an option is unknown, a level out of range, or `in_features` are not
                features of the bottom-up with strides 2**min_level, 2**(min_level + 1), ...
        """
        check_choice("extra_levels", extra_levels, _EXTRA_LEVELS)
        if num_repeats < 1:
            raise ValueError(f"MODEL.BIFPN.NUM_REPEATS is {num_repeats}; expected >= 1")
        names = _sort_in_features(bottom_up.output_shape(), in_features, min_level, max_level)
        shapes = [bottom_up.output_shape()[name] for name in names]
        super().__init__(
            bottom_up,
            min_level=min_level,
            max_level=max_level,
            channels=out_channels,
            size_divisibility=max(bottom_up.size_divisibility, shapes[-1].stride),
        )
        self.in_features = names
        make_norm = partial(_make_norm, norm, norm_momentum, norm_eps)
        channels = [shape.channels for shape in shapes]
        self.extra_levels = nn.ModuleDict()
        for level in range(min_level + len(shapes), max_level + 1):
            self.extra_levels[f"p{level}"] = _make_extra_level(
                channels[-1], out_channels, make_norm, make_downsampling(downsample), extra_levels
            )
            channels.append(out_channels)
        make_node = partial(
            FusionNode,
            norm=make_norm,
            fusion=fusion,
            activation=activation,
            separable=separable,
            downsample=downsample,
        )
        self.repeats = nn.ModuleList(
            BiFPNLayer(
                in_channels=[out_channels] * len(channels) if repeat else channels,
                out_channels=out_channels,
                make_node=make_node,
            )
            for repeat in range(num_repeats)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        bottom_up = self.bottom_up(x)
        features = [bottom_up[name] for name in self.in_features]
        for extra_level in self.extra_levels.values():
            features.append(extra_level(features[-1]))
        for layer in self.repeats:
            features = layer(features)
        return dict(zip(self._out_features, features, strict=True))


@BACKBONE_REGISTRY.register()
def build_bifpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> BiFPN:
    """Build a :class:`BiFPN` and its bottom-up from `cfg.MODEL.BIFPN`.

    Args:
        cfg: a Detectron2 config with our keys.
        input_shape: shape of the image, handed to the bottom-up's builder.

    Raises:
        ValueError: MODEL.BIFPN.BOTTOM_UP is not registered; and see :class:`BiFPN`.
    """
    bifpn = cfg.MODEL.BIFPN
    bottom_up = build_bottom_up(
        cfg,
        input_shape,
        node="BIFPN",
        pyramid="build_bifpn_backbone",
        expected="a backbone without a pyramid",
    )
    return BiFPN(
        bottom_up=bottom_up,
        in_features=bifpn.IN_FEATURES,
        min_level=bifpn.MIN_LEVEL,
        max_level=bifpn.MAX_LEVEL,
        out_channels=bifpn.OUT_CHANNELS,
        num_repeats=bifpn.NUM_REPEATS,
        norm=bifpn.NORM,
        norm_momentum=bifpn.NORM_MOMENTUM,
        fusion=bifpn.FUSION,
        activation=bifpn.ACTIVATION,
    )


def _make_extra_level(
    in_channels: int,
    out_channels: int,
    norm: Callable[[int], nn.Module | None],
    pool: nn.Module,
    extra_levels: str,
) -> nn.Sequential:
    """What makes a level above the bottom-up's last from the level below it."""
    if in_channels != out_channels:
        return nn.Sequential(conv1x1_norm(in_channels, out_channels, norm), pool)
    if extra_levels == "pool":
        return nn.Sequential(pool)
    return nn.Sequential(pool, conv1x1_norm(out_channels, out_channels, norm))


def _make_norm(name: str, momentum: float, eps: float, channels: int) -> nn.Module | None:
    if name == "GN" and (channels < 64 or channels % 32):
        raise ValueError(
            f"MODEL.BIFPN.NORM 'GN' with MODEL.BIFPN.OUT_CHANNELS {channels}: GN has 32 groups, "
            "which must hold several channels each (a group of one is normalised to zero on a "
            "1x1 map); take 64 channels or another multiple of 32, or another norm"
        )
    try:
        norm = get_norm(name, channels)
    except KeyError:
        raise ValueError(
            f"MODEL.BIFPN.NORM is {name!r}; expected 'BN', 'SyncBN', 'GN', 'FrozenBN' or ''"
        ) from None
    if isinstance(norm, _BatchNorm):
        norm.momentum, norm.eps = momentum, eps
    return norm


def _sort_in_features(
    shapes: dict[str, ShapeSpec], in_features: Sequence[str], min_level: int, max_level: int
) -> list[str]:
    """Check the levels, and return `in_features` from the lowest level to the highest."""
    if not _LOWEST_LEVEL <= min_level < max_level <= _HIGHEST_LEVEL:
        raise ValueError(
            f"MODEL.BIFPN.MIN_LEVEL, MAX_LEVEL are {min_level}, {max_level}; expected "
            f"{_LOWEST_LEVEL} <= MIN_LEVEL < MAX_LEVEL <= {_HIGHEST_LEVEL}"
        )
    missing = [name for name in in_features if name not in shapes]
    if missing or not in_features:
        raise ValueError(
            f"MODEL.BIFPN.IN_FEATURES is {list(in_features)}; the bottom-up gives {[*shapes]}: "
            "name some of these, or have the bottom-up give more (for Detectron2's ResNets by "
            "MODEL.RESNETS.OUT_FEATURES)"
        )
    ordered = sorted(in_features, key=lambda name: shapes[name].stride)
    got = [shapes[name].stride for name in ordered]
    expected = [2**level for level in range(min_level, max_level + 1)]
    if got != expected[: len(got)]:
        raise ValueError(
            f"MODEL.BIFPN.IN_FEATURES {ordered} have strides {got}; MIN_LEVEL {min_level} and "
            f"MAX_LEVEL {max_level} expect the first ones of {expected}: change the features, or "
            "the levels to fit them"
        )
    return ordered
