"""Install Detectron2 0.6 from PyPI into the environment of the Python that runs this.

    pip install torch torchvision                    # first; any CPU or CUDA build
    python tools/install_detectron2.py               # does not touch a Detectron2 that works
    python tools/install_detectron2.py --wheel-dir DIR     # only builds the wheel, into DIR

Detectron2 is not on PyPI under its own name. `pb1-detectron2` is its 0.6 release there, as an
sdist: the Python files of upstream's tag v0.6, without the C++ sources. This downloads that sdist
with pip (hash checked), applies the fixes of detectron2_recipe.py and packs a pure-Python wheel
that is called `detectron2`, so that a package that requires `detectron2` is satisfied. The local
part of its version (0.6+pb1.<digest of the recipe>) says that it is not upstream's own build;
`pip show -v detectron2` says so in words, and detectron2/FIXES.txt lists what was changed.

Not in it: what needs the compiled detectron2._C (rotated boxes, rotated ROIAlign and NMS,
deformable convolution on a GPU, the C++ COCO evaluation) and the caffe2 export.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import detectron2_recipe as recipe

__all__ = ["build_wheel", "fixed_files", "install", "installed_state", "main"]

# In every wheel of this tool, and its first file: it tells our installations from others
# even if pip was killed before it wrote the metadata
MARKER = "detectron2/FIXES.txt"


def say(text: str) -> None:
    """Print a line of progress at once, even into a pipe."""
    print(f"install_detectron2: {text}", flush=True)


def fail(text: str) -> None:
    """Exit with status 1 and a message."""
    sys.exit(f"install_detectron2: {text}")


def run_pip(*args: object, **env: str) -> None:
    """Run this Python's pip, with `env` added to the environment; exit if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, args)]
    if subprocess.run(command, env={**os.environ, **env}, stdin=subprocess.DEVNULL).returncode:
        fail(
            "pip failed, see its message above. Once its cause is gone (network, disk space, "
            f"rights), run this again. The command was:\n  {' '.join(command)}"
        )


def import_error(*modules: str) -> str:
    """Import modules in a new process; return the end of its output, or "" if all is well."""
    with tempfile.TemporaryDirectory() as elsewhere:  # a ./detectron2 is not the installed one
        done = subprocess.run(
            [sys.executable, "-c", f"import {', '.join(modules)}"],
            capture_output=True,
            text=True,
            cwd=elsewhere,
        )
    return (done.stderr[-1500:] or f"exit status {done.returncode}") if done.returncode else ""


def installed_state() -> tuple[str, str]:
    """Inspect the Detectron2 of this environment.

    Returns:
        state: "absent"; "foreign" (not built by this tool); "outdated" (by this tool, with
            another recipe, or half installed); "current".
        version: its version, or a substitute for it.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # no origin: an empty folder left by an uninstall
        return "absent", ""
    ours = (Path(spec.origin).parent.parent / MARKER).is_file()
    try:
        version = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return ("outdated", "(half installed)") if ours else ("foreign", f"at {spec.origin}")
    if version == recipe.VERSION:
        return "current", version
    return ("outdated" if "+pb1." in version else "foreign"), version


def fixed_files(sdist: Path) -> dict[str, bytes]:
    """Read Detectron2's files from the sdist and apply the recipe's fixes.

    Returns:
        {path in the wheel: content}, MARKER first.
    """
    files = {MARKER: describe_fixes().encode()}
    with tarfile.open(sdist) as tar:
        for member in tar.getmembers():
            path = member.name.partition("/")[2]
            for project, package in recipe.PROJECTS.items():
                if path.startswith(f"projects/{project}/"):
                    path = path.replace(f"projects/{project}", f"detectron2/projects/{package}")
            if member.isfile() and (path.startswith("detectron2/") or path == "LICENSE"):
                files[path] = tar.extractfile(member).read()
    for fix in recipe.FIXES:
        path = f"detectron2/{fix.file}"
        text = files.get(path, b"").decode()
        if text.count(fix.old) != fix.count:
            fail(
                f'the fix for "{fix.why}" no longer fits: {path} of {recipe.SDIST} has '
                f"{fix.old!r} {text.count(fix.old)} times, not {fix.count}. "
                "Correct detectron2_recipe.py."
            )
        files[path] = text.replace(fix.old, fix.new).encode()
    for file, text in recipe.NEW_FILES.items():
        assert f"detectron2/{file}" not in files, file
        files[f"detectron2/{file}"] = text.encode()
    return files


def describe_fixes() -> str:
    """List the changed and the new files and why they changed, one per line."""
    changed = [f"detectron2/{fix.file}: {fix.why}\n" for fix in recipe.FIXES]
    return "".join(changed + [f"detectron2/{file}: new\n" for file in recipe.NEW_FILES])


def metadata_text() -> str:
    """Write the wheel's METADATA."""
    lines = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {recipe.VERSION}",
        f"Summary: Detectron2 0.6, pure-Python build of {recipe.SDIST} with fixes for recent "
        "libraries; not an official build",
        "Author: FAIR",
        "License: Apache-2.0",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Requires-Python: >=3.9",
        *(f"Requires-Dist: {name}" for name in recipe.REQUIRES),
    ]
    for extra, names in recipe.EXTRAS.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {name}; extra == "{extra}"' for name in names]
    return "\n".join([*lines, "", __doc__])


def build_wheel(sdist: Path, folder: Path) -> Path:
    """Build the wheel from the sdist into a folder; the same bytes for the same recipe."""
    files = fixed_files(sdist)
    info = f"detectron2-{recipe.VERSION}.dist-info"
    # the metadata last: pip copies in this order, so they vouch for all the rest
    files[f"{info}/LICENSE"] = files.pop("LICENSE")
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: install_detectron2\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/METADATA"] = metadata_text().encode()
    record = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    wheel = folder / f"detectron2-{recipe.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)  # dated 1980, not now
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def download_sdist(folder: Path) -> Path:
    """Download the sdist with pip, which checks its hash."""
    requirements = folder / "sdist.txt"
    requirements.write_text(f"{recipe.SDIST} --hash=sha256:{recipe.SHA256}\n")
    # pip runs the sdist's setup.py for its metadata, and that imports torch: so no isolation, but
    # a setuptools of our own, since the environment's may be absent or lack bdist_wheel. And a
    # pip of our own: 26.3 and later refuse this sdist, whose extra "all" names a package by URL.
    tools = folder / "tools"
    run_pip("install", "-q", "--target", tools, "setuptools>=77,<82", "pip<26.3", PIP_USER="0")
    path = os.pathsep.join(filter(None, [str(tools), os.environ.get("PYTHONPATH")]))
    download = ["download", "-q", "--no-deps", "--no-build-isolation", "--no-binary=:all:"]
    download += ["--require-hashes", "-r", requirements, "-d", folder]
    run_pip(*download, PYTHONPATH=path)
    return next(folder.glob("*.tar.gz"))


def install(wheel: Path) -> None:
    """Install the wheel and its requirements, and check that it works."""
    # keep the torch that is there, whatever the other requirements say
    keep = wheel.parent / "keep.txt"
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision")}
    keep.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
    # by name: `pip freeze` would show the path of a wheel that is soon gone
    name = f"detectron2=={recipe.VERSION}"
    run_pip("install", "--find-links", wheel.parent, "-c", keep, name)
    if error := import_error(*recipe.MODULES):
        fail(f"detectron2 {recipe.VERSION} was installed but does not import.\n{error}")
    say(f"installed detectron2 {recipe.VERSION}")


def ensure_opencv() -> None:
    """Install OpenCV if it is missing: Detectron2's Visualizer needs it and names it nowhere.

    Four distributions of it exclude each other, so one that is there but broken is only reported.
    """
    error = import_error("cv2")
    if not error:
        return
    known = {dist.name.lower().replace("_", "-") for dist in importlib.metadata.distributions()}
    if found := sorted(known & recipe.OPENCV):
        fail(
            f"{' and '.join(found)} is installed, but `import cv2` fails. Where libGL is missing "
            "(a machine without a display), opencv-python-headless serves in its stead:\n"
            f"  {sys.executable} -m pip uninstall {' '.join(found)}\nthen run this again.\n{error}"
        )
    say("OpenCV is missing: installing opencv-python-headless")
    run_pip("install", "opencv-python-headless")


def is_settled() -> bool:
    """Return whether a working Detectron2 is installed; exit if a foreign one does not work."""
    state, version = installed_state()
    if state == "absent":
        return False
    if state == "outdated":
        say(f"replacing detectron2 {version}, which an earlier run of this tool installed")
        return False
    error = import_error(*recipe.MODULES)
    if not error:
        say(f"detectron2 {version} is installed and works: left as it is")
    elif state == "foreign":
        fail(
            f"the detectron2 {version} that is installed does not import. It is not from this "
            f"tool: repair it, or remove it and run this again.\n{error}"
        )
    else:
        say(f"detectron2 {version} is installed but does not import: repairing it")
    return not error


def main() -> None:
    """Parse the command line and install Detectron2."""
    parser = argparse.ArgumentParser(description="Install Detectron2 0.6 from PyPI.")
    parser.add_argument(
        "--wheel-dir",
        type=Path,
        metavar="DIR",
        help="put the wheel into this folder and install nothing",
    )
    wheel_dir = parser.parse_args().wheel_dir
    if importlib.util.find_spec("pip") is None:
        fail(f"no pip here, make one first: {sys.executable} -m ensurepip --upgrade")
    if not wheel_dir and is_settled():
        return ensure_opencv()
    if error := import_error("torch", "torchvision"):
        fail(f"needs torch and torchvision first: pip install torch torchvision\n{error}")
    with tempfile.TemporaryDirectory() as tmp:
        say(f"downloading {recipe.SDIST}")
        sdist = download_sdist(Path(tmp))
        if wheel_dir:
            wheel_dir.mkdir(parents=True, exist_ok=True)
            return say(f"built {build_wheel(sdist, wheel_dir)}")
        say(f"installing detectron2 {recipe.VERSION} and what it requires")
        install(build_wheel(sdist, Path(tmp)))
    return ensure_opencv()


if __name__ == "__main__":
    main()
