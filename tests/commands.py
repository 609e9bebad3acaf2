"""Run the project's commands as a user does, in processes that start within a second.

The processes are forked from one that has already imported torch and the other slow libraries.
Each command imports Detectron2 and this package itself, in its own environment.
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
    """Turn this process into ``python WORDS``, with its output redirected to two files."""
    for stream, path in (sys.stdout, out), (sys.stderr, err):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream.fileno())
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        stream.reconfigure(encoding=encoding, line_buffering=True)
    multiprocessing.set_start_method(None, force=True)  # its own workers are forked, as usual
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # looked up again, since TMPDIR may differ
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
        atexit._run_exitfuncs()  # multiprocessing would skip them


@contextmanager
def started(*words, cwd, output: Path, **environment):
    """Start ``python WORDS``, whose output goes to the files "out" and "err".

    Args:
        words: the command line: a script, or -c and code, followed by arguments.
        cwd: the working directory.
        output: the folder for the two files.
        environment: variables to set in addition to those of this process.

    Yields:
        The multiprocessing.Process, which is killed on exit if it is still running.
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
    """Wait for a ``started`` process, and return its exit status and output."""
    process.join(timeout)
    assert process.exitcode is not None, f"still running after {timeout} seconds"
    texts = [(output / name).read_text(errors="replace") for name in ("out", "err")]
    return subprocess.CompletedProcess([], process.exitcode, *texts)


def python(*words, cwd, timeout: float = 300, **environment) -> subprocess.CompletedProcess:
    """Run ``python WORDS``, and return its exit status, standard output and standard error.

    Args:
        words: the command line: a script, or -c and code, followed by arguments.
        cwd: the working directory.
        timeout: seconds after which the test fails.
        environment: variables to set in addition to those of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        with started(*words, cwd=cwd, output=output, **environment) as process:
            return ended(process, output, timeout)
