"""Compare the time and memory of the pixel-to-region relation with a textbook implementation."""

import itertools
import shutil
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eseg_d2.apps.benchmarks.measure import peak_memory, take_turns
from eseg_d2.layers.relation import PixelToRegionRelation

__all__ = [
    "benchmark_relation",
    "count_relation",
    "format_row",
    "table_header",
    "textbook_relation",
    "without_position",
]

COPY_BYTES = 2**28  # the size of the tensor whose copy measures the memory bandwidth


def textbook_relation(query, key, value, *, num_heads, region_size):
    """Compute the relation without position terms by unfolding key and value at the query's size.

    Shapes and results are those of :class:`~eseg_d2.layers.relation.PixelToRegionRelation`.
    """
    if query.shape[-2] % 2 or query.shape[-1] % 2:
        even = F.pad(query, (0, query.shape[-1] % 2, 0, query.shape[-2] % 2))
        context = textbook_relation(even, key, value, num_heads=num_heads, region_size=region_size)
        return context[..., : query.shape[-2], : query.shape[-1]]
    b, c, height, width = query.shape
    k, heads = region_size, num_heads

    def regions(x):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        # neighbours of a parent cell are two pixels apart in the upsampled map
        return F.unfold(x, k, dilation=2, padding=2 * (k // 2)).unflatten(1, (-1, k * k))

    query = query.view(b, heads, c // heads, 1, height * width) * (c // heads) ** -0.5
    logits = (query * regions(key).unflatten(1, (heads, -1))).sum(2)
    inside = regions(torch.ones_like(key[:1, :1]))
    weights = logits.masked_fill(inside == 0, float("-inf")).softmax(2)
    context = (weights.unsqueeze(2) * regions(value).unflatten(1, (heads, -1))).sum(3)
    return context.view(b, value.shape[1], height, width)


def without_position(relation: PixelToRegionRelation) -> PixelToRegionRelation:
    """Set the position terms to zero, as in :func:`textbook_relation`; return the relation."""
    for parameter in relation.parameters():
        torch.nn.init.zeros_(parameter)
    return relation


def benchmark_relation(
    *,
    channels: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    region_sizes: Sequence[int],
    num_heads: int = 8,
    repeats: int = 7,
    device: str = "cpu",
    compiled: bool = False,
) -> Iterator[dict]:
    """Measure every combination, both the forward pass alone and forward with backward.

    The implementations take turns, so that other load on the machine affects all of them. They get
    the same float32 inputs of batch size 1, and must agree before they are timed.

    Args:
        channels: C of query, key and value.
        sizes: (H, W) of the query, in pixels.
        region_sizes: k.
        num_heads: number of heads.
        repeats: timed rounds, after one to warm up.
        device: "cpu" or "cuda".
        compiled: also time both implementations under ``torch.compile``.

    Yields:
        A dict for every row of the table: the combination; "seconds", for each implementation a
        dict of median, min and max; "peak_bytes" of the eager ones (see
        :func:`~eseg_d2.apps.benchmarks.measure.peak_memory`); "speedup" and "memory_ratio" over the
        eager textbook one; and on a GPU the "bandwidth_fraction" of each: the bytes that must
        move, over the time, over the bandwidth of a large copy.
    """
    bandwidth = _copy_bandwidth(device) if device != "cpu" else None
    for c, (height, width), k in itertools.product(channels, sizes, region_sizes):
        inputs = _inputs(c, height, width, device)
        ways = _ways(c, k, num_heads, device, compiled)
        with torch.no_grad():
            expected = ways["textbook"](*inputs)
            for way in ways.values():
                torch.testing.assert_close(way(*inputs), expected, rtol=1e-4, atol=1e-4)
            del expected
        for backward in (False, True):
            calls = {name: _call(way, inputs, backward) for name, way in ways.items()}
            seconds = take_turns(calls, repeats, device)
            peaks = {name: peak_memory(calls[name], device) for name in ("textbook", "relation")}
            base = seconds["textbook"]["median"]
            row = {
                "channels": c,
                "size": [height, width],
                "region_size": k,
                "pass": "forward+backward" if backward else "forward",
                "seconds": seconds,
                "speedup": {name: base / times["median"] for name, times in seconds.items()},
                "peak_bytes": peaks,
                "memory_ratio": peaks["relation"] / peaks["textbook"],
            }
            if bandwidth is not None:
                least = _least_bytes(inputs, backward) / bandwidth
                row["bandwidth_fraction"] = {n: least / t["median"] for n, t in seconds.items()}
            yield row


def count_relation(
    *, channels: int, size: tuple[int, int], region_size: int, num_heads: int = 8
) -> dict[str, dict[str, int]]:
    """Count what the relation's forward pass launches on a GPU.

    No GPU is needed: eager operations, except views, are counted on fake tensors that claim to be
    on one; the compiled kernels are those that Inductor generates, here for the CPU.

    Args:
        channels: C of query, key and value, float32, batch size 1.
        size: (H, W) of the query, in pixels.
        region_size: k.
        num_heads: number of heads.

    Returns:
        "kernels" under "eager" and, if there is a C++ compiler, under "compiled"; under "eager"
        also the "bytes" that its kernels read and write; and under "least" the "bytes" of the
        inputs and the output.
    """
    options = {"num_heads": num_heads, "region_size": region_size}
    with torch.no_grad(), FakeTensorMode(), torch.device("cuda"):
        relation = PixelToRegionRelation(channels, **options)
        inputs = _inputs(channels, *size, "cuda")
        with _Count() as count:
            relation(*inputs)
        counts = {
            "eager": {"kernels": count.kernels, "bytes": count.bytes},
            "least": {"bytes": _least_bytes(inputs, backward=False)},
        }
    if shutil.which("g++") or shutil.which("clang++"):
        counts["compiled"] = {"kernels": _compiled_kernels(channels, size, options)}
    return counts


class _Count(TorchDispatchMode):
    """Counts kernels, and the bytes of their operands and results."""

    kernels = bytes = 0
    _FREE = (torch.ops.aten.empty, torch.ops.aten.detach, torch.ops.aten._unsafe_view)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if tensors and not func.is_view and func.overloadpacket not in self._FREE:
            tensors += [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            self.kernels += 1
            self.bytes += sum(x.nbytes for x in tensors)
        return result


def _compiled_kernels(channels: int, size: tuple[int, int], options: dict) -> int:
    from torch._inductor import config, metrics

    torch._dynamo.reset()
    metrics.reset()
    relation = PixelToRegionRelation(channels, **options)
    with torch.no_grad(), config.patch(force_disable_caches=True):
        torch.compile(relation, fullgraph=True)(*_inputs(channels, *size, "cpu"))
    return metrics.generated_kernel_count


def table_header() -> str:
    return (
        f"{'C':>4} {'query':>9} {'k':>2} {'pass':<17} {'way':<20} {'median ms':>10} "
        f"{'min - max ms':>18} {'speed':>7} {'peak MiB':>9} {'memory':>7} {'bandwidth':>9}"
    )


def format_row(row: dict) -> str:
    """Return the table's lines for one row of :func:`benchmark_relation`."""
    size = "x".join(map(str, row["size"]))
    start = f"{row['channels']:>4} {size:>9} {row['region_size']:>2} {row['pass']:<17}"
    lines = []
    for name, times in row["seconds"].items():
        spread = f"{times['min'] * 1e3:.1f} - {times['max'] * 1e3:.1f}"
        line = f"{start} {name:<20} {times['median'] * 1e3:>10.1f} {spread:>18}"
        line += f" {row['speedup'][name]:>6.2f}x"
        if name in row["peak_bytes"]:
            peak = row["peak_bytes"][name]
            line += f" {peak / 2**20:>9.1f} {peak / row['peak_bytes']['textbook']:>6.2f}x"
        else:
            line += f" {'-':>9} {'-':>7}"
        if "bandwidth_fraction" in row:
            line += f" {row['bandwidth_fraction'][name]:>9.1%}"
        else:
            line += f" {'-':>9}"
        lines.append(line)
    return "\n".join(lines)


def _inputs(c, height, width, device):
    cells = ((height + 1) // 2, (width + 1) // 2)
    generator = torch.Generator("cpu").manual_seed(0)
    shapes = ((1, c, height, width), (1, c, *cells), (1, c, *cells))
    inputs = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    return [x.requires_grad_() for x in inputs]


def _ways(c, k, num_heads, device, compiled):
    def textbook(query, key, value):
        return textbook_relation(query, key, value, num_heads=num_heads, region_size=k)

    relation = PixelToRegionRelation(c, num_heads=num_heads, region_size=k)
    relation = without_position(relation).to(device)
    ways = {"textbook": textbook, "relation": relation}
    if compiled:
        torch._dynamo.reset()  # otherwise sizes become dynamic after the first row, and slower
        ways["textbook, compiled"] = torch.compile(textbook)
        ways["relation, compiled"] = torch.compile(relation)
    return ways


def _call(way, inputs, backward):
    if not backward:
        return torch.no_grad()(lambda: way(*inputs))
    grad = torch.ones_like(inputs[0])
    return lambda: torch.autograd.grad(way(*inputs), inputs, grad)


def _copy_bandwidth(device):
    """Return the number of bytes that a large copy reads and writes in a second."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    spent = take_turns({"copy": lambda: target.copy_(source)}, 10, device)["copy"]["median"]
    return 2 * COPY_BYTES / spent


def _least_bytes(inputs, backward):
    """Return the number of bytes that must move at least.

    Forward reads the inputs and writes the context, which has the query's size; backward reads the
    inputs and the context's gradient, and writes the inputs' gradients.
    """
    query = inputs[0].nbytes
    everything = sum(x.nbytes for x in inputs)
    forward = everything + query
    return forward + everything + query + everything if backward else forward
