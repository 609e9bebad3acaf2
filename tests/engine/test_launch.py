"""Training in several processes, on one or two machines, equals training in one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from runs import SMALL_MODEL, children, metrics, wait_until

from eseg_d2.config import load_config, merge_config
from eseg_d2.engine.launch import _as_rank
from eseg_d2.engine.rendezvous import (
    ProcessRank,
    compare,
    rank_from_environment,
    rendezvous,
    run_fingerprint,
)
from eseg_d2.modeling.unused_levels import freeze_unused_levels
from eseg_d2.utils.errors import RunError

CONFIG = ("--config-file", "configs/scenes/rsp_semantic_R50.yaml")
# Group norm and one image size, as batch norm and padding depend on the images of a process
OPTIONS = (
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "32", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "32", "MODEL.RESNETS.NORM", "GN"),
    *("MODEL.BIFPN.NORM", "", "MODEL.RSP_HEAD.NORM", "", "SOLVER.BASE_LR", "0.02"),
    *("SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "0", "LOGGING.PERIOD", "1"),
    *("INPUT.MIN_SIZE_TRAIN", "(32,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.WARMUP_ITERS", "2"),
    *("SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("TEST.EVAL_PERIOD", "3", "TEST.VALIDATION_LOSS.ENABLED", "True"),
)


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Kill the processes that a failed test has left running."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            for pid in children(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()


STARTED = []


def start(root, output, *words, launcher=(), before=(), **environment):
    """Start train_net.py in the background, with its output written to a file."""
    output.mkdir(exist_ok=True)
    number = len(list(output.glob("console*")))
    command = [*launcher, "train_net.py"] if launcher else [sys.executable, "train_net.py"]
    command += [*CONFIG, *before, *OPTIONS, "OUTPUT_DIR", output, *words]
    with open(output / f"console{number}.txt", "w") as console:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    STARTED.append(process)
    return process


def console(output, number=0):
    return (output / f"console{number}.txt").read_text()[-6000:]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def finish(root, output, *words, **keywords):
    process = start(root, output, *words, **keywords)
    assert process.wait(300) == 0, console(output)


def start_machines(root, output, *words):
    """Start the processes of two machines, each with words of its own."""
    machines = ("--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    return [
        start(root, output, *own, before=(*machines, "--machine-rank", str(rank)))
        for rank, own in enumerate(words)
    ]


def curve(output, name="total_loss"):
    return {at: line[name] for at, line in metrics(output).items() if name in line}


@pytest.fixture(scope="module")
def single(root, scenes, tmp_path_factory):
    """Return the folder of the run in one process."""
    output = tmp_path_factory.mktemp("launch") / "single"
    finish(root, output)
    assert len(curve(output)) == 5
    return output


def assert_same(output, single):
    for name in "total_loss", "validation/total_loss":
        assert curve(output, name) == pytest.approx(curve(single, name), rel=1e-3)
        assert curve(output, name)
    evaluations = json.loads((output / "evaluations.json").read_text())
    assert [evaluation["iteration"] for evaluation in evaluations] == [2, 4]


def test_two_processes_equal_one(root, single, tmp_path):
    finish(root, tmp_path / "run", before=("--num-gpus", "2"))
    assert_same(tmp_path / "run", single)
    assert (tmp_path / "run" / "log.txt.rank1").exists()


@pytest.mark.slow
def test_evaluation_in_two_processes_equals_one(root, single, tmp_path):
    weights = ("MODEL.WEIGHTS", single / "model_final.pth")
    finish(root, tmp_path / "run", *weights, before=("--eval-only", "--num-gpus", "2"))
    results = [json.loads((run / "results.json").read_text()) for run in (tmp_path / "run", single)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_two_machines_equal_one_process(root, single, tmp_path):
    processes = start_machines(root, tmp_path / "run", (), ())
    assert [process.wait(300) for process in processes] == [0, 0], console(tmp_path / "run")
    assert_same(tmp_path / "run", single)


@pytest.mark.slow
def test_torchrun_equals_one_process(root, single, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    launcher += ("--master-port", str(free_port()))
    finish(root, tmp_path / "run", launcher=launcher)
    assert_same(tmp_path / "run", single)


@pytest.mark.slow
def test_srun_equals_one_process(root, single, tmp_path):
    """The environment is that of two tasks on one node."""
    variables = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    variables |= {"SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": str(free_port())}
    processes = [
        start(root, tmp_path / "run", **variables, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in ("0", "1")
    ]
    assert [process.wait(300) for process in processes] == [0, 0], console(tmp_path / "run")
    assert_same(tmp_path / "run", single)


@pytest.mark.slow
def test_killed_process_ends_the_others_and_the_run_can_be_resumed(root, single, tmp_path):
    output = tmp_path / "run"
    process = start(root, output, "SOLVER.MAX_ITER", "1000", before=("--num-gpus", "2"))
    wait_until(lambda: any(output.glob("model_*.pth")))
    os.kill(children(process.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(60) == 1
    assert time.monotonic() - killed < 60
    text = console(output)
    assert "process 1 was killed by SIGKILL" in text and "--resume" in text
    assert "Traceback" not in text[text.index("iter 2/") :]
    done = 1 + max(curve(output))
    finish(root, output, "SOLVER.MAX_ITER", str(done + 3), before=("--resume",))
    assert "The run had 2 processes and now has 1" in console(output, 1)
    assert max(curve(output)) == done + 2


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_machine_ends_the_other(root, single, tmp_path, victim):
    output = tmp_path / "run"
    processes = start_machines(root, output, *[("SOLVER.MAX_ITER", "1000")] * 2)
    wait_until(lambda: any(output.glob("model_*.pth")))
    processes[victim].kill()
    assert processes[1 - victim].wait(60) == 1
    text = console(output, 1 - victim)
    assert f"process {victim} of this run has ended too early" in text
    assert "--resume" in text and "Traceback" not in text


ARGUMENTS = SimpleNamespace(resume=False, eval_only=False)


@pytest.fixture
def impatient(monkeypatch):
    """Return a config with a short timeout, and shorten the time before waiting is logged."""
    monkeypatch.setattr("eseg_d2.engine.rendezvous.PATIENCE", 0.2)
    return merge_config(CONFIG[1], ["MODEL.DEVICE", "cpu", "LAUNCH.TIMEOUT_SECONDS", "2"])


@pytest.mark.parametrize(
    "rank, reason",
    [(1, "process 0 does not answer at "), (0, "1 of 3 processes have joined at .* missing: 1, 2")],
)
def test_machine_that_does_not_join_is_named(impatient, caplog, rank, reason):
    process = ProcessRank(rank, 3, 0, 1, f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(RunError, match=f"process {rank} has waited for .* {reason}"):
        _as_rank(process, print, ARGUMENTS, impatient)
    assert re.search(f"Waiting for .*{reason}", caplog.text)


@pytest.mark.slow
def test_machines_with_different_configs_end_before_training(root, scenes, tmp_path):
    first, second = ("SOLVER.BASE_LR", "0.01", "SEED", "1"), ("SOLVER.BASE_LR", "0.02", "SEED", "2")
    processes = start_machines(root, tmp_path / "run", first, second)
    assert [process.wait(300) for process in processes] == [1, 1]
    for number in 0, 1:
        text = console(tmp_path / "run", number)
        assert "SEED is 1 and 2" in text and "SOLVER.BASE_LR is 0.01 and 0.02" in text, text
        assert "Traceback" not in text
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_fingerprints_of_processes_are_compared(root, scenes):
    def process(*overrides, host="a", args=ARGUMENTS, with_data=True):
        cfg = load_config(str(root / CONFIG[1]), ["MODEL.DEVICE", "cpu", *overrides])
        return {**run_fingerprint(cfg, args, with_data=with_data), "host": host}

    local = ("OUTPUT_DIR", "/elsewhere", "DATALOADER.NUM_WORKERS", "7")
    assert compare([process(), process(*local, host="b"), process(with_data=False)]) == ""
    assert "process 2 (on b)" in compare([process(), process(), process("SEED", "3", host="b")])
    resuming = SimpleNamespace(resume=True, eval_only=False)
    assert "--resume is not given and given" in compare([process(), process(args=resuming)])
    annotations = [key for key in process() if "annotations" in key]
    for key in ("torch", "detectron2", "the code of eseg_d2", *annotations):
        changed = {**process(), key: "other"}
        assert f"{key} is {process()[key]} and other" in compare([process(), changed])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX")
def test_stopped_process_is_named_after_the_timeout(root, scenes, tmp_path):
    output = tmp_path / "run"
    options = ("SOLVER.MAX_ITER", "100000", "LAUNCH.TIMEOUT_SECONDS", "30")
    process = start(root, output, *options, before=("--num-gpus", "2"))
    wait_until(lambda: any(output.glob("model_*.pth")))
    os.kill(children(process.pid)[1], signal.SIGSTOP)
    assert process.wait(300) == 1
    text = console(output)
    assert "process 1 of this run has given no sign of life for 30 s" in text
    assert "Traceback" not in text[text.index("no sign of life") :]


@pytest.mark.slow
def test_head_without_some_levels_trains_in_two_processes(root, scenes, tmp_path):
    levels = ("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['p2','p3','p4']", "SOLVER.MAX_ITER", "2")
    finish(root, tmp_path / "run", *levels, before=("--num-gpus", "2"))
    assert "No head takes p5, p6, p7" in console(tmp_path / "run")


def test_exactly_the_unused_levels_are_frozen(root, scenes):
    def frozen(*overrides):
        options = ["MODEL.DEVICE", "cpu", *SMALL_MODEL, *overrides]
        model = build_model(load_config(str(root / CONFIG[1]), options))
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        freeze_unused_levels(model)
        assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
        assert model.backbone.training
        model([{"image": torch.zeros(3, 64, 64), "sem_seg": torch.zeros(64, 64).long()}])[
            "loss_sem_seg"
        ].backward()
        without_gradient = {n for n, p in model.named_parameters() if p.grad is None}
        assert without_gradient == {n for n, p in model.named_parameters() if not p.requires_grad}
        return without_gradient

    assert not frozen()
    names = frozen("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['p2','p3','p4']")
    assert names and all(name.startswith("backbone.repeats.0.bottom_up") for name in names)


def test_rank_is_read_from_torchrun_and_slurm():
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    torchrun |= {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert rank_from_environment(torchrun) == ProcessRank(3, 8, 1, 2, "env://")
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "12"}
    slurm |= {"SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_NODELIST": "gpu[03-04,9],other"}
    assert rank_from_environment(slurm) == ProcessRank(5, 8, 1, 4, "tcp://gpu03:20012")
    for nodes, first in ("n1,n2", "n1"), ("n1", "n1"), ("rack[1-2]-x,b", "rack1-x"):
        assert f"tcp://{first}:" in rank_from_environment(slurm | {"SLURM_JOB_NODELIST": nodes}).url
    assert rank_from_environment(slurm | {"SLURM_NTASKS": "1"}) is None
    assert rank_from_environment({}) is None
    with pytest.raises(ValueError, match="not LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR"):
        rank_from_environment({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("url", ["tcp://first", "tcp://:29500"])
@pytest.mark.parametrize("rank", [0, 1])
def test_address_without_host_or_port_is_refused_at_once(url, rank):
    with pytest.raises(RunError, match=f"--dist-url {url}: expected tcp://FIRST_MACHINE:PORT"):
        rendezvous(ProcessRank(rank, 2, 0, 1, url), {}, limit=60)
