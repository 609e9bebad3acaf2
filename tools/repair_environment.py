"""Remove what a killed pip left half installed from the virtual environment that runs this.

pip considers a distribution installed as soon as its .dist-info folder exists, even if the
installation was interrupted and files are missing. Such folders are deleted here, so that the
next `pip install` installs these distributions again. Whole ones are left alone. What an
interrupted upgrade had put aside (~names, they can be gigabytes) is deleted as well.
"""

import csv
import shutil
import sys
import sysconfig
from pathlib import Path

__all__ = ["is_whole", "main"]


def is_whole(dist_info: Path) -> bool:
    """Tell whether pip finished installing a distribution and its files are still there.

    pip copies the files, makes the scripts, and only then writes INSTALLER, so its absence means
    an interrupted installation; missing files mean an interrupted upgrade or uninstallation.
    Compiled files do not count: Python makes them again.

    Args:
        dist_info: the distribution's .dist-info folder.
    """
    record = dist_info / "RECORD"
    if not record.is_file() or not (dist_info / "INSTALLER").is_file():
        return False
    with record.open(newline="", encoding="utf-8") as rows:
        files = [row[0] for row in csv.reader(rows) if row]
    return all((dist_info.parent / file).exists() for file in files if not file.endswith(".pyc"))


def main() -> None:
    """Clean the environment's site-packages and name what has to be installed again."""
    if sys.prefix == sys.base_prefix:
        sys.exit("repair_environment: this is for virtual environments only")
    site_packages = Path(sysconfig.get_path("purelib"))
    for stash in site_packages.glob("~*"):
        shutil.rmtree(stash) if stash.is_dir() else stash.unlink()
    for dist_info in sorted(site_packages.glob("*.dist-info")):
        if not is_whole(dist_info):
            shutil.rmtree(dist_info)
            print(f"repair_environment: {dist_info.stem} was half installed: to be done again")


if __name__ == "__main__":
    main()
