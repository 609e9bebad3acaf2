#!/usr/bin/env python3
"""Train or evaluate a model, with Detectron2's conventions.

python train_net.py --config-file configs/rsp_panoptic_R50.yaml --num-gpus 8
python train_net.py --config-file CONFIG --eval-only MODEL.WEIGHTS output/model_final.pth
python train_net.py --config-file CONFIG --resume
torchrun --nproc-per-node 8 train_net.py --config-file CONFIG
srun python train_net.py --config-file CONFIG
"""

import argparse
import os
import sys
import warnings

# Threads of torch that wait for each other go to sleep soon. By default they spin, for so long that
# a run on a CPU crawls when its data workers, or anything else, want a core. Sleeping at once
# (OMP_WAIT_POLICY=PASSIVE) is slower on an idle machine. This is read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Detectron2 0.6 calls what torch has deprecated since; its users can do nothing about it.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit|detectron2")
warnings.filterwarnings("ignore", message="TypedStorage is deprecated")


def parse_arguments() -> argparse.Namespace:
    """Detectron2's flags; parsed before it is imported, which takes seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in OUTPUT_DIR; start if there is none yet",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS only")
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        help="GPUs on this machine, with a process each; default 1. Without GPUs, or with "
        "MODEL.DEVICE cpu: processes",
    )
    parser.add_argument("--num-machines", type=int, default=1, help="machines in all; default 1")
    parser.add_argument("--machine-rank", type=int, default=0, help="this machine's, 0 ..")
    parser.add_argument(
        "--dist-url",
        default="auto",
        help="where the processes meet, tcp://FIRST_MACHINE:PORT; needed for several machines",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="overrides of the config, at the end of the command line",
    )
    return parser.parse_args()


def run(args: argparse.Namespace, cfg) -> None:
    """Train or evaluate, in one of the processes of the run."""
    from detectron2.engine import default_setup

    import eseg_d2  # noqa: F401, registers: a process that was started knows nothing yet
    from eseg_d2.engine import (
        Trainer,
        find_checkpoints,
        load_weights,
        lock_output_dir,
        log_to,
    )
    from eseg_d2.utils.errors import RunError

    lock_output_dir(cfg.OUTPUT_DIR)
    default_setup(cfg, args)
    log_to(cfg.OUTPUT_DIR)
    try:
        if args.eval_only:
            model = Trainer.build_model(cfg)
            resumed = args.resume and find_checkpoints(cfg.OUTPUT_DIR)
            load_weights(model, resumed[0] if resumed else cfg.MODEL.WEIGHTS)
        else:
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=args.resume)
    except (ValueError, FileNotFoundError) as e:
        raise RunError(str(e)) from e
    if args.eval_only:
        Trainer.test(cfg, model)
    else:
        trainer.train()
        model = trainer.evaluated_model
    if cfg.TEST.AUG.ENABLED:
        Trainer.test_with_TTA(cfg, model)


def main() -> None:
    args = parse_arguments()
    from detectron2.utils.logger import setup_logger

    import eseg_d2  # noqa: F401, registers
    from eseg_d2.apps.doctor import quick_check
    from eseg_d2.engine import launch, prepare_run, require_output_dir

    setup_logger(name="eseg_d2")
    try:
        cfg = prepare_run(args)
        if cfg.DATASETS.QUICK_CHECK:
            quick_check(cfg, eval_only=args.eval_only)
        require_output_dir(cfg.OUTPUT_DIR)
    except (ValueError, OSError) as e:
        sys.exit(f"train_net.py: {e}")
    launch(run, args, cfg)


if __name__ == "__main__":
    main()
