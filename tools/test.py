"""Test a checkpoint; neither the teacher nor its weights are needed."""

from __future__ import annotations

import argparse

from mmkd_plugin.cli import add_common_arguments, build_runner, plain_errors, read_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config the checkpoint was trained with, or the stock config of the student')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--show-dir', help='folder for the images with their detections')
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Test."""
    args = parse_args()
    with plain_errors():
        cfg = read_config(args)
        cfg.load_from = args.checkpoint
        if args.show_dir:
            cfg.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
        build_runner(cfg).test()


if __name__ == '__main__':
    main()
