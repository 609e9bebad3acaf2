"""Short training runs in separate processes, which a test may kill."""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import torch
from commands import CONTEXT

# Makes train_net.py finish on the scenes within seconds; the test adds SOLVER.MAX_ITER
SHORT = (
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
)

TINY = (
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "2", "DATALOADER.NUM_WORKERS", "0"),
    *("INPUT.MIN_SIZE_TRAIN", "(32, 48)", "INPUT.MIN_SIZE_TEST", "32", "LOGGING.PERIOD", "1"),
    *("DATASETS.TEST", "()", "MODEL.CHANNELS_LAST", "False"),
)

# Evaluates on the scenes
VAL = ("DATASETS.TEST", "('scenes_cityscapes_panoptic_val',)")

# Shrinks the model of configs/scenes/rsp_semantic_R50.yaml
SMALL_MODEL = (
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "2", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.BIFPN.OUT_CHANNELS", "8"),
    *("MODEL.BIFPN.NUM_REPEATS", "1", "MODEL.RSP_HEAD.CHANNELS", "8"),
    *("MODEL.RSP_HEAD.NUM_HEADS", "2"),
)


def train(
    config: Path, output: Path, *overrides, resume: bool = True, end: int | None = None
) -> None:
    """Train in this process, continuing from the last checkpoint if ``resume`` is true.

    ``end`` stops the run after that many iterations, with the schedule of SOLVER.MAX_ITER.
    """
    from eseg_d2.engine import Trainer, load_config

    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # data workers are forked, as usual
    options = [*TINY, "OUTPUT_DIR", output, *overrides]
    cfg = load_config(str(config), [str(option) for option in options])
    torch.manual_seed(cfg.SEED)
    output.mkdir(exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.max_iter = end or trainer.max_iter
    trainer.train()


def make_trainer(output, *overrides, config="rsp_semantic_R50", resume=False, world_size=None):
    """Return a trainer of a small model on the scenes, always with the same initial weights."""
    from eseg_d2.engine import Trainer, load_config

    path = Path(__file__).resolve().parent.parent / f"configs/scenes/{config}.yaml"
    options = [*SMALL_MODEL, *TINY, "OUTPUT_DIR", output, *overrides]
    cfg = load_config(str(path), [str(option) for option in options], world_size=world_size)
    torch.manual_seed(3)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def start(config: Path, output: Path, *overrides, **keywords):
    """Start :func:`train` in a new process, and return the process."""
    process = CONTEXT.Process(target=train, args=(config, output, *overrides), kwargs=keywords)
    process.start()
    return process


def metrics(output: Path) -> dict[int, dict]:
    """Return the lines of metrics.json by iteration, of which each occurs only once."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert len({line["iteration"] for line in lines}) == len(lines)
    return {line["iteration"]: line for line in lines}


def lines_written(output: Path) -> int:
    """Return the number of complete lines in metrics.json, which may not be there yet."""
    path = output / "metrics.json"
    return path.read_text().count("\n") if path.exists() else 0


def wait_until(condition, process=None, seconds: float = 600) -> None:
    """Wait until a condition holds; fail after the time limit, or when the process ends."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process is None or process.is_alive()
        time.sleep(0.01)


def error_message(process) -> str:
    """Return the short message with which train_net.py failed, without a traceback."""
    assert process.returncode == 1, process.stdout[-2000:]
    assert "Traceback" not in process.stderr + process.stdout, process.stderr[-3000:]
    message = process.stderr[process.stderr.index("train_net.py: ") :]
    assert len(message.splitlines()) < 10
    return message


def losses(output: Path) -> dict[int, dict]:
    return {
        iteration: {name: value for name, value in line.items() if "loss" in name}
        for iteration, line in metrics(output).items()
    }


def weights(output: Path, name: str = "model_final.pth") -> dict:
    return torch.load(output / name, weights_only=True)["model"]


def assert_same_run(output: Path, expected: Path) -> None:
    """Check that two runs have equal losses and final weights, to the last bit."""
    assert losses(output) == losses(expected)
    got, wanted = weights(output), weights(expected)
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def children(pid):
    """Return the ids of the processes that torch spawned in a process, ordered by rank."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True
    )
    lines = found.stdout.decode().splitlines()
    return [int(line.split()[0]) for line in lines if "spawn_main" in line]


def hold(folder: Path, pids) -> None:
    """Lock a run's folder and wait; report the ids of this process and a child that survives it."""
    from eseg_d2.engine.output_dir import lock_output_dir

    lock_output_dir(str(folder))
    child = os.fork()
    if child:
        pids.put((os.getpid(), child))
    signal.pause()
