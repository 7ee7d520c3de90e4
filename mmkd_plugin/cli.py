"""What the command lines share: MMDetection's options, reading a config, and errors as one sentence.

Importing it is cheap, and what is heavy waits for its use, so that a command can answer ``--help`` at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import os.path as osp
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmkd_plugin.compat.unread_block import refuse_misspelt_block
from mmkd_plugin.errors import DistillError, nearest

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner
    from rich.console import Console


_LAUNCHERS = {
    'pytorch': (('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'), '"tools/dist_train.sh CONFIG GPUS" or torchrun'),
    'slurm': (('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'), '"tools/slurm_train.sh" or srun'),
    'mpi': (('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'), 'mpirun'),
}
"""What each launcher leaves in the environment of its processes, and how it is called."""


def command_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """The parser of one command.

    Args:
        name: The command as it is typed.
        description: What it does.
        example: A command line to copy, the last thing that its help shows.

    Returns:
        The parser, without arguments.
    """
    return argparse.ArgumentParser(**help_texts(description, example), prog=f'mmkd {name}')


def help_texts(description: str, example: str) -> dict:
    """Arguments of a parser whose help ends with an example."""
    return dict(
        description=description,
        epilog=f'example:\n  {example}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; work_dirs/<config name> by default')
    add_config_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how processes are started'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, for commands that read a config and run nothing from it."""
    from mmengine.config import DictAction

    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries, for instance distill.teacher_ckpt=teacher.pth train_cfg.max_epochs=3',
    )
    parser.set_defaults(launcher='none', work_dir=None, local_rank=0)


def read_config(args: argparse.Namespace) -> Config:
    """Read the config of a command line and apply its overrides.

    Args:
        args: With ``config``, a file or a zoo name, and the options of :func:`add_common_arguments` or
            :func:`add_config_options`.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        DistillError: If the file does not exist or is no config.
    """
    require_launcher(args.launcher)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = _load(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    refuse_misspelt_block(cfg)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def require_launcher(launcher: str) -> None:
    """Refuse a launcher that did not start this process.

    Args:
        launcher: What ``--launcher`` names.

    Raises:
        DistillError: Naming the script that starts processes so.
    """
    variables, start = _LAUNCHERS.get(launcher, ((), ''))
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise DistillError(
            f'--launcher {launcher} is for processes that it has started, but the environment has no {missing[0]}; '
            f'start them with {start}, or leave --launcher out to run in one process.'
        )


def _load(name: str) -> Config:
    """The config of a file or, as ``mmdet::path``, of a file beside an installed package's configs."""
    from mmengine.config import Config

    if '::' in name:
        from mmkd_plugin.teachers.source import local_file, other_configs

        path = local_file(name)
        fix = other_configs(name, path)
    else:
        path = osp.expanduser(name)
        fix = 'give the path of a .py config, or a zoo name such as "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py".'
    if not osp.isfile(path):
        raise DistillError(f'The config file "{name}" does not exist; {fix}')
    try:
        return Config.fromfile(path)
    except DistillError:
        raise
    except Exception as error:
        reason = (str(error).strip() or 'no reason given').splitlines()[0].rstrip('.')
        raise DistillError(
            f'The config "{name}" cannot be read ({type(error).__name__}: {reason}); correct the file or name another.'
        ) from error


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for; without a wish it is ours, which reads checkpoints safely."""
    from mmengine.registry import RUNNERS

    from mmkd_plugin.engine import DistillRunner

    kind = cfg.get('runner_type')
    if isinstance(kind, str) and RUNNERS.get(kind) is None:
        known = [*RUNNERS.module_dict, f'mmkd_plugin.{DistillRunner.__name__}']
        raise DistillError(f'runner_type is "{kind}", which is no runner: {nearest(kind, known)}')
    return RUNNERS.build(cfg) if kind else DistillRunner.from_cfg(cfg)


def wide_console() -> Console:
    """A console for tables: as wide as the terminal, 120 columns where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """End a command with the sentence of a :class:`DistillError` instead of a traceback."""
    try:
        yield
    except DistillError as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(2) from None
