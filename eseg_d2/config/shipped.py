"""The configurations that come with the package."""

from pathlib import Path

__all__ = ["find_config"]

_PACKAGE = Path(__file__).resolve().parent.parent


def find_config(path: str) -> str:
    """Return where a config file lies.

    Args:
        path: of a YAML file. If there is no such file and the path begins with ``configs/``, it
            is looked for among the configurations that come with the package, so that
            ``configs/rsp_panoptic_R50.yaml`` works in any folder once the package is installed.

    Raises:
        FileNotFoundError: the file is in neither place.
    """
    if Path(path).is_file():
        return path
    shipped = _PACKAGE / path
    if Path(path).parts[:1] == ("configs",) and shipped.is_file():
        return str(shipped)
    raise FileNotFoundError(
        f"no config file {path!r} in {Path.cwd()}; see configs/ in the checkout, or "
        f"{_PACKAGE / 'configs'}, for those that come with eseg_d2"
    )
