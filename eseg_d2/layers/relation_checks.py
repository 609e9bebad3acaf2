"""What a pixel-to-region relation accepts; else a ValueError says what was got and expected."""

__all__ = ["check_options", "check_shapes"]

SIMILARITIES = ("dot_product", "squared_difference")
POSITIONS = ("row_column", "mlp", "none")


def _expect(condition, name, got, expected):
    if not condition:
        raise ValueError(f"{name}: got {got}, expected {expected}")


def check_options(channels, num_heads, region_size, similarity, position):
    _expect(similarity in SIMILARITIES, "similarity", repr(similarity), f"one of {SIMILARITIES}")
    _expect(position in POSITIONS, "position", repr(position), f"one of {POSITIONS}")
    odd = region_size > 0 and region_size % 2 == 1
    _expect(odd, "region_size", region_size, "an odd number such as 3")
    _expect(num_heads > 0, "num_heads", num_heads, "at least 1")
    d, rest = divmod(channels, num_heads)
    _expect(d > 0 and rest == 0, "channels", channels, f"a multiple of num_heads={num_heads}")
    if similarity == "squared_difference":
        _expect(d == 1, "channels", channels, f"num_heads={num_heads}, a scalar per head")
    elif position == "row_column":
        fix = "an even number, to halve for rows and columns; take fewer heads or position='mlp'"
        _expect(d % 2 == 0, "channels per head", d, fix)


def check_shapes(query, key, value, channels, num_heads):
    _expect(query.dim() == 4, "query dimensions", query.dim(), "4: (B, C, H, W)")
    batch, c, height, width = query.shape
    cells = ((height + 1) // 2, (width + 1) // 2)
    half = f"half of the query's {height}x{width}, rounded up"
    _expect(c == channels, "query channels", c, f"{channels}, as the module was built")
    for name, x, c in (("key", key, channels), ("value", value, value.shape[1])):
        expected = (batch, c, *cells)
        _expect(x.shape == expected, f"{name} shape", tuple(x.shape), f"{expected}: {half}")
    _expect(c % num_heads == 0, "value channels", c, f"a multiple of num_heads={num_heads}")
