"""What the command lines of ``tools/`` share: MMDetection's options, and errors as one sentence."""

from __future__ import annotations

import argparse
import contextlib
import os
import os.path as osp
import sys
from collections.abc import Iterator

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from rich.console import Console

from mmkd_plugin.engine import DistillRunner
from mmkd_plugin.errors import DistillError


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; work_dirs/<config name> by default')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries, for instance distill.teacher_ckpt=teacher.pth train_cfg.max_epochs=3',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how processes are started'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def read_config(args: argparse.Namespace) -> Config:
    """Read the config file of a command line and apply its overrides.

    Args:
        args: With ``config`` and the options of :func:`add_common_arguments`.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        DistillError: If the file does not exist.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not osp.isfile(args.config):
        raise DistillError(f'The config file "{args.config}" does not exist; give the path of a .py config.')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for; without a wish it is ours, which reads checkpoints safely."""
    return RUNNERS.build(cfg) if cfg.get('runner_type') else DistillRunner.from_cfg(cfg)


def wide_console() -> Console:
    """A console for tables: as wide as the terminal, 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """End a command with the sentence of a :class:`DistillError` instead of a traceback."""
    try:
        yield
    except DistillError as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from None
