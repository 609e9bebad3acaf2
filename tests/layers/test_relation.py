"""The pixel-to-region relation against loops, in every precision, traced, compiled and exported."""

import copy
import itertools
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eseg_d2.layers import relation as relation_module
from eseg_d2.layers.relation import PixelToRegionRelation


def make(heads=2, k=3, dtype=torch.float64, d=4):
    torch.manual_seed(0)
    relation = PixelToRegionRelation(heads * d, num_heads=heads, region_size=k).to(dtype)
    nn.init.normal_(relation.position_bias)  # as after some training
    return relation


def inputs(relation, height, width, *, batch=2, value_channels=None, dtype=torch.float64):
    cells = (height + 1) // 2, (width + 1) // 2
    c, cv = relation.channels, value_channels or 3 * relation.num_heads
    torch.manual_seed(1)
    shapes = (batch, c, height, width), (batch, c, *cells), (batch, cv, *cells)
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]


def logit(relation, head, q, k, i, j, y, x):
    """Return the logit of pixel (y, x) and the cell at (i, j) of its region."""
    row, column = relation.row_embedding[head, :, i], relation.column_embedding[head, :, j]
    bias = relation.position_bias[head, 2 * (y % 2) + x % 2, i * relation.region_size + j]
    return torch.dot(q, k + torch.cat([row, column])) / len(q) ** 0.5 + bias


@torch.no_grad()
def brute_force(relation, query, key, value):
    """Compute context and weights pixel by pixel."""
    k, heads = relation.region_size, relation.num_heads
    batch, _, height, width = query.shape
    h, w = key.shape[-2:]
    query, key, value = (x.unflatten(1, (heads, -1)) for x in (query, key, value))
    context = value.new_zeros(batch, heads, value.shape[2], height, width)
    weights = value.new_zeros(batch, heads, k * k, height, width)
    for b, n, y, x in itertools.product(*map(range, (batch, heads, height, width))):
        logits, cells = {}, {}
        for i, j in itertools.product(range(k), range(k)):
            cell_y, cell_x = y // 2 + i - k // 2, x // 2 + j - k // 2
            if 0 <= cell_y < h and 0 <= cell_x < w:
                q, cell = query[b, n, :, y, x], key[b, n, :, cell_y, cell_x]
                logits[i, j] = logit(relation, n, q, cell, i, j, y, x)
                cells[i, j] = value[b, n, :, cell_y, cell_x]
        for (i, j), weight in zip(logits, torch.stack([*logits.values()]).softmax(0), strict=True):
            weights[b, n, i * k + j, y, x] = weight
            context[b, n, :, y, x] += weight * cells[i, j]
    return context.flatten(1, 2), weights


def test_region_of_one_cell_is_nearest_neighbour_upsampling():
    relation = make(k=1)
    query, key, value = inputs(relation, 5, 7)
    expected = nn.functional.interpolate(value, scale_factor=2)[..., :5, :7]
    torch.testing.assert_close(relation(query, key, value), expected)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    k=st.sampled_from([1, 3, 5, 7]),
    heads=st.sampled_from([1, 2, 4]),
    strip=st.sampled_from([1, 2**19]),
)
def test_equals_brute_force(height, width, k, heads, strip):
    relation = make(heads=heads, k=k, d=2)
    tensors = inputs(relation, height, width, batch=1, value_channels=heads)
    context, weights = brute_force(relation, *tensors)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(relation_module, "STRIP_ELEMENTS", strip)
        assert (relation(*tensors) - context).abs().max() < 1e-10
        assert (relation.weights(*tensors[:2]) - weights).abs().max() < 1e-10


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 4)])
@pytest.mark.parametrize("k", [3, 7])
def test_equals_brute_force_on_maps_smaller_than_the_region(size, k):
    relation = make(k=k)
    tensors = inputs(relation, *size)
    torch.testing.assert_close(
        relation(*tensors), brute_force(relation, *tensors)[0], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("rows_at_once", [1, 10])
def test_gradients_equal_finite_differences(rows_at_once, monkeypatch):
    relation = make(d=2)
    tensors = inputs(relation, 5, 3, batch=1, value_channels=2)
    row_elements = 4 * 2 * max(relation.channels, 2)
    monkeypatch.setattr(relation_module, "STRIP_ELEMENTS", rows_at_once * row_elements)
    parameters = dict(relation.named_parameters())

    def context(query, key, value, *values):
        overrides = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(relation, overrides, (query, key, value))

    arguments = [x.requires_grad_() for x in (*tensors, *parameters.values())]
    assert torch.autograd.gradcheck(context, arguments, fast_mode=True)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 100])
def test_result_does_not_depend_on_the_strips(rows, monkeypatch):
    relation = make(k=5)
    tensors = [x.requires_grad_() for x in inputs(relation, 15, 9)]

    def run():
        context = relation(*tensors)
        return context, *torch.autograd.grad((context**2).sum(), tensors)

    expected = run()
    monkeypatch.setattr(relation_module, "STRIP_ELEMENTS", rows * 4 * 5 * 2 * relation.channels)
    for result, whole in zip(run(), expected, strict=True):
        torch.testing.assert_close(result, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("logit_scale", [0.0, 1.0, 1e4])
def test_constant_value_map_gives_that_constant(logit_scale):
    relation = make(k=5)
    query, key, value = inputs(relation, 7, 6)
    context = relation(logit_scale * query, key, torch.full_like(value, -2.5))
    torch.testing.assert_close(context, torch.full_like(context, -2.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 10), (1, 1), (2, 3)])
def test_cells_outside_the_map_have_zero_weight(size):
    relation = make()
    query, key, _ = inputs(relation, *size)
    weights = relation.weights(query * 100, key)
    cell_y = torch.arange(size[0])[:, None] // 2
    cell_x = torch.arange(size[1])[None] // 2
    for n, (dy, dx) in enumerate(itertools.product((-1, 0, 1), repeat=2)):
        inside_y = (cell_y + dy >= 0) & (cell_y + dy < key.shape[2])
        inside_x = (cell_x + dx >= 0) & (cell_x + dx < key.shape[3])
        assert not weights[:, :, n, ~(inside_y & inside_x)].any()
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights[:, :, 0]))


def test_weights_are_those_used_by_forward():
    relation = make(heads=4, k=3)
    query, key, _ = inputs(relation, 8, 8)
    weights = relation.weights(query, key)
    for cell in itertools.product(range(4), range(4)):
        value = torch.zeros(2, 4, 4, 4, dtype=torch.float64)
        value[:, :, cell[0], cell[1]] = 1.0
        context = relation(query, key, value)
        for y, x in itertools.product(range(8), range(8)):
            i, j = cell[0] - y // 2 + 1, cell[1] - x // 2 + 1
            in_region = 0 <= i < 3 and 0 <= j < 3
            expected = weights[:, :, 3 * i + j, y, x] if in_region else torch.zeros(2, 4)
            torch.testing.assert_close(context[:, :, y, x], expected, check_dtype=False)


@pytest.mark.parametrize("k", [3, 5])
def test_starts_as_bilinear_upsampling(k):
    relation = PixelToRegionRelation(8, num_heads=2, region_size=k).double()
    _, key, value = inputs(relation, 12, 16)
    query = torch.zeros(2, 8, 12, 16, dtype=torch.float64)
    context = relation(query, key, value)[..., 4:-4, 4:-4]  # where every region is complete
    upsampled = nn.functional.interpolate(value, scale_factor=2, mode="bilinear")[..., 4:-4, 4:-4]
    nearest = nn.functional.interpolate(value, scale_factor=2)[..., 4:-4, 4:-4]
    assert (context - upsampled).std() < 0.25 * (context - nearest).std()


def test_four_pixels_of_a_cell_get_different_weights():
    query, key, _ = inputs(make(), 8, 8)
    weights = make().weights(torch.ones_like(query), torch.ones_like(key))
    assert (weights[..., 2:4, 2:4].flatten(-2).std(-1) > 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(dtype):
    relation = make(dtype=torch.float32)
    tensors = inputs(relation, 7, 6, dtype=dtype)
    expected = relation(*(x.float() for x in tensors))
    context = relation(*tensors)
    assert context.dtype == dtype
    torch.testing.assert_close(context, expected.to(dtype), rtol=0, atol=0)
    assert relation.weights(*tensors[:2]).dtype == torch.float32
    tensors[0] = tensors[0] * 1e4  # products beyond float16's range
    assert relation(*tensors).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_returns_its_dtype_and_gives_gradients_in_float32(dtype):
    relation = make(dtype=torch.float32)
    convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
    tensors = inputs(relation, 7, 6, value_channels=8, dtype=torch.float32)
    expected = relation(*(conv(x) for conv, x in zip(convs, tensors, strict=True)))
    with torch.autocast("cpu", dtype=dtype):
        context = relation(*(conv(x) for conv, x in zip(convs, tensors, strict=True)))
    assert context.dtype == dtype
    torch.testing.assert_close(context.float(), expected, rtol=0.05, atol=0.05)
    context.float().sum().backward()
    gradients = [p.grad for p in (*convs.parameters(), *relation.parameters())]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("strip", [1, 2**19])
def test_memory_format_is_that_of_the_query(strip, monkeypatch):
    monkeypatch.setattr(relation_module, "STRIP_ELEMENTS", strip)
    relation = make()
    tensors = inputs(relation, 7, 10)
    last = [x.contiguous(memory_format=torch.channels_last) for x in tensors]
    context = relation(*last)
    assert context.is_contiguous(memory_format=torch.channels_last)
    assert relation(*tensors).is_contiguous()
    torch.testing.assert_close(context, relation(*tensors))


def test_meta_tensors_give_the_shape():
    relation = make().to("meta")
    context = relation(*(x.to("meta") for x in inputs(relation, 5, 7)))
    assert context.is_meta and context.shape == (2, 6, 5, 7)


def test_trace_holds_for_other_sizes(recwarn):
    relation = make()
    trace = torch.jit.trace(relation, inputs(relation, 6, 8))
    assert not [w for w in recwarn if issubclass(w.category, torch.jit.TracerWarning)]
    for size in ((6, 8), (9, 5), (1, 1)):
        tensors = inputs(relation, *size, batch=1)
        torch.testing.assert_close(trace(*tensors), relation(*tensors), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_compiles_without_graph_breaks_for_any_size():
    torch._dynamo.reset()
    relation = make()
    compiled = torch.compile(relation, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((6, 8), (9, 5)):
        results = []
        for way in (relation, compiled):
            tensors = [x.requires_grad_() for x in inputs(relation, *size)]
            context = way(*tensors)
            results.append((context, *torch.autograd.grad((context**2).sum(), tensors)))
        for eager, graph in zip(*results, strict=True):
            torch.testing.assert_close(graph, eager, rtol=0, atol=1e-12)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no compiler")
def test_compiles_with_inductor():
    torch._dynamo.reset()
    relation = make(dtype=torch.float32)
    tensors = inputs(relation, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        context = torch.compile(relation, fullgraph=True)(*tensors)
        torch.testing.assert_close(context, relation(*tensors), rtol=0, atol=1e-5)


class TwoLevels(nn.Module):
    """Derive the higher level from the lower one, so that a single input of any size remains."""

    def __init__(self, relation):
        super().__init__()
        self.relation = relation

    def forward(self, query):
        key = nn.functional.max_pool2d(query, 3, 2, 1)
        return self.relation(query, key, 2 * key)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options, sizes",
    [
        (
            {"opset_version": 18, "dynamo": False, "dynamic_axes": {"query": {2: "H", 3: "W"}}},
            ((7, 10), (12, 9), (1, 3)),
        ),
        pytest.param({"dynamo": True}, ((7, 10),), marks=pytest.mark.slow),
    ],
    ids=["traced", "exported"],
)
def test_onnx_equals_the_module(options, sizes, tmp_path):
    pytest.importorskip("onnxscript" if options["dynamo"] else "onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = TwoLevels(make(dtype=torch.float32)).eval()
    path = str(tmp_path / "relation.onnx")
    queries = [torch.randn(1, model.relation.channels, *size) for size in sizes]
    torch.onnx.export(model, (queries[0],), path, input_names=["query"], **options)
    session = onnxruntime.InferenceSession(path)
    for query in queries:
        (context,) = session.run(None, {"query": query.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(context), model(query), rtol=0, atol=1e-5)


def test_state_dict_restores_a_copy():
    relation = make()
    other = copy.deepcopy(relation)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(relation.state_dict())
    tensors = inputs(relation, 5, 6)
    assert torch.equal(other(*tensors), relation(*tensors))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"region_size": 4}, "region_size: got 4, expected an odd number"),
        ({"region_size": -1}, "region_size: got -1, expected an odd number"),
        ({"num_heads": 5}, "channels: got 16, expected a multiple of num_heads=5"),
        ({"num_heads": 0}, "num_heads: got 0, expected at least 1"),
        ({"num_heads": 16}, "channels per head: got 1, expected an even number.*fewer heads"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PixelToRegionRelation(16, **options)


@pytest.mark.parametrize(
    "shapes, message",
    [
        (((1, 6, 4, 4), (1, 8, 2, 2), (1, 6, 2, 2)), "query channels: got 6, expected 8"),
        (((1, 8, 5, 4), (1, 8, 2, 2), (1, 6, 2, 2)), r"key shape: .*expected \(1, 8, 3, 2\).*5x4"),
        (((1, 8, 4, 4), (1, 6, 2, 2), (1, 6, 2, 2)), r"key shape: .*expected \(1, 8, 2, 2\)"),
        (((2, 8, 4, 4), (1, 8, 2, 2), (2, 6, 2, 2)), r"key shape: .*expected \(2, 8, 2, 2\)"),
        (((1, 8, 4, 4), (1, 8, 2, 2), (1, 6, 4, 4)), r"value shape: .*expected \(1, 6, 2, 2\)"),
        (((1, 8, 4, 4), (1, 8, 2, 2), (1, 5, 2, 2)), "value channels: got 5, .*num_heads=2"),
        (((8, 4, 4), (8, 2, 2), (6, 2, 2)), "query dimensions: got 3, expected 4"),
    ],
)
def test_invalid_shapes_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        make()(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))
