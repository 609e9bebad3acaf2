"""Every configuration key that eseg_d2 adds to those of Detectron2."""

from detectron2.config import CfgNode as CN
from detectron2.projects.deeplab import add_deeplab_config

__all__ = ["add_eseg_config"]


def add_eseg_config(cfg: CN) -> None:
    """Add this project's keys to ``cfg``, in place. No key of Detectron2 changes its default.

    The keys of Detectron2's DeepLab project come with them, for our DeepLabV3 baselines and its
    "poly" learning rate.

    Args:
        cfg: a config from :func:`detectron2.config.get_cfg`.
    """
    add_deeplab_config(cfg)
    # DeepLab's key with another default: "cross_entropy", or "hard_pixel_mining" of the fifth of
    # the pixels whose loss is highest. DeepLab's heads and ours read it, SemSegFPNHead does not.
    cfg.MODEL.SEM_SEG_HEAD.LOSS_TYPE = "cross_entropy"
    # Factors of the pixels' losses by train id, for classes that are rare; () is 1 for all. Our own
    # heads read it; with another head it is an error.
    cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = ()
    _add_memory_format(cfg)
    _add_gpu(cfg)
    _add_bifpn(cfg)
    _add_efficientnet(cfg)
    _add_rsp_head(cfg)
    _add_rsp_pyramid(cfg)
    _add_eseg_head(cfg)
    _add_panoptic(cfg)
    _add_data(cfg)
    _add_training(cfg)
    _add_launch(cfg)
    _add_evaluation(cfg)
    _add_ema(cfg)


def _add_memory_format(cfg: CN) -> None:
    # True: the models of train_net.py keep channels last in memory, which is faster on CPUs, and on
    # GPUs in mixed precision. The results are the same up to rounding. (Predictor has its own
    # switch.)
    cfg.MODEL.CHANNELS_LAST = False


def _add_gpu(cfg: CN) -> None:
    # True: GPUs compute float32 in TF32 (10 bits of mantissa), several times as fast since Ampere.
    # (Detectron2's CUDNN_BENCHMARK is True in the configs that are built on a Base-Semantic.yaml.)
    cfg.MODEL.TF32 = True
    # True: of the backbone's blocks only the inputs are kept in training, and the rest is computed
    # again in the backward pass: less memory for larger batches or images, about a quarter more
    # time. Gradients and statistics are the same.
    cfg.MODEL.GRADIENT_CHECKPOINTING = CN()
    cfg.MODEL.GRADIENT_CHECKPOINTING.BACKBONE = False
    # The same for the BiFPN's nodes.
    cfg.MODEL.GRADIENT_CHECKPOINTING.BIFPN = False
    # Training batches are put into page-locked memory, which copies faster to a GPU.
    cfg.DATALOADER.PIN_MEMORY = True
    # Training batches that each of the DATALOADER.NUM_WORKERS loads ahead, 1 or more.
    cfg.DATALOADER.PREFETCH = 2


def _add_bifpn(cfg: CN) -> None:
    cfg.MODEL.BIFPN = CN()
    # Builder of the bottom-up network, a name in Detectron2's BACKBONE_REGISTRY.
    cfg.MODEL.BIFPN.BOTTOM_UP = "build_resnet_backbone"
    # Its features that enter the pyramid; their strides determine the levels.
    cfg.MODEL.BIFPN.IN_FEATURES = ["res3", "res4", "res5"]
    # The lowest level of the pyramid: 3 for P3. Level l has stride 2**l pixels. 2 .. 9.
    cfg.MODEL.BIFPN.MIN_LEVEL = 3
    # The highest one.
    cfg.MODEL.BIFPN.MAX_LEVEL = 9
    # Width of every level, in channels.
    cfg.MODEL.BIFPN.OUT_CHANNELS = 256
    # Number of repeats of the top-down and bottom-up pass.
    cfg.MODEL.BIFPN.NUM_REPEATS = 1
    # Norm of the pyramid, as in Detectron2's get_norm: "BN", "SyncBN", "GN", "FrozenBN" or "".
    cfg.MODEL.BIFPN.NORM = "BN"
    # Momentum of its running statistics, in PyTorch's sense (share of the new value). 0.01 is
    # EfficientDet's; runs of a few hundred iterations need more.
    cfg.MODEL.BIFPN.NORM_MOMENTUM = 0.01
    # "fast_normalized": relu(w) / (sum relu(w) + 1e-4), EfficientDet; or plain "sum".
    cfg.MODEL.BIFPN.FUSION = "fast_normalized"
    # "swish" or "relu".
    cfg.MODEL.BIFPN.ACTIVATION = "swish"


def _add_efficientnet(cfg: CN) -> None:
    # For MODEL.BIFPN.BOTTOM_UP or MODEL.BACKBONE.NAME "build_efficientnet_backbone", or
    # MODEL.BACKBONE.NAME "build_efficientnet_fpn_backbone" with the keys of MODEL.FPN.
    cfg.MODEL.EFFICIENTNET = CN()
    # A timm model: "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnetv2_s", ... Its
    # ImageNet weights are MODEL.WEIGHTS "timm://NAME.TAG", "timm://efficientnet_b0.ra_in1k" say.
    cfg.MODEL.EFFICIENTNET.NAME = "efficientnet_b0"
    # The features that it returns, of res1 .. res5 (strides 2 .. 32).
    cfg.MODEL.EFFICIENTNET.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # False: without squeeze-and-excitation. (timm's Lite models never have it.)
    cfg.MODEL.EFFICIENTNET.SQUEEZE_EXCITE = True
    # "relu" or "swish"; "" keeps the activation of the model.
    cfg.MODEL.EFFICIENTNET.ACTIVATION = ""
    # "BN", or "SyncBN" over all processes.
    cfg.MODEL.EFFICIENTNET.NORM = "BN"
    # Probability that the last residual block is skipped in training, 0 .. 1; earlier ones have a
    # lower one.
    cfg.MODEL.EFFICIENTNET.DROP_PATH_RATE = 0.0
    cfg.register_renamed_key(
        "MODEL.EFFICIENTNET.PRETRAINED",
        "MODEL.WEIGHTS",
        message="ImageNet weights of timm are MODEL.WEIGHTS 'timm://NAME.TAG'; a file of your own "
        "is made such weights by tools/convert_weights.py --timm NAME.TAG",
    )


def _add_rsp_head(cfg: CN) -> None:
    # Number of classes, ignored label, features and loss weight stay in MODEL.SEM_SEG_HEAD.
    cfg.MODEL.RSP_HEAD = CN()
    # Width of query, key, value and of the fused maps, in channels.
    cfg.MODEL.RSP_HEAD.CHANNELS = 128
    # Relation heads; CHANNELS must be a multiple.
    cfg.MODEL.RSP_HEAD.NUM_HEADS = 8
    # k: the region is k x k cells of the next higher level. Odd.
    cfg.MODEL.RSP_HEAD.REGION_SIZE = 3
    # Depthwise separable 3x3 convolutions in place of full ones.
    cfg.MODEL.RSP_HEAD.SEPARABLE = False
    # True: on a GPU the relation is compiled by torch.compile, one graph of a few kernels in place
    # of a hundred; False: it runs eagerly. On a CPU it always does.
    cfg.MODEL.RSP_HEAD.COMPILE = True
    # Norm of the head, as in Detectron2's get_norm.
    cfg.MODEL.RSP_HEAD.NORM = "BN"


def _add_rsp_pyramid(cfg: CN) -> None:
    # For MODEL.BACKBONE.NAME "build_rsp_backbone". Its width, relation and norm are those of
    # MODEL.RSP_HEAD; that head is a 1x1 convolution on it if MODEL.SEM_SEG_HEAD.IN_FEATURES names
    # the lowest level only.
    cfg.MODEL.RSP_PYRAMID = CN()
    # Builder of the bottom-up network, a name in Detectron2's BACKBONE_REGISTRY.
    cfg.MODEL.RSP_PYRAMID.BOTTOM_UP = "build_resnet_backbone"
    # Its features that enter the pyramid. That of stride 2**l becomes p<l>; one more level above is
    # subsampled from the highest.
    cfg.MODEL.RSP_PYRAMID.IN_FEATURES = ["res2", "res3", "res4", "res5"]


def _add_eseg_head(cfg: CN) -> None:
    # Its width is that of the pyramid. Classes, features and loss are in MODEL.SEM_SEG_HEAD.
    cfg.MODEL.ESEG_HEAD = CN()
    # "swish" or "relu".
    cfg.MODEL.ESEG_HEAD.ACTIVATION = "swish"
    # Norm of the head, as in Detectron2's get_norm.
    cfg.MODEL.ESEG_HEAD.NORM = "BN"


def _add_panoptic(cfg: CN) -> None:
    cfg.MODEL.PANOPTIC = CN()
    # Classes of the semantic head: "all" of the data set, so that mIoU and PQ come from one
    # model; or "stuff_and_things": one class for all things, then the stuff (Panoptic FPN).
    cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES = "all"
    # Initial weights of the proposals and boxes: "pretrained" is Detectron2's; "scratch" larger
    # ones, for narrow models that start from random weights.
    cfg.MODEL.PANOPTIC.INIT = "pretrained"


def _add_data(cfg: CN) -> None:
    # Your own data sets, a list of {name, images, panoptic_png, panoptic_json}: two folders and
    # a json in the COCO panoptic format. Use the names in DATASETS.TRAIN and DATASETS.TEST.
    cfg.DATASETS.PANOPTIC = []
    # Training on panoptic data sets: brightness, contrast and saturation are each multiplied by a
    # random factor in [1 - COLOR_JITTER, 1 + COLOR_JITTER]. 0 to 1; 0 disables it.
    cfg.INPUT.COLOR_JITTER = 0.0
    # Check the data sets' jsons and some of their files before training and evaluation starts.
    cfg.DATASETS.QUICK_CHECK = True


def _add_training(cfg: CN) -> None:
    # Number of batches whose gradients are added for one update, computed one after the other. An
    # update sees IMS_PER_BATCH * ACCUMULATE_STEPS images; MAX_ITER counts updates. The
    # cross entropy of our semantic heads is that of the whole batch; other losses (boxes, masks,
    # hard_pixel_mining) are means over each part.
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # With SOLVER.AMP.ENABLED: "float16" (with a gradient scaler) or "bfloat16", which CPUs always
    # use.
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Number of updates of a run that may be skipped because a loss or gradient is NaN or infinite;
    # the next one ends the run. 0: the first one does.
    cfg.SOLVER.MAX_SKIPPED_STEPS = 0
    # Number of periodic checkpoints that stay on the disk, the newest ones; 0 keeps all.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 3
    # Number of unreadable files that a run may leave out; one more ends the run.
    cfg.DATALOADER.MAX_BAD_SAMPLES = 10
    cfg.LOGGING = CN()
    # Iterations between lines in the log, metrics.json and TensorBoard.
    cfg.LOGGING.PERIOD = 20
    # True: also send the metrics to Weights & Biases (pip install -e '.[wandb]').
    cfg.LOGGING.WANDB = False
    # The project in Weights & Biases; the run is named after OUTPUT_DIR.
    cfg.LOGGING.WANDB_PROJECT = "eseg_d2"


def _add_launch(cfg: CN) -> None:
    cfg.LAUNCH = CN()
    # With several processes: seconds after which the run ends if some of them are missing at the
    # start, or if one gives no sign of life (it is stopped, or its machine hangs).
    cfg.LAUNCH.TIMEOUT_SECONDS = 600


def _add_evaluation(cfg: CN) -> None:
    # Panoptic data sets: write the predictions in the formats of COCO's and
    # Cityscapes' servers to OUTPUT_DIR/inference/predictions/<data set>.
    cfg.TEST.SAVE_PREDICTIONS = False
    # Data sets in Cityscapes' format: write the predictions, and have cityscapesscripts score them.
    cfg.TEST.OFFICIAL_CITYSCAPES = False
    # The weights of the best evaluation by each of these, "task/metric" (higher is better), go to
    # model_best_<task>_<metric>.pth. Metrics that a model does not have are skipped.
    cfg.TEST.BEST_METRICS = ["panoptic_seg/PQ", "sem_seg/mIoU"]
    # True: measure the training losses on DATASETS.TEST, every TEST.EVAL_PERIOD iterations and at
    # the end.
    cfg.TEST.VALIDATION_LOSS = CN()
    cfg.TEST.VALIDATION_LOSS.ENABLED = False
    # Number of images of each data set, the first ones; 0: all.
    cfg.TEST.VALIDATION_LOSS.NUM_IMAGES = 0


def _add_ema(cfg: CN) -> None:
    # Exponential moving average of the weights: w_ema <- DECAY w_ema + (1 - DECAY) w after every
    # iteration. The average is evaluated, and model_final.pth holds it under "model".
    cfg.MODEL_EMA = CN()
    cfg.MODEL_EMA.ENABLED = False
    # Near 1: roughly the average of the last 1 / (1 - DECAY) iterations. After n iterations at most
    # (1 + n) / (10 + n), so that the first weights are soon forgotten.
    cfg.MODEL_EMA.DECAY = 0.9998
