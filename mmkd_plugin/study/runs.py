"""Train or test a config once and keep what came out, so that a killed study goes on where it stopped."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import statistics
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmkd_plugin.cli import build_runner, load_config, on_one_process, override
from mmkd_plugin.compat.retelling import retell
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.tasks import as_fractions
from mmkd_plugin.teachers import local_file
from mmkd_plugin.utilities.text import sentence

WARM_UP = 5
"""Iterations that the time per iteration leaves out."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one run came to.

    Attributes:
        name: Shown in tables.
        seed: Random seed.
        metrics: Final values on the test split by the evaluator's names, fractions of 1.
        checkpoint: Path of the weights.
        checkpoint_bytes: Size of the weights alone, in the precision they are used in.
        seconds_per_iteration: Of training, see :func:`seconds_each`; 0 where it was not measured.
        instructions: The instruction set that the processor was restricted to, if it was.
    """

    name: str
    seed: int
    metrics: dict[str, float]
    checkpoint: str
    checkpoint_bytes: int
    seconds_per_iteration: float = 0.0
    instructions: str = ''


class _ProgressHook(Hook):
    """Shows where a run is: a bar on a terminal, a line now and then elsewhere."""

    priority = 'LOWEST'

    def __init__(self, name: str, progress: Progress) -> None:
        self.progress = progress
        self.name = name
        self.task = progress.add_task(name, total=None)
        self.seconds: list[float] = []
        self.started = 0.0
        self.said = time.monotonic()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.started = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        self.seconds.append(time.perf_counter() - self.started)
        self.progress.update(self.task, total=runner.max_iters, completed=runner.iter + 1)
        if not self.progress.console.is_terminal and time.monotonic() - self.said > 30:
            self.said = time.monotonic()
            self.progress.console.print(f'{self.name}: iteration {runner.iter + 1} of {runner.max_iters}')


@contextlib.contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """A bar for a sequence of runs.

    Args:
        console: Where it is shown; the standard output of now by default.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Bound to the stream of now: what a run prints is sent to a file meanwhile, and progress must not go there as well.
    with Progress(*columns, console=console or Console(file=sys.stdout)) as progress:
        yield progress


def prepared(config: str | Config, seed: int, work_dir: Path, options: dict[str, Any] | None = None) -> Config:
    """A config ready for one run of a study."""
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict({'randomness.seed': seed, 'launcher': 'none'})
    override(cfg, options)
    return cfg


def new_runner(cfg: Config) -> Runner:
    """Build a runner with a name of its own.

    MMEngine names a run after the second it starts in, and runs of one name share their log history.
    """
    cfg = on_one_process(cfg)
    cfg.experiment_name = f'{Path(cfg.work_dir).name}_{uuid.uuid4().hex[:8]}'
    return build_runner(cfg)


def train_once(
    name: str,
    config: str | Config,
    seed: int,
    work_dir: Path,
    progress: Progress,
    options: dict[str, Any] | None = None,
    any_code: bool = False,
    instructions: str = '',
) -> Outcome:
    """Train a config, or read the outcome of an earlier, equal run.

    Args:
        name: Shown in tables and progress.
        config: Config or its path.
        seed: Random seed.
        work_dir: Folder of the run; an interrupted run goes on from its last checkpoint.
        progress: Where progress is shown.
        options: Overrides in the form of ``--cfg-options``.
        any_code: Whether a finished run counts although this package's code has changed since.
        instructions: The instruction set that this process was restricted to when it began, if it was.

    Returns:
        The outcome.
    """
    from mmkd_plugin.engine.work_folder import forget_checkpoints

    cfg = prepared(config, seed, work_dir, options)
    known = work_dir / 'outcome.json'
    digest, code = _digest(cfg) + instructions, code_digest()
    stored = _stored(known)
    same_code = stored.pop('code', None) == code
    if stored.pop('digest', None) == digest and (same_code or any_code) and Path(stored['checkpoint']).exists():
        progress.console.print(f'{name}, seed {seed}: done before')
        return Outcome(**stored)
    mark = work_dir / 'started.txt'
    cfg.resume = mark.exists() and mark.read_text() == digest + code
    work_dir.mkdir(parents=True, exist_ok=True)
    if not cfg.resume:
        forget_checkpoints(str(work_dir))
    mark.write_text(digest + code)
    hook = _ProgressHook(f'{name}, seed {seed}', progress)
    with told_of(f'The run "{name}", seed {seed},'), quiet(work_dir / 'console.log'):
        runner = new_runner(cfg)
        runner.register_hook(hook)
        runner.train()
        metrics = latest_metrics(runner) if _tested_as_validated(cfg) else as_fractions(runner.test())
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    outcome = Outcome(
        name=name,
        seed=seed,
        metrics=metrics,
        checkpoint=str(checkpoint),
        checkpoint_bytes=_weights_bytes(runner),
        instructions=instructions,
    )
    known.write_text(json.dumps({**dataclasses.asdict(outcome), 'digest': digest, 'code': code}, indent=1))
    return outcome


def test_once(name: str, config: str | Config, checkpoint: str, work_dir: Path) -> Outcome:
    """Evaluate a checkpoint on the config's test split."""
    if not Path(checkpoint).exists():
        raise DistillError(f'The checkpoint "{checkpoint}" does not exist; train it first or give another path.')
    cfg = prepared(config, 0, work_dir)
    cfg.load_from = checkpoint
    work_dir.mkdir(parents=True, exist_ok=True)
    with told_of(f'The test of "{name}"'), quiet(work_dir / 'console.log'):
        runner = new_runner(cfg)
        metrics = as_fractions(runner.test())
    return Outcome(name, 0, metrics, checkpoint, _weights_bytes(runner))


test_once.__test__ = False  # type: ignore[attr-defined]


def seconds_each(
    configs: dict[str, Config], work_dir: Path, progress: Progress, rounds: int = 2, iterations: int = 15
) -> dict[str, float]:
    """Time training iterations of several configs side by side.

    The configs take turns, so that whatever else the machine does meets all of them.

    Args:
        configs: By name.
        work_dir: Folder for what the runs print; nothing else is kept.
        progress: Where progress is shown.
        rounds: Turns of each config.
        iterations: Iterations of a turn; the first few are left out.

    Returns:
        Median seconds of an iteration by name, the least of all rounds.
    """
    options = {
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations + 1,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
    }
    work_dir.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(rounds):
        for name, config in configs.items():
            hook = _ProgressHook(f'time of {name}', progress)
            with told_of(f'The time measurement of "{name}"'), quiet(work_dir / 'console.log'):
                runner = new_runner(prepared(config, 0, work_dir, options))
                runner.register_hook(hook)
                runner.train()
            seconds[name].append(statistics.median(hook.seconds[WARM_UP:]))
            progress.remove_task(hook.task)
    return {name: min(values) for name, values in seconds.items()}


@contextlib.contextmanager
def told_of(what: str) -> Iterator[None]:
    """Say which of several runs ends in a sentence."""
    try:
        yield
    except DistillError as error:
        raise DistillError(f'{what} failed: {error}') from error


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what a run prints to a file, and name the file where the run fails."""
    with log.open('a') as stream, sent_to(stream):
        try:
            yield
        except DistillError:
            raise
        except Exception as error:
            # For whoever wrote the code that failed.
            traceback.print_exc(file=stream)
            known = retell(error)
            if known is None:
                reason = (str(error).strip() or 'no reason given').splitlines()[0].rstrip('.')
                known = f'{type(error).__name__}: {reason};'
            raise DistillError(f'{known} Its output is in "{log}".') from error


@contextlib.contextmanager
def sent_to(stream: TextIO) -> Iterator[None]:
    """Send what is printed and logged to a stream."""
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            yield
        finally:
            # Loggers outlive the run and must not write to a closed file.
            for logger in MMLogger._instance_dict.values():
                for handler in [item for item in logger.handlers if getattr(item, 'stream', None) is stream]:
                    logger.removeHandler(handler)


def told(error: Exception) -> str:
    """What went wrong, in a sentence, where others go on."""
    return str(error) if isinstance(error, DistillError) else retell(error) or sentence(error)


def latest_metrics(runner: Runner) -> dict[str, float]:
    """Last value of every validation metric of a run, as a fraction of 1."""
    values = {}
    for key, buffer in runner.message_hub.log_scalars.items():
        if key.startswith('val/') and not key.endswith('time'):
            values[key[4:]] = float(buffer.current())
    return as_fractions(values)


def _stored(file: Path) -> dict[str, Any]:
    """What an earlier run came to; nothing where it was killed while it wrote that down."""
    try:
        stored = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    wanted = {field.name for field in dataclasses.fields(Outcome)} | {'digest', 'code'}
    return stored if isinstance(stored, dict) and set(stored) == wanted else {}


def _tested_as_validated(cfg: Config) -> bool:
    """Whether the validation at the end of the training is the test."""
    pairs = (('val_dataloader', 'test_dataloader'), ('val_evaluator', 'test_evaluator'))
    return all(cfg.get(one) == cfg.get(other) for one, other in pairs)


def _weights_bytes(runner: Runner) -> int:
    return sum(value.numel() * value.element_size() for value in runner.model.state_dict().values())


def _digest(cfg: Config) -> str:
    """Hash of the config and of the teachers' files."""
    digest = hashlib.sha256(repr(cfg.to_dict()).encode())
    distill = cfg.get('distill') or {}
    for teacher in (distill, *(distill.get('teachers') or {}).values()):
        name = teacher.get('teacher_ckpt') if isinstance(teacher, dict) else None
        if name is not None and Path(local_file(name)).is_file():
            digest.update(Path(local_file(name)).read_bytes())
    return digest.hexdigest()


def code_digest() -> str:
    """Hash of this package's code."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob('*.py')):
        digest.update(file.read_bytes())
    return digest.hexdigest()
