"""Signals end training after the current iteration, with a checkpoint to resume from."""

import json
import os
import signal
import subprocess
import sys

import pytest
import runs
import torch

CONFIG = "configs/scenes/rsp_semantic_R50.yaml"
# The signal decides the length of the run, so the learning rate must not depend on it
STEADY = (*runs.SMALL_MODEL, "SEED", "3", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR")
ENDLESS = ("SOLVER.MAX_ITER", "1000000", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "0")
STATUSES = {"SIGTERM": 143, "SIGUSR1": 138, "SIGINT": 130}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def stoppable(function, *args):
    """Call a function as a run does, even where these tests run with SIGINT ignored."""
    from eseg_d2.engine.signals import stop_signals

    with stop_signals(even_ignored=True):
        function(*args)


def start(function, *args):
    process = runs.CONTEXT.Process(target=stoppable, args=(function, *args))
    process.start()
    return process


@pytest.mark.parametrize("name", STATUSES)
def test_signal_saves_the_iteration_and_the_run_can_be_resumed(root, scenes, tmp_path, name):
    output = tmp_path / "run"
    process = start(runs.train, root / CONFIG, output, *STEADY, *ENDLESS)
    runs.wait_until(lambda: runs.lines_written(output) > 1, process)
    os.kill(process.pid, getattr(signal, name))
    process.join()
    assert process.exitcode == STATUSES[name]
    done = max(runs.metrics(output)) + 1
    checkpoints = list(output.glob("model_*.pth"))
    assert [path.name for path in checkpoints] == [f"model_{done - 1:07d}.pth"]

    longer = (*STEADY, *ENDLESS, "SOLVER.MAX_ITER", str(done + 2))
    for folder in output, tmp_path / "undisturbed":
        process = runs.start(root / CONFIG, folder, *longer)
        process.join()
        assert process.exitcode == 0
    runs.assert_same_run(output, tmp_path / "undisturbed")


def evaluate_until_told(config, output, *overrides):
    """Train with an evaluation whose first image waits for a signal."""
    from eseg_d2.engine.signals import requested
    from eseg_d2.evaluation.semantic import SemanticEvaluator

    process = SemanticEvaluator.process

    def process_slowly(self, inputs, outputs):
        (output / "evaluating").touch()
        runs.wait_until(requested)
        process(self, inputs, outputs)

    SemanticEvaluator.process = process_slowly
    runs.train(config, output, *overrides)


@pytest.mark.parametrize("max_iter", [2, 1000])  # the final evaluation, and an earlier one
def test_evaluation_ended_by_a_signal_is_repeated(root, scenes, tmp_path, max_iter):
    output = tmp_path / "run"
    options = (*STEADY, *ENDLESS, *runs.VAL, "SOLVER.MAX_ITER", max_iter, "TEST.EVAL_PERIOD", "2")
    process = start(evaluate_until_told, root / CONFIG, output, *options)
    runs.wait_until(lambda: (output / "evaluating").exists(), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    assert not (output / "evaluations.json").exists()
    assert len(list(output.glob("model_*.pth"))) == 1

    process = runs.start(root / CONFIG, output, *options, "SOLVER.MAX_ITER", "3")
    process.join()
    assert process.exitcode == 0
    evaluations = json.loads((output / "evaluations.json").read_text())
    assert [entry["iteration"] for entry in evaluations] == [1, 2]


def note_signals(folder, training):
    from contextlib import nullcontext

    from eseg_d2.engine.signals import finish_iterations, requested

    with finish_iterations() if training else nullcontext():
        (folder / "ready").touch()
        runs.wait_until(requested)
        (folder / "noted").touch()
        signal.pause()


@pytest.mark.parametrize("name", STATUSES)
def test_signal_outside_training_ends_the_process_at_once(tmp_path, name):
    process = start(note_signals, tmp_path, False)
    runs.wait_until((tmp_path / "ready").exists, process)
    os.kill(process.pid, getattr(signal, name))
    process.join()
    assert process.exitcode == STATUSES[name]
    assert not (tmp_path / "noted").exists()


def test_second_interrupt_ends_at_once(tmp_path):
    process = start(note_signals, tmp_path, True)
    runs.wait_until((tmp_path / "ready").exists, process)
    os.kill(process.pid, signal.SIGINT)
    runs.wait_until((tmp_path / "noted").exists, process)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == -signal.SIGINT


def descendants(pid):
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, line.split()) for line in found.splitlines())
    below = {pid}
    for _ in parents:
        below |= {child for child, parent in parents.items() if parent in below}
    return below - {pid}


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def train_net(root, scenes, tmp_path):
    """Return a function that starts train_net.py in a new session and waits for its first line."""
    started = []

    def begin(*before, ignoring_interrupts=False):
        def prepare():
            signal.signal(signal.SIGINT, signal.SIG_IGN if ignoring_interrupts else signal.SIG_DFL)

        options = [*runs.TINY, *STEADY, *ENDLESS, "DATALOADER.NUM_WORKERS", "1"]
        command = [sys.executable, "train_net.py", "--config-file", CONFIG, *before, *options]
        with open(tmp_path / "console.txt", "w") as console:
            process = subprocess.Popen(
                [*command, "OUTPUT_DIR", str(tmp_path / "run")],
                cwd=root,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,
            )
        started.append(process)
        runs.wait_until(lambda: runs.lines_written(tmp_path / "run") or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "console.txt").read_text()
        started.extend(descendants(process.pid))
        return process

    yield begin
    process, *others = started
    process.kill()
    for pid in others:
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def assert_stopped(folder, name, processes):
    """Check that the run saved one checkpoint of all processes, without a traceback."""
    console = (folder / "console.txt").read_text()
    assert "Traceback" not in console, console
    assert f"train_net.py: {name} ended the run" in console and "--resume continues" in console
    (checkpoint,) = (folder / "run").glob("model_*.pth")
    states = torch.load(checkpoint, weights_only=False)["trainer"]["random_states"]
    assert len(states) == processes


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["parent", "child"])
def test_sigterm_reaches_all_processes_of_a_job_that_ignores_sigint(train_net, tmp_path, whom):
    process = train_net("--num-gpus", "2", ignoring_interrupts=True)
    below = descendants(process.pid)
    os.kill(process.pid if whom == "parent" else runs.children(process.pid)[1], signal.SIGTERM)
    assert process.wait() == 143
    runs.wait_until(lambda: all(map(is_gone, below)))
    assert_stopped(tmp_path, "SIGTERM", 2)


@pytest.mark.slow
def test_processes_end_when_their_parent_is_killed(train_net, tmp_path):
    process = train_net("--num-gpus", "2", ignoring_interrupts=True)
    below = descendants(process.pid)
    process.kill()
    process.wait()
    runs.wait_until(lambda: all(map(is_gone, below)))
    assert len(list((tmp_path / "run").glob("model_*.pth"))) == 1


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_finishes_the_iteration(train_net, tmp_path, processes):
    process = train_net("--num-gpus", str(processes))
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    runs.wait_until(lambda: all(map(is_gone, below)))
    assert_stopped(tmp_path, "SIGINT", processes)
