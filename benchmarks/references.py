"""Train the shipped pairs for a few dozen iterations and compare every term with committed references."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.runs import latest_metrics, new_runner, prepared, quiet

PARTS = ('first', 'later', 'metrics')
"""What is kept of a run: the terms of the first step, their means over the last steps, the metrics of the student."""

STILL = 'still'
"""The terms of a first step without dropout, whose draws are not the same on every version of torch."""

IGNORED = ('time', 'data_time', 'lr', 'memory')


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a value may lie from its reference.

    The first step is deterministic up to the rounding of sums, which differs between CPUs; later steps add up what
    those roundings become. The bounds are more than twice what another number of threads and older instruction sets
    change.

    Attributes:
        first: Relative, for every term of the first step.
        later: Relative, for the mean of every term over the last third of the steps.
        floor: Smaller values are compared as if they were of this size: a mean of values of both signs is close to 0.
        metric: Absolute, for every final metric.
    """

    first: float = 1e-3
    later: float = 0.1
    floor: float = 1e-4
    metric: float = 0.005


@dataclasses.dataclass(frozen=True)
class Move:
    """One compared value."""

    pair: str
    what: str
    reference: float
    value: float
    change: float
    allowed: float

    @property
    def moved(self) -> bool:
        """Whether the change is more than allowed; what is not finite always is."""
        return not self.change <= self.allowed


class _WakeZeros(Hook):
    """Gives learned losses that start at zero small values, so that the first step depends on all of their code."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Fill every parameter of the distiller that is zero throughout."""
        algorithm = algorithm_of(runner)
        generator = torch.Generator().manual_seed(0)
        for parameter in algorithm.distiller.parameters() if algorithm is not None else ():
            if not parameter.detach().any():
                values = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(0.1 * values)


class _NoDropout(Hook):
    """Switches the student's dropout off; a teacher has none in force anyway, unless something is wrong."""

    def before_train(self, runner: Runner) -> None:
        """Let every layer keep everything."""
        algorithm = algorithm_of(runner)
        for module in (runner.model if algorithm is None else algorithm.student).modules():
            if isinstance(module, _DropoutNd):
                module.p = 0.0


class _SameDraws(Hook):
    """Undoes what the first batch drew from torch's generator before the first step.

    A data loader draws a number when its iterator is made, which some versions of MMEngine do while they build the
    training loop and others when the first batch is asked for. Here the number is drawn with the loop, always; see
    :func:`_draw_with_the_loop`.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Keep the state."""
        self.state: Tensor | None = torch.get_rng_state()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Go back to it, once."""
        if self.state is not None:
            torch.set_rng_state(self.state)
            self.state = None


def _draw_with_the_loop(runner: Runner) -> None:
    """Let building the training loop draw one number from torch's generator, whatever else it draws or does not."""
    build = runner.build_train_loop

    def build_and_draw(*args: Any, **kwargs: Any) -> Any:
        state = torch.get_rng_state()
        loop = build(*args, **kwargs)
        torch.set_rng_state(state)
        torch.empty((), dtype=torch.int64).random_()
        return loop

    runner.build_train_loop = build_and_draw


def first_step(name: str, config: str, work_dir: Path, options: dict[str, Any] | None = None) -> dict:
    """Train one pair for one step without dropout and collect its terms.

    Args:
        name: Folder of the run.
        config: The pair's config.
        work_dir: Folder of the runs.
        options: Overrides in the form of ``--cfg-options``.

    Returns:
        ``still`` by term.
    """
    chosen = {'train_cfg.val_interval': 2, **(options or {})}
    return {STILL: measure(name, config, 1, work_dir, chosen, (_NoDropout(),))['first']}


def measure(
    name: str,
    config: str,
    iterations: int,
    work_dir: Path,
    options: dict[str, Any] | None = None,
    hooks: Sequence[Hook] = (),
) -> dict:
    """Train one pair and collect its numbers.

    Args:
        name: Folder of the run.
        config: The pair's config.
        iterations: How long it trains, from seed 0.
        work_dir: Folder of the runs.
        options: Overrides in the form of ``--cfg-options``.
        hooks: Run beside those of the config.

    Returns:
        ``first`` and ``later`` by term, ``metrics`` by name.
    """
    run_dir = work_dir / name
    run_dir.mkdir(parents=True, exist_ok=True)
    short = {
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
        'randomness.deterministic': True,
        **(options or {}),
    }
    with quiet(run_dir / 'console.log'):
        runner = new_runner(prepared(config, 0, run_dir, short))
        _draw_with_the_loop(runner)
        runner.register_hook(_SameDraws())
        for hook in (_WakeZeros(), *hooks):
            runner.register_hook(hook)
        runner.train()
    first, later = {}, {}
    for key, buffer in runner.message_hub.log_scalars.items():
        term = key.partition('train/')[2]
        if not term or term in IGNORED:
            continue
        values = [float(value) for value in buffer.data[0]]
        tail = values[-max(1, len(values) // 3) :]
        first[term], later[term] = values[0], sum(tail) / len(tail)
    return dict(first=first, later=later, metrics=latest_metrics(runner))


def compare(reference: dict[str, dict], measured: dict[str, dict], tolerance: Tolerance) -> list[Move]:
    """Compare all pairs, value by value.

    Args:
        reference: The committed numbers by pair.
        measured: The numbers of this run.
        tolerance: What may move.

    Returns:
        One entry per value, also for those that only one side has.
    """
    moves = []
    for pair in sorted(set(reference) | set(measured)):
        ours, theirs = measured.get(pair, {}), reference.get(pair, {})
        for part, allowed in (
            (STILL, tolerance.first),
            ('first', tolerance.first),
            ('later', tolerance.later),
            ('metrics', tolerance.metric),
        ):
            old, new = theirs.get(part, {}), ours.get(part, {})
            for key in sorted(set(old) | set(new)):
                before, after = old.get(key, math.nan), new.get(key, math.nan)
                change = abs(after - before)
                if part != 'metrics':
                    change /= max(abs(before), tolerance.floor)
                moves.append(Move(pair, f'{part} {key}', before, after, change, allowed))
    return moves


def table(moves: list[Move], everything: bool = False) -> Table:
    """What moved, and by how much; the largest move of each pair where nothing did."""
    shown = [move for move in moves if everything or move.moved]
    if not shown:
        shown = sorted(moves, key=lambda move: -move.change / move.allowed)[:5]
    result = Table(title='moved' if any(move.moved for move in moves) else 'nearest to moving', title_justify='left')
    for column in ('pair', 'value', 'reference', 'now', 'change', 'allowed'):
        result.add_column(column, justify='left' if column in ('pair', 'value') else 'right')
    for move in shown:
        digits = (f'{move.reference:.6g}', f'{move.value:.6g}', f'{move.change:.2g}', f'{move.allowed:.2g}')
        result.add_row(move.pair, move.what, *digits, style='bold red' if move.moved else None)
    return result


def run(
    pairs: dict[str, str],
    references: Path,
    iterations: int,
    work_dir: Path,
    update: bool,
    console: Console,
    options: dict[str, Any] | None = None,
    tolerance: Tolerance | None = None,
    first_only: bool = False,
) -> bool:
    """Measure the pairs and compare them, or rewrite their references.

    Args:
        pairs: Configs by name.
        references: The committed JSON file.
        iterations: How long each pair trains.
        work_dir: Folder of the runs.
        update: Whether to rewrite the references of these pairs instead of comparing.
        console: Where the table goes.
        options: Overrides for every pair, in the form of ``--cfg-options``.
        tolerance: What may move.
        first_only: Whether to train for one step, without dropout, and look at nothing else.

    Returns:
        Whether nothing moved.

    Raises:
        DistillError: If the references are missing or were made with another number of iterations.
    """
    stored: dict[str, Any] = dict(iterations=iterations, pairs={})
    if references.exists():
        stored = json.loads(references.read_text())
    if not update and not stored['pairs']:
        raise DistillError(f'There are no references in "{references}"; make them with --update.')
    parts = (STILL,) if first_only else PARTS
    if stored['iterations'] != iterations and not first_only and not (update and set(stored['pairs']) <= set(pairs)):
        raise DistillError(
            f'The references were made with {stored["iterations"]} iterations, not {iterations}; use that number '
            'or --update all pairs.'
        )
    measured = {}
    with Progress(console=console) as progress:
        task = progress.add_task('training the pairs', total=len(pairs))
        for name, config in pairs.items():
            progress.console.print(f'{name}: {"first step" if first_only else f"{iterations} iterations"}')
            if first_only:
                measured[name] = first_step(name, config, work_dir, options)
            else:
                measured[name] = measure(name, config, iterations, work_dir, options)
            progress.advance(task)
    if update:
        references.parent.mkdir(parents=True, exist_ok=True)
        for name, numbers in measured.items():
            stored['pairs'][name] = {**stored['pairs'].get(name, {}), **numbers}
        stored['iterations'] = stored['iterations'] if first_only else iterations
        references.write_text(json.dumps(stored, indent=1, sort_keys=True) + '\n')
        console.print(f'references written to {references}')
        return True
    known = {name: {part: stored['pairs'].get(name, {}).get(part, {}) for part in parts} for name in pairs}
    moves = compare(known, measured, tolerance or Tolerance())
    console.print(table(moves))
    moved = sum(move.moved for move in moves)
    console.print(
        f'{moved} of {len(moves)} values moved.' if moved else f'All {len(moves)} values are where they were.'
    )
    return not moved
