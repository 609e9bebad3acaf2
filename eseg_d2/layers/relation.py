"""Cross-scale pixel-to-region relation: local attention from a pyramid level to the one above it.

Every pixel ``p = (y, x)`` of a level looks at a ``k x k`` region R(p) of cells of the adjacent
higher level (half the size), centred on its parent cell ``(y // 2, x // 2)``. For each head of
``d`` channels

    w(p, c) = softmax over c in R(p) of  q_p . (k_c + e_c) / sqrt(d) + b_{child(p), c}
    context(p) = sum over c in R(p) of  w(p, c) v_c

with learned embeddings ``e`` of a cell's row and column in the region (d/2 channels each) and a
learned bias ``b`` for each cell and each of the four pixels over a parent cell. Cells outside the
map get no weight. The bias starts as bilinear upsampling does: what is learned is how to do better.

This is the relation of RSP (arXiv 2106.01744). The part of the paper that we could read gives no
formula, so the form is our choice; docs/design.md has what was tried.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["PixelToRegionRelation"]

FARTHEST_WEIGHT = 0.02  # of the cells that bilinear upsampling does not look at, at the start
STRIP_ELEMENTS = 2**20  # pixels x channels at a time on a CPU: small enough for its cache


class PixelToRegionRelation(nn.Module):
    """Give every pixel the mean of its region's values, weighted as the module's formula says.

    Args:
        channels: C of query and key.
        num_heads: divides C, with an even quotient, and the channels of the value.
        region_size: k, odd.

    Raises:
        ValueError: an argument here, or a shape in ``forward`` or ``weights``, does not fit.
    """

    def __init__(self, channels: int, *, num_heads: int = 8, region_size: int = 3):
        super().__init__()
        _check_options(channels, num_heads, region_size)
        self.channels, self.num_heads, self.region_size = channels, num_heads, region_size
        self.scale = (channels // num_heads) ** -0.5
        shape = (num_heads, channels // num_heads // 2, region_size)
        self.row_embedding = nn.Parameter(torch.randn(shape) * self.scale)
        self.column_embedding = nn.Parameter(torch.randn(shape) * self.scale)
        bilinear = (1 - _offsets(region_size).abs()).clamp(min=FARTHEST_WEIGHT).prod(-1)
        self.position_bias = nn.Parameter(bilinear.log().repeat(num_heads, 1, 1))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Relate a level to the one above it; compute in float32, or float64 for such a query.

        Args:
            query: ``(B, C, H, W)``, floating point. The result has its dtype and memory format.
            key: ``(B, C, h, w)``, ``h = ceil(H / 2)``, ``w = ceil(W / 2)``.
            value: ``(B, Cv, h, w)``.

        Returns:
            The context, ``(B, Cv, H, W)``.
        """
        q, k, v, *position = self._operands(query, key, value)
        as_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if query.device.type == "cpu" and not as_graph:
            context = _InStrips.apply(self, torch.is_grad_enabled(), q, k, v, *position)
        else:
            context = self._mix(self._weigh(q, k, *position), v)
        context = _ungroup(context.flatten(1, 2), query).to(query.dtype)
        last = query.is_contiguous(memory_format=torch.channels_last) and not query.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        return context.contiguous(memory_format=layout)

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """The weights that ``forward`` uses, to look at them; arguments as there.

        Returns:
            ``(B, num_heads, k * k, H, W)``, cells row by row, summing to 1 over dimension 2.
        """
        q, k, _, *position = self._operands(query, key, key)
        weights = torch.stack(self._weigh(q, k, *position), 2)
        return _ungroup(weights.flatten(1, 2), query).unflatten(1, (self.num_heads, -1))

    # The four pixels over a cell share its region. They are put side by side (``_group``), and the
    # k * k neighbours are shifts of the small map: nothing is upsampled and nothing unfolded.

    def _weigh(
        self, query: Tensor, key: Tensor, border: Tensor, embedding: Tensor, bias: Tensor
    ) -> list[Tensor]:
        """Weights of each of the k * k cells of all pixels' regions: ``(B, heads, 4, h, w)``."""
        logits = []
        cells = zip(self._shifts(key), self._shifts(border), strict=True)
        for n, (cell, outside) in enumerate(cells):
            dot = (query * (cell + embedding[:, :, n, None, None, None])).sum(2)
            logits.append(torch.add(bias[:, :, n, None, None] + outside, dot, alpha=self.scale))
        # The softmax over a list: of a stack, torch.compile computes it anew for every channel
        top = functools.reduce(torch.maximum, [x.detach() for x in logits])
        weights = [(x - top).exp() for x in logits]
        total = functools.reduce(torch.add, weights)
        return [x / total for x in weights]

    def _mix(self, weights: list[Tensor], value: Tensor) -> Tensor:
        """The weighted sum of the regions' values: ``(B, heads, d, 4, h, w)``."""
        cells = self._shifts(value)
        context = weights[0].unsqueeze(2) * cells[0]
        for weight, cell in zip(weights[1:], cells[1:], strict=True):
            context.addcmul_(weight.unsqueeze(2), cell)
        return context

    def _operands(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Query, padded key and value, the border (0 inside the map, -inf outside), e and b.

        The query is ``(B, heads, d, 4, h, w)``; key and value have 1 in place of 4.
        """
        if not torch.jit.is_tracing():  # there sizes are tensors, and a check of them a constant
            _check_shapes(query, key, value, self.channels, self.num_heads)
        k, padding = self.region_size, 4 * (self.region_size // 2,)
        dtype = torch.promote_types(query.dtype, torch.float32)
        border = F.pad(key.new_zeros(key.shape[-2:], dtype=dtype), padding, value=float("-inf"))
        query = _group(query.to(dtype)).unflatten(1, (self.num_heads, -1))
        key, value = (F.pad(x.to(dtype), padding).contiguous() for x in (key, value))
        # not unflatten, behind which the sizes are constants in a trace
        batch, _, h, w = key.shape
        key, value = (x.reshape(batch, self.num_heads, -1, 1, h, w) for x in (key, value))
        rows = self.row_embedding.repeat_interleave(k, 2)
        embedding = torch.cat([rows, self.column_embedding.repeat(1, 1, k)], 1).to(dtype)
        return query, key, value, border, embedding, self.position_bias.to(dtype)

    def _shifts(self, padded: Tensor) -> list[Tensor]:
        """The k * k neighbours of every cell, row by row, as views."""
        k = self.region_size
        h, w = padded.shape[-2] - k + 1, padded.shape[-1] - k + 1
        return [padded[..., i : i + h, j : j + w] for i in range(k) for j in range(k)]


class _InStrips(torch.autograd.Function):
    """The relation on a CPU, as many rows at a time as fit in its cache.

    Autograd alone takes half as long again: it keeps all products, and for the gradient of each
    shift it fills a whole map and adds it.
    """

    @staticmethod
    def forward(ctx, relation, with_grad, query, key, value, *position):
        border, embedding, bias = position
        context = query.new_empty((*query.shape[:2], value.shape[2], *query.shape[3:]))
        kept = []
        for rows, cells in _strips(relation, query, value):
            operands = query[..., rows, :], key[..., cells, :], border[cells], embedding, bias
            weights = relation._weigh(*operands)
            context[..., rows, :] = relation._mix(weights, value[..., cells, :])
            if with_grad:
                kept.append(torch.stack(weights))
        ctx.relation = relation
        ctx.save_for_backward(query, key, value, embedding, *kept)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        query, key, value, embedding, *kept = ctx.saved_tensors
        relation = ctx.relation
        d_query, d_key, d_value, d_embedding = map(torch.zeros_like, (query, key, value, embedding))
        d_bias = torch.zeros_like(relation.position_bias, dtype=query.dtype)
        for (rows, cells), weights in zip(_strips(relation, query, value), kept, strict=True):
            q, g, d_q = (x[..., rows, :] for x in (query, gradient, d_query))
            maps = (x[..., cells, :] for x in (key, value, d_key, d_value))
            keys, values, d_keys, d_values = map(relation._shifts, maps)
            d_weights = torch.stack([(g * v).sum(2) for v in values])
            d_logits = weights * (d_weights - (weights * d_weights).sum(0))
            d_bias += d_logits.sum((1, 4, 5)).permute(1, 2, 0)
            d_logits *= relation.scale
            for n, (weight, d_logit) in enumerate(zip(weights, d_logits, strict=True)):
                d_q.addcmul_(d_logit.unsqueeze(2), keys[n] + embedding[:, :, n, None, None, None])
                d_cell = _sum_over_pixels(d_logit, q)
                d_embedding[:, :, n] += d_cell.sum((0, 3, 4, 5))
                d_keys[n].add_(d_cell)
                d_values[n].add_(_sum_over_pixels(weight, g))
        return None, None, d_query, d_key, d_value, None, d_embedding, d_bias


def _strips(
    relation: PixelToRegionRelation, query: Tensor, value: Tensor
) -> list[tuple[slice, slice]]:
    """Strips of rows, and of the padded cells' rows that they look at, which overlap."""
    batch, heads, d, pixels, h, w = query.shape
    row_elements = pixels * w * batch * heads * max(d, value.shape[2])
    rows = max(STRIP_ELEMENTS // max(row_elements, 1), 1)
    ends = [(top, min(top + rows, h)) for top in range(0, h, rows)]
    return [(slice(a, b), slice(a, b + relation.region_size - 1)) for a, b in ends]


def _sum_over_pixels(weight: Tensor, x: Tensor) -> Tensor:
    """The sum of ``weight * x`` over the 4 pixels over a cell: ``(B, heads, d, 1, h, w)``."""
    total = weight[:, :, None, :1] * x[:, :, :, :1]
    for n in range(1, 4):
        total.addcmul_(weight[:, :, None, n : n + 1], x[:, :, :, n : n + 1])
    return total


def _group(x: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, C, 4, h, w)``: put the 4 pixels over a cell side by side."""
    x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # like pixel_unshuffle, but faster
    return x.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def _ungroup(x: Tensor, query: Tensor) -> Tensor:
    """The inverse of ``_group``, cropped to the query's size."""
    x = x.unflatten(2, (2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
    return x[..., : query.shape[-2], : query.shape[-1]]


def _offsets(k: int) -> Tensor:
    """From the 4 pixels' centres to the k * k cells', in cells: ``(4, k * k, 2)``, row first."""
    along = torch.arange(k) - k // 2 - torch.tensor([[-0.25], [0.25]])
    rows = along[:, None, :, None].expand(2, 2, k, k)
    return torch.stack([rows, rows.permute(1, 0, 3, 2)], -1).reshape(4, k * k, 2)


def _check_options(channels: int, num_heads: int, region_size: int) -> None:
    odd = region_size > 0 and region_size % 2 == 1
    _expect(odd, "region_size", region_size, "an odd number such as 3")
    _expect(num_heads > 0, "num_heads", num_heads, "at least 1")
    d, rest = divmod(channels, num_heads)
    _expect(d > 0 and rest == 0, "channels", channels, f"a multiple of num_heads={num_heads}")
    fix = "an even number, to halve for rows and columns; take fewer heads"
    _expect(d % 2 == 0, "channels per head", d, fix)


def _check_shapes(query: Tensor, key: Tensor, value: Tensor, channels: int, num_heads: int) -> None:
    _expect(query.dim() == 4, "query dimensions", query.dim(), "4: (B, C, H, W)")
    batch, c, height, width = query.shape
    cells = ((height + 1) // 2, (width + 1) // 2)
    half = f"half of the query's {height}x{width}, rounded up"
    _expect(c == channels, "query channels", c, f"{channels}, as the module was built")
    for name, x, c in (("key", key, channels), ("value", value, value.shape[1])):
        expected = (batch, c, *cells)
        _expect(x.shape == expected, f"{name} shape", tuple(x.shape), f"{expected}: {half}")
    _expect(c % num_heads == 0, "value channels", c, f"a multiple of num_heads={num_heads}")


def _expect(condition: bool, name: str, got, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}: got {got}, expected {expected}")
