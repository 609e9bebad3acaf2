"""Markdown tables, and short names for their rows."""

from eseg_d2.utils.markup import markdown_table, short_names


def test_markdown_table_has_a_line_per_row():
    expected = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
    assert markdown_table(["a", "b"], [["1", "2"], ["3", "4"]]) == expected
    assert markdown_table(["a"], []) == "| a |\n|---|"


def test_names_are_shortened_unless_ambiguous():
    sources = ["x/one.yaml", "x/two.yaml", "y/two.yaml", "x/one.yaml", "torchvision:net"]
    assert short_names(sources) == {
        "x/one.yaml": "one",
        "x/two.yaml": "x/two.yaml",
        "y/two.yaml": "y/two.yaml",
        "torchvision:net": "torchvision:net",
    }
