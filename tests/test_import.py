"""What `import eseg_d2` does to the program that imports it."""

import subprocess
import sys

CODE = """
import warnings
before = list(warnings.filters)
import eseg_d2
assert list(warnings.filters) == before
warnings.warn("of the program itself", FutureWarning)
"""


def run(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_warnings_of_the_program_stay_and_those_of_libraries_do_not():
    done = run("-c", CODE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning") == 1 and "of the program itself" in done.stderr


def test_warnings_as_errors_do_not_break_it():
    done = run("-W", "error", "-c", "import eseg_d2, eseg_d2.engine, eseg_d2.inference")
    assert done.returncode == 0, done.stderr
