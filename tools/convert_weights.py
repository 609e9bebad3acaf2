#!/usr/bin/env python3
"""Write a model's weights as safetensors, a format that cannot run code.

python tools/convert_weights.py output/model_final.pth

writes output/model_final.safetensors, which MODEL.WEIGHTS takes as it takes the checkpoint. Config,
class names and metrics of the run, as far as they lie beside the checkpoint, are in its metadata.

python tools/convert_weights.py timm://efficientnet_b1.ft_in1k
python tools/convert_weights.py model.bin --timm efficientnet_b1.ft_in1k

write ImageNet weights of a timm model, downloaded or from a file with its state dict, with the
normalisation of images that they need.
"""

import argparse
import sys


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        metavar="FILE",
        help="a file by torch.save (.pth, .pyth, .bin), a .pkl or .safetensors, or timm://NAME.TAG",
    )
    parser.add_argument("--output", default="", metavar="FILE", help="default: beside FILE")
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="default: config.yaml beside FILE"
    )
    parser.add_argument(
        "--timm",
        default="",
        metavar="NAME.TAG",
        help="FILE holds the state dict of this model of timm",
    )
    parser.add_argument(
        "--half", action="store_true", help="kernels and matrices in half precision"
    )
    return parser.parse_args(argv)


def main():
    args = parse_args()
    from eseg_d2.export.convert_weights import convert_weights

    try:
        path = convert_weights(
            args.source,
            args.output,
            config_file=args.config_file,
            timm_model=args.timm,
            half=args.half,
        )
        print(path)
    except (ValueError, OSError) as error:
        sys.exit(f"convert_weights.py: {error}")


if __name__ == "__main__":
    main()
