#!/usr/bin/env python3
"""Write docs/configs.md from the comments in eseg_d2/config/defaults.py."""

import argparse
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configs.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, help="default %(default)s")
    args = parser.parse_args()
    from eseg_d2.apps.benchmarks.config_docs import format_config_page

    args.output.write_text(format_config_page())
    print(args.output)


if __name__ == "__main__":
    main()
