"""Train a student, distilled or alone: MMDetection's train.py for any config with or without a distill block."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd_plugin.cli import (
    CommandParser,
    add_common_arguments,
    build_runner,
    leave_group,
    plain_errors,
    read_config,
)
from mmkd_plugin.errors import DistillError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config file, stock or with a distill block')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the real batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or from the latest one in the work folder where no path is given',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train.

    Args:
        argv: Arguments; those of the process if None.
    """
    with plain_errors(argv, 'the same command with --resume goes on from the latest checkpoint.'):
        args = parse_args(argv)
        cfg = read_config(args)
        if args.amp:
            from mmengine.device import get_device

            if get_device() == 'cpu':
                raise DistillError('--amp needs a GPU, and none is visible; leave it out to train in single precision.')
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.loss_scale = 'dynamic'
        if args.auto_scale_lr:
            if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
                raise DistillError(
                    '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config; set it to the batch size that '
                    'the learning rate was made for.'
                )
            cfg.auto_scale_lr.enable = True
        if args.resume is not None:
            cfg.resume = True
            cfg.load_from = None if args.resume == 'auto' else args.resume
        build_runner(cfg).train()
        leave_group()


if __name__ == '__main__':
    main()
