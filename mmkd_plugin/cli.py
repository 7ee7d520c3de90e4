"""What the command lines share: MMDetection's options, reading a config, and errors as one sentence.

A command reads its arguments with a :class:`CommandParser` and does all its work within :func:`plain_errors`.

Importing it is cheap, and what is heavy waits for its use, so that a command can answer ``--help`` at once.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import os.path as osp
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmkd_plugin.compat.unread_block import refuse_misspelt_block
from mmkd_plugin.errors import DistillError, nearest

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner
    from rich.console import Console

# MMEngine's business, told again with every config that is read.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)

_TRACEBACK = '--traceback'

_LAUNCHERS = {
    'pytorch': (('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'), '"tools/dist_train.sh CONFIG GPUS" or torchrun'),
    'slurm': (('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'), '"tools/slurm_train.sh" or srun'),
    'mpi': (('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'), 'mpirun'),
}
"""What each launcher leaves in the environment of its processes, and how it is called."""


class CommandParser(argparse.ArgumentParser):
    """A parser with the option that all commands have; :func:`plain_errors` reads it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument(_TRACEBACK, action='store_true', help='show where an error arose, not a sentence alone')


def command_parser(name: str, description: str, example: str) -> CommandParser:
    """The parser of one command.

    Args:
        name: The command as it is typed.
        description: What it does.
        example: A command line to copy, the last thing that its help shows.

    Returns:
        The parser, without arguments.
    """
    return CommandParser(**help_texts(description, example), prog=f'mmkd {name}')


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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        action=_Overrides,
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
    cfg = load_config(args.config)
    cfg.launcher = args.launcher
    override(cfg, args.cfg_options)
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


def load_config(name: str) -> Config:
    """Read a config.

    Args:
        name: The path of a file, or ``mmdet::path`` for a file beside an installed package's configs.

    Returns:
        The config.

    Raises:
        DistillError: If the file does not exist, is no config, or builds on one that does not exist.
    """
    from mmengine.config import Config

    from mmkd_plugin.teachers.source import local_file, other_configs, unreadable

    path = local_file(name) if '::' in name else osp.expanduser(name)
    if osp.isdir(path):
        raise DistillError(f'The config "{name}" is a folder; give a .py file in it.')
    if not osp.isfile(path):
        raise DistillError(f'The config file "{name}" does not exist; {other_configs(name, path)}')
    try:
        return Config.fromfile(path)
    except DistillError:
        raise
    except Exception as error:
        raise DistillError(unreadable(f'The config "{name}"', error)) from error


def override(cfg: Config, options: dict[str, Any] | None) -> None:
    """Apply ``--cfg-options`` to a config.

    Raises:
        DistillError: If an option goes where nothing can be set, such as into a text.
    """
    for key, value in (options or {}).items():
        try:
            cfg.merge_from_dict({key: value})
        except Exception as error:
            reason = str(error.args[0] if error.args else type(error).__name__).splitlines()[0].rstrip('.')
            if isinstance(error, DistillError):
                # Our own sentence is about what a config says.
                reason = 'something on this path is no dict there'
            raise DistillError(
                f'--cfg-options {key}={value} cannot be applied to the config ({reason}); give the path of an entry, '
                'as "mmkd print-config" or the config itself shows them.'
            ) from error


class _Overrides(argparse.Action):
    """MMEngine's ``KEY=VALUE`` pairs, with a sentence for what is none."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        from mmengine.config import DictAction

        known = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, separator, _ = pair.partition('=')
            if not separator or not all(key.split('.')):
                raise DistillError(
                    f'{option} takes KEY=VALUE, as in train_cfg.max_epochs=3, but "{pair}" is none; write it without '
                    'blanks around "=", and lists without blanks or in quotes.'
                )
            try:
                DictAction([option], self.dest)(parser, namespace, [pair], option)
            except Exception as error:
                raise DistillError(
                    f'{option} cannot read "{pair}" ({str(error).splitlines()[0]}); give a number, a text or a list '
                    'such as "[1,2]", in quotes.'
                ) from error
            known.update(getattr(namespace, self.dest))
        setattr(namespace, self.dest, known)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for; without a wish it is ours, which reads checkpoints safely."""
    from mmengine.registry import RUNNERS

    from mmkd_plugin.engine import DistillRunner

    kind = cfg.get('runner_type')
    if isinstance(kind, str) and RUNNERS.get(kind) is None:
        known = [*RUNNERS.module_dict, f'mmkd_plugin.{DistillRunner.__name__}']
        raise DistillError(f'runner_type is "{kind}", which is no runner: {nearest(kind, known)}')
    return RUNNERS.build(cfg) if kind else DistillRunner.from_cfg(cfg)


def leave_group() -> None:
    """Let go of the other processes of a distributed run, once everything that it leaves is written.

    A group that is still there when the interpreter shuts down makes torch warn of leaked resources, and a thread of
    gloo that works for it can abort the process.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def on_one_process(cfg: Config) -> Config:
    """The same config for a command that takes some steps itself: how a run is spread over processes is left out."""
    cfg = copy.deepcopy(cfg)
    cfg.pop('strategy', None)
    if str(cfg.get('runner_type')).endswith('FlexibleDistillRunner'):
        cfg.runner_type = 'mmkd_plugin.DistillRunner'
    return cfg


def wide_console() -> Console:
    """A console for tables: as wide as the terminal, 160 columns where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


@contextlib.contextmanager
def plain_errors(argv: Sequence[str] | None = None, interrupted: str = '') -> Iterator[None]:
    """End a command with one sentence instead of a traceback, where the mistake is one that a user can mend.

    That is a :class:`DistillError`, and what :mod:`mmkd_plugin.compat.retelling` knows of the packages below. What
    else is raised is a fault of somebody's code, and its traceback stands.

    Args:
        argv: The arguments of the command, those of the process by default; ``--traceback`` in them lets all errors
            through.
        interrupted: What to say behind Ctrl-C, such as how to go on.

    Raises:
        SystemExit: Of status 2 behind a sentence, of 130 behind Ctrl-C.
    """
    whole = any(_TRACEBACK.startswith(item) for item in (sys.argv[1:] if argv is None else argv) if len(item) > 5)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if whole:
            raise
        if isinstance(error, BrokenPipeError):
            # Who read the output has seen enough; what is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        if isinstance(error, KeyboardInterrupt):
            print(f'interrupted{interrupted and "; "}{interrupted}', file=sys.stderr)
            raise SystemExit(130) from None
        sentence = str(error) if isinstance(error, DistillError) else _retold(error)
        if sentence is None:
            raise
        print(f'error: {sentence}', file=sys.stderr)
        raise SystemExit(2) from None


def _retold(error: Exception) -> str | None:
    from mmkd_plugin.compat.retelling import retell

    sentence = retell(error)
    return sentence and f'{sentence} ({_TRACEBACK} shows the whole.)'
