"""Commands of this project as their user runs them, in processes that start within a second.

They are forked from a process that has imported torch and other libraries, which takes most of the
time. Detectron2 and this package are imported by each command itself, in its own environment.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import types
from contextlib import contextmanager
from pathlib import Path

TESTS = str(Path(__file__).resolve().parent)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("torch", "torch._dynamo", "torch.utils.tensorboard", "torchvision", "timm"),
        *("matplotlib.figure", "cv2", "pycocotools.cocoeval", "PIL.Image", "fvcore.nn", "onnx"),
        *("onnxruntime",),
    ]
)


def _main(words: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """Become ``python WORDS`` in a folder and environment, with output that goes to two files."""
    for stream, path in (sys.stdout, out), (sys.stderr, err):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream.fileno())
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        stream.reconfigure(encoding=encoding, line_buffering=True)
    multiprocessing.set_start_method(None, force=True)  # what it starts is forked, as usual
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # looked up again: TMPDIR may be another
    os.chdir(folder)
    sys.argv = words if words[0] != "-c" else ["-c", *words[2:]]
    first = "" if words[0] == "-c" else str(Path(words[0]).resolve().parent)
    extra = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [first, *extra, *(path for path in sys.path if path != TESTS)]
    try:
        if words[0] == "-c":
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(words[1], vars(main))
        else:
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing would leave out


@contextmanager
def started(*words, cwd, output: Path, **environment):
    """Start ``python WORDS``, a script or -c and code, whose output goes to files "out" and "err".

    Args:
        words: of the command line.
        cwd: the folder to start in.
        output: the folder for the two files.
        environment: variables beside those of this process.

    Yields:
        The process, as multiprocessing has it; it is killed in the end if it still runs.
    """
    words = [str(word) for word in words]
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    files = output / "out", output / "err"
    for file in files:
        file.write_text("")
    process = CONTEXT.Process(target=_main, args=(words, str(cwd), environment, *map(str, files)))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def ended(process, output: Path, timeout: float = 300) -> subprocess.CompletedProcess:
    """Wait for a process that was ``started``, and return its status and what it wrote."""
    process.join(timeout)
    assert process.exitcode is not None, f"still runs after {timeout} seconds"
    texts = [(output / name).read_text(errors="replace") for name in ("out", "err")]
    return subprocess.CompletedProcess([], process.exitcode, *texts)


def python(*words, cwd, timeout: float = 300, **environment) -> subprocess.CompletedProcess:
    """Run ``python WORDS``, and return its status, standard output and error.

    Args:
        words: of the command line: a script, or -c and code, and arguments.
        cwd: the folder to run it in.
        timeout: in seconds, after which the test fails.
        environment: variables beside those of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        with started(*words, cwd=cwd, output=output, **environment) as process:
            return ended(process, output, timeout)
