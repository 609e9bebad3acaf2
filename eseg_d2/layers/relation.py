"""Cross-scale pixel-to-region relation: local attention from a pyramid level to the one above it.

Every pixel ``(y, x)`` of a level looks at a ``k x k`` region of cells of the adjacent higher level
(half the size), centred on its parent cell ``(y // 2, x // 2)``. This is the relation of RSP (arXiv
2106.01744). The part of the paper that we could read gives no formula, so the form is our choice:
softmax attention with heads; similarity and position terms as in Stand-Alone Self-Attention
(1906.05909) or Local Relation Networks (1904.11491).

The four pixels over a cell share its region. They are put side by side (``_group``), and
the ``k * k`` neighbours are shifts of the small map: nothing is upsampled and nothing unfolded.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from eseg_d2.layers.relation_checks import check_options, check_shapes

__all__ = ["PixelToRegionRelation"]

MLP_WIDTH = 16  # our choice
STRIP_ELEMENTS = 2**20  # pixels x channels at a time on a CPU: small enough for its cache


class PixelToRegionRelation(nn.Module):
    """Gives every pixel the mean of its region's values, weighted by softmax(relation + position).

    Per head of ``d = channels / num_heads`` channels, a pixel's query q and a cell's key k relate
    by "dot_product": ``q . k / sqrt(d)``, or "squared_difference": ``-(q - k)^2``, where d is 1.
    Position is told by "row_column": learned embeddings of the cell's row and column in the region,
    d/2 channels each, added to the key (for "squared_difference" two scalars, summed: our choice);
    by "mlp": an MLP on the offset from the pixel's centre to the cell's, in cells (a quarter cell
    off the cells' grid, for each of the four pixels in its direction), added to the logit; or by
    "none". Cells outside the map get no weight.

    Args:
        channels: C of query and key; for "squared_difference" it equals num_heads.
        num_heads: divides C and the channels of the value.
        region_size: k, odd.
        similarity: "dot_product" or "squared_difference".
        position: "row_column", "mlp" or "none".

    Raises:
        ValueError: an argument here, or a shape in ``forward`` or ``weights``, does not fit.
    """

    def __init__(
        self,
        channels,
        *,
        num_heads=8,
        region_size=3,
        similarity="dot_product",
        position="row_column",
    ):
        super().__init__()
        check_options(channels, num_heads, region_size, similarity, position)
        self.channels, self.num_heads, self.region_size = channels, num_heads, region_size
        self.similarity, self.position = similarity, position
        self.scale = (channels // num_heads) ** -0.5
        if position == "row_column":
            parts = 2 if similarity == "dot_product" else 1
            shape = (num_heads, channels // num_heads // parts, region_size)
            self.row_embedding = nn.Parameter(torch.randn(shape) * self.scale)  # our choice
            self.column_embedding = nn.Parameter(torch.randn(shape) * self.scale)
        elif position == "mlp":
            layers = nn.Linear(2, MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, num_heads)
            self.mlp = nn.Sequential(*layers)
            self.register_buffer("offsets", _offsets(region_size), persistent=False)

    def forward(self, query, key, value):
        """Relates a level to the one above it; computes in float32, or float64 for such a query.

        Args:
            query: ``(B, C, H, W)``, floating point. The result has its dtype and memory format.
            key: ``(B, C, h, w)``, ``h = ceil(H / 2)``, ``w = ceil(W / 2)``.
            value: ``(B, Cv, h, w)``.

        Returns:
            The context, ``(B, Cv, H, W)``.
        """
        operands = self._operands(query, key, value)
        as_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if query.device.type == "cpu" and not as_graph:
            context = self._relate_in_strips(*operands)
        else:
            context = self._relate(*operands)
        last = query.is_contiguous(memory_format=torch.channels_last) and not query.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        return context.contiguous(memory_format=layout)

    def weights(self, query, key):
        """The weights that ``forward`` uses, to look at them; arguments as there.

        Returns:
            ``(B, num_heads, k * k, H, W)``, cells row by row, summing to 1 over dimension 2.
        """
        query, key, _, *position = self._operands(query, key, key)
        weights = torch.stack(self._weigh(query, key, *position), 2)
        return _ungroup(weights.flatten(1, 2), query).unflatten(1, (self.num_heads, -1))

    def _operands(self, query, key, value):
        """Pads key and value; adds the border (0 inside, -inf outside) and the position terms."""
        if not torch.jit.is_tracing():  # there sizes are tensors, and a check of them a constant
            check_shapes(query, key, value, self.channels, self.num_heads)
        k, padding = self.region_size, 4 * (self.region_size // 2,)
        dtype = torch.promote_types(query.dtype, torch.float32)
        border = key.new_zeros(key.shape[-2:], dtype=dtype)
        key_offset = bias = border.new_zeros(1, 1, k * k)
        if self.position == "row_column":
            rows = self.row_embedding.repeat_interleave(k, 2)
            columns = self.column_embedding.repeat(1, 1, k)
            summed = self.similarity == "squared_difference"
            key_offset = rows + columns if summed else torch.cat([rows, columns], 1)
        elif self.position == "mlp":
            bias = self.mlp(self.offsets).permute(2, 0, 1)
        key, value = (F.pad(x.to(dtype), padding).contiguous() for x in (key, value))
        border = F.pad(border, padding, value=float("-inf"))
        return query, key, value, border, key_offset.to(dtype), bias.to(dtype)

    def _relate_in_strips(self, query, key, value, border, *position):
        """``_relate``, as many rows at a time as fit in the cache; the strips of cells overlap."""
        margin = self.region_size - 1
        h, w = border.shape[0] - margin, border.shape[1] - margin
        row_elements = 4 * w * query.shape[0] * max(query.shape[1], value.shape[1])
        rows = min(max(STRIP_ELEMENTS // max(row_elements, 1), 1), h)
        parts = [query.split(2 * rows, 2)]
        for x in (key, value, border):
            x = F.pad(x, (0, 0, 0, -h % rows)).unfold(-2, rows + margin, rows)
            parts.append(x.transpose(-1, -2).unbind(-3))
        strips = zip(*parts, strict=True)
        return torch.cat([self._relate(*strip, *position) for strip in strips], 2)

    def _relate(self, query, key, value, border, *position):
        weights = self._weigh(query, key, border, *position)
        value = value.unflatten(1, (self.num_heads, -1)).unsqueeze(3)
        weights = [weight.unsqueeze(2) for weight in weights]
        cells = self._shifts(value, query)
        context = weights[0] * cells[0]
        for weight, cell in zip(weights[1:], cells[1:], strict=True):
            context.addcmul_(weight, cell)
        return _ungroup(context.flatten(1, 2), query).to(query.dtype)

    def _weigh(self, query, key, border, key_offset, bias):
        """Weights of each of the k * k cells of all pixels' regions: ``(B, heads, 4, h, w)``."""
        cells = self._shifts(key.unflatten(1, (self.num_heads, -1)).unsqueeze(3), query)
        borders = self._shifts(border, query)
        query = _group(query.to(key.dtype)).unflatten(1, (self.num_heads, -1))
        logits = []
        for n, (cell, outside) in enumerate(zip(cells, borders, strict=True)):
            cell = cell + key_offset[:, :, n, None, None, None]
            dot = self.similarity == "dot_product"
            relation = query * cell if dot else -(query - cell).square()
            position = bias[:, :, n, None, None] + outside
            logits.append(torch.add(position, relation.sum(2), alpha=self.scale))
        # The softmax over a list: of a stack, torch.compile computes it anew for every channel
        top = functools.reduce(torch.maximum, [x.detach() for x in logits])
        weights = [(x - top).exp() for x in logits]
        total = functools.reduce(torch.add, weights)
        return [x / total for x in weights]

    def _shifts(self, padded, query):
        """The k * k neighbours of every cell under the query, row by row, as views."""
        h, w, k = (query.shape[-2] + 1) // 2, (query.shape[-1] + 1) // 2, self.region_size
        return [padded[..., i : i + h, j : j + w] for i in range(k) for j in range(k)]


def _group(x):
    """``(B, C, H, W) -> (B, C, 4, h, w)``: puts the 4 pixels over a cell side by side."""
    x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # like pixel_unshuffle, but faster
    return x.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def _ungroup(x, query):
    """The inverse of ``_group``, cropped to the query's size."""
    x = x.unflatten(2, (2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
    return x[..., : query.shape[-2], : query.shape[-1]]


def _offsets(k):
    """From the 4 pixels' centres to the k * k cells', in cells: ``(4, k * k, 2)``, row first."""
    along = torch.arange(k) - k // 2 - torch.tensor([[-0.25], [0.25]])
    rows = along[:, None, :, None].expand(2, 2, k, k)
    return torch.stack([rows, rows.permute(1, 0, 3, 2)], -1).reshape(4, k * k, 2)
