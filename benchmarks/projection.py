"""What a step stores and sends in each process, and how long it may take on more of them, from measured figures.

Bytes follow from the config; they are counted, not measured. Times are a projection: the step of one GPU is measured
(``--step``), as is the bandwidth that a collective reaches (``--within`` a machine, ``--between`` machines), and the
rest is assumed as it is printed. Nothing is said of accuracy: a larger global batch is another training.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence

from torch import nn

from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.table import console_table, markdown_table

ENGINES = ('DDP', 'FSDP', 'ZeRO 1', 'ZeRO 2')
WORD = 4
"""Bytes of a number in single precision."""
FORMULAS = """\
S, D, T: numbers of the student that are trained, of connectors and learned losses, of the teachers; N: processes;
k: numbers that the optimizer keeps for each weight (SGD with momentum 1, Adam 2); 4 bytes each.

stored per process, beside activations and the teachers (4 T, in no engine spread):
  DDP     4 (S + D) (2 + k)                  weights, gradients, optimizer; and 4 (S + D) of buckets to send from
  FSDP    4 S (2 + k) / N + 4 D (2 + k)      and 4 S of gathered weights, 4 S of gradients while a step runs
  ZeRO 1  4 (S + D) (2 + (k + 1) / N)        the optimizer and its copy of the weights are spread
  ZeRO 2  4 (S + D) (1 + (k + 2) / N)        the gradients too

sent per process and step, in rings (the teachers send nothing):
  DDP     2 (N - 1) / N 4 (S + D)            all-reduce of the gradients
  FSDP    2 (N - 1) / N 4 (S + D)            gathered weights and scattered gradients; 3 S in place of 2 S where
                                             parts of the student are sharded on their own, and gathered twice
  ZeRO    2 (N - 1) / N 4 (S + D)            scattered gradients, gathered weights

time: step + what of the sending is not hidden. Between "all hidden" (the step alone) and "none hidden" (the step, and
the bytes over the bandwidth of the slowest link of the ring) lies the truth."""
ASSUMED = (
    'Each process has the batch of the measured step, so that the global batch grows with their number.',
    'All processes are as fast as the measured one; data arrives in time.',
    'A collective reaches the measured bandwidth at these sizes; its latency, and the means of single numbers that '
    'losses exchange, are left out.',
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Numbers of a run.

    Attributes:
        student: Weights of the student that are trained.
        beside: Those of connectors and learned losses.
        teachers: Weights of all teachers.
        state: Numbers that the optimizer keeps for each weight.
    """

    student: int
    beside: int
    teachers: int
    state: int


def stored(engine: str, sizes: Sizes, processes: int) -> float:
    """Bytes of weights, gradients and optimizer in each process, between two steps.

    Args:
        engine: One of :data:`ENGINES`.
        sizes: Of the run.
        processes: How many there are.
    """
    every, parts = sizes.student + sizes.beside, sizes.state
    numbers = {
        'DDP': every * (2 + parts),
        'FSDP': (sizes.student / processes + sizes.beside) * (2 + parts),
        'ZeRO 1': every * (2 + (parts + 1) / processes),
        'ZeRO 2': every * (1 + (parts + 2) / processes),
    }
    return WORD * numbers[engine]


def sent(engine: str, sizes: Sizes, processes: int, nested: bool = False) -> float:
    """Bytes that each process sends in a step.

    Args:
        engine: One of :data:`ENGINES`.
        sizes: Of the run.
        processes: How many there are.
        nested: Whether FSDP shards parts of the student on their own.
    """
    more = sizes.student if engine == 'FSDP' and nested else 0
    return (processes - 1) / processes * WORD * (2 * (sizes.student + sizes.beside) + more)


def times(step: float, seconds: float) -> tuple[float, float]:
    """The shortest and the longest step: all of the sending hidden behind it, or none."""
    return max(step, seconds), step + seconds


def sizes_of(config: str, options: dict | None = None) -> Sizes:
    """Count what a config trains, with teachers that need no file."""
    from mmkd_plugin.cli import load_config, override
    from mmkd_plugin.engine.state_hook import algorithm_of
    from mmkd_plugin.study.runs import new_runner

    cfg = load_config(config)
    override(cfg, options or {})
    if cfg.get('distill') is None:
        raise DistillError(f'"{config}" has no distill block; give a config that distils.')
    for teacher in (cfg.distill.get('teachers') or dict(only=cfg.distill)).values():
        teacher['teacher_ckpt'] = 'random'
    with tempfile.TemporaryDirectory() as folder:
        cfg.merge_from_dict(dict(work_dir=folder, launcher='none', visualizer=None, compile=None, log_level='ERROR'))
        runner = new_runner(cfg)
        runner.add_distillation()
        algorithm = algorithm_of(runner)
    if algorithm is None:
        raise DistillError(f'Every method of "{config}" has weight 0; give a config that distils.')
    kind = str(cfg.optim_wrapper.optimizer.get('type'))
    state = 2 if 'Adam' in kind else int(bool(cfg.optim_wrapper.optimizer.get('momentum')))

    def trained(module: nn.Module) -> int:
        return sum(item.numel() for item in module.parameters() if item.requires_grad)

    teachers = sum(item.numel() for frozen in algorithm.teachers.values() for item in frozen.model.parameters())
    return Sizes(trained(algorithm.student), trained(algorithm.distiller), teachers, state)


def table(sizes: Sizes, arguments: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    """Heads and rows, by engine and number of processes."""
    heads = ['engine', 'processes', 'stored, MB', 'sent in a step, MB']
    timed = arguments.step is not None
    if timed:
        heads += ['step, s', 'images/s', 'of linear']
    rows = []
    for engine in ENGINES:
        for count in arguments.processes:
            size = sent(engine, sizes, count, arguments.nested)
            row = [engine, str(count), f'{stored(engine, sizes, count) / 1e6:.0f}', f'{size / 1e6:.0f}']
            if timed:
                speed = arguments.within if count <= arguments.per_machine else arguments.between
                least, most = times(arguments.step, size / (speed * 1e9) if count > 1 else 0.0)
                rate = [count * arguments.images / item for item in (most, least)]
                row += [f'{least:.3f} to {most:.3f}', f'{rate[0]:.3g} to {rate[1]:.3g}']
                row += [f'{arguments.step / most:.2f} to {arguments.step / least:.2f}']
            rows.append(row)
    return heads, rows


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments.

    Raises:
        DistillError: If a time is asked for and a bandwidth is missing.
    """
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='a config with a distill block; its teachers need no file')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 8, 64], help='how many processes')
    parser.add_argument('--step', type=float, help='measured seconds of a distilled step on one GPU')
    parser.add_argument('--images', type=int, help='images in that step')
    parser.add_argument('--within', type=float, help='measured GB/s of a collective within a machine')
    parser.add_argument('--between', type=float, help='measured GB/s of a collective between machines, per process')
    parser.add_argument('--per-machine', type=int, default=8, help='processes in a machine')
    parser.add_argument('--nested', action='store_true', help='FSDP shards parts of the student on their own')
    parser.add_argument('--markdown', action='store_true', help='print a table for a page')
    arguments = parser.parse_args(argv)
    if min(arguments.processes) < 1:
        raise DistillError('--processes takes numbers from 1 on.')
    others = (arguments.images, arguments.within, arguments.between)
    if arguments.step is not None and None in others:
        raise DistillError(
            '--step needs --images, --within and --between, all of them measured; leave --step out for bytes alone.'
        )
    if any(item is not None and item <= 0 for item in (arguments.step, *others)):
        raise DistillError('--step, --images, --within and --between take numbers above 0.')
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Print formulas, assumptions and numbers."""
    with plain_errors(argv):
        arguments = parse(argv)
        sizes = sizes_of(arguments.config)
        print(FORMULAS)
        print('\nassumed:', *(f'- {item}' for item in ASSUMED), sep='\n')
        print(f'\nS = {sizes.student:,}, D = {sizes.beside:,}, T = {sizes.teachers:,}, k = {sizes.state}\n')
        heads, rows = table(sizes, arguments)
        if arguments.markdown:
            print(markdown_table(rows, heads))
        else:
            wide_console().print(console_table(arguments.config, rows, heads))


if __name__ == '__main__':
    main()
