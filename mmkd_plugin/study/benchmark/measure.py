"""Take the steps: the student alone, the floor, ours and MMRazor's, in turns in one process."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import io
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from torch import nn

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.study.benchmark.case import Case, expanded, on_device, require_measurable
from mmkd_plugin.study.benchmark.floor import FloorAlgorithm
from mmkd_plugin.study.benchmark.razor import Look, NoEquivalent, pull_of, razor_algorithm, settled
from mmkd_plugin.study.first_batches import KeptBatches, read_batches
from mmkd_plugin.study.one_step import forgotten_run
from mmkd_plugin.study.runs import new_runner, sent_to
from mmkd_plugin.study.turns import SteppedRun, planned, take_turns, train_together
from mmkd_plugin.utilities.text import sentence

ALONE, FLOOR, OURS, RAZOR = 'alone', 'floor', 'ours', 'mmrazor'
SIDES = (ALONE, FLOOR, OURS, RAZOR)
"""What is measured, as it is called in the results."""

_EQUAL = {'float32': 1e-3, 'float16': 0.05, 'bfloat16': 0.2}
"""How far the pulls of two equal algorithms may lie apart, as a share of their length."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What the steps of one side cost.

    Attributes:
        seconds: Of each round.
        held: Bytes between two steps: weights, gradients and the optimizer's state, the teacher's among them.
        peak: Bytes at the most within a step, those included.
        syncs: How often the host waits for the device in a step.
    """

    seconds: list[float]
    held: int
    peak: int
    syncs: int


@dataclasses.dataclass
class Measured:
    """What was found about a config.

    Attributes:
        student: What the student is, in a few words.
        teacher: The same of the teachers.
        methods: The methods of the block, in a few words.
        sides: The costs by name, see :data:`SIDES`.
        missing: Why a side is not there, by its name.
    """

    student: str = ''
    teacher: str = ''
    methods: str = ''
    sides: dict[str, Side] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)


def measure(
    cfg: Config,
    case: Case,
    rounds: int,
    sides: Sequence[str] = SIDES,
    progress: Callable[[int], object] = lambda done: None,
) -> Measured:
    """Measure a config in a folder that is removed behind it.

    Args:
        cfg: The config of a training.
        case: What it is measured with.
        rounds: How many steps of each side are timed.
        sides: Of :data:`SIDES`, those that are measured; ours is always among them.
        progress: Told how many rounds are done.

    Returns:
        What was found.

    Raises:
        DistillError: If the config cannot be measured.
    """
    require_measurable(cfg, case)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='mmkd_benchmark_')))
        for context in (on_device(case.device), forgotten_run(), sent_to(io.StringIO())):
            stack.enter_context(context)
        trial = _Trial(cfg, case, rounds, sides, folder, progress)
        trial.run()
    gc.collect()
    if case.device != 'cpu':
        torch.cuda.empty_cache()
    return trial.found


class _Trial:
    """The runs of one config."""

    def __init__(
        self,
        cfg: Config,
        case: Case,
        rounds: int,
        sides: Sequence[str],
        folder: Path,
        progress: Callable[[int], object],
    ) -> None:
        self.case, self.rounds, self.sides, self.folder, self.progress = case, rounds, sides, folder, progress
        self.cfg = expanded(cfg, case, folder / OURS)
        self.found = Measured(methods=_methods(cfg))
        self.runners: dict[str, Runner] = {}

    def run(self) -> None:
        """Build, and take the steps."""
        ours = new_runner(self.cfg)
        per_rank = ours._randomness_cfg.get('diff_rank_seed', False)
        loader = ours.build_dataloader(self.cfg.train_dataloader, seed=ours.seed, diff_rank_seed=per_rank)
        self.batches = read_batches(loader, 2).batches
        self.kept: Any = KeptBatches(loader, self.batches)
        ours._train_dataloader = self.kept
        torch.manual_seed(0)
        ours.add_distillation()
        algorithm = algorithm_of(ours)
        assert algorithm is not None
        self.algorithm = algorithm
        self.found.student = described(algorithm.student)
        self.found.teacher = ' and '.join(described(teacher.model) for teacher in algorithm.teachers.values())
        self.runners[OURS] = ours
        model = self.cfg.model
        if ALONE in self.sides:
            self.runners[ALONE] = self._stock(ALONE, lambda student: student)
        if FLOOR in self.sides:
            self.runners[FLOOR] = self._stock(FLOOR, lambda student: FloorAlgorithm(student, model))
        train_together(list(self.runners.values()), self._with_razor)

    def _stock(self, name: str, algorithm: Callable[[Any], nn.Module]) -> Runner:
        """MMEngine's own runner of the student, or of what is built around it."""
        cfg = copy.deepcopy(self.cfg)
        cfg.model = self.cfg.model.architecture
        cfg.custom_hooks = []
        cfg.pop('runner_type', None)
        cfg.work_dir = str(self.folder / name)
        cfg.experiment_name = f'{name}_{uuid.uuid4().hex[:8]}'
        runner = Runner.from_cfg(cfg)
        torch.manual_seed(0)
        runner.model = algorithm(runner.model).to(get_device())
        runner._train_dataloader = self.kept
        return runner

    def _with_razor(self) -> None:
        """All others are prepared: only now is it known what the losses compare."""
        students = {name: getattr(runner.model, 'architecture', runner.model) for name, runner in self.runners.items()}
        for student in students.values():
            student.load_state_dict(self.algorithm.student.state_dict())
        if RAZOR not in self.sides:
            self._take_steps()
            return
        # Some backbones set their norms apart when they are told to train, and not before.
        self.algorithm.train()
        try:
            look = Look(self.algorithm, self._data())
            razor = self._stock(RAZOR, lambda student: razor_algorithm(student, self.cfg.model, look.shapes))
        except NoEquivalent as reason:
            self.found.missing[RAZOR] = f'{reason}.'
        else:
            train_together([razor], lambda: self._compare(razor, look))
            if RAZOR in self.found.sides:
                return
        self._take_steps()

    def _compare(self, razor: Runner, look: Look) -> None:
        """Take the steps with MMRazor among them if it trains the student to the same."""
        algorithm: Any = razor.model
        algorithm.architecture.load_state_dict(self.algorithm.student.state_dict())
        algorithm.distiller.load_state_dict(self.algorithm.distiller.state_dict(), strict=False)
        algorithm.train()
        settled(algorithm)
        try:
            pull = pull_of(algorithm, self._data())
        except Exception as error:  # a step of foreign code, on which nothing but its column hangs
            self.found.missing[RAZOR] = f'MMRazor cannot take the step: {sentence(error).rstrip(".")}.'
            return
        apart = float((pull - look.pull).norm() / look.pull.norm()) if pull.shape == look.pull.shape else float('nan')
        if not apart <= _EQUAL[self.case.precision]:
            self.found.missing[RAZOR] = (
                f'The nearest that MMRazor has pulls the student elsewhere: the gradients differ by {apart:.2g} of '
                'their length.'
            )
            return
        self.runners[RAZOR] = razor
        self._take_steps()

    def _data(self) -> dict:
        """The first batch, preprocessed."""
        return self.algorithm.data_preprocessor(copy.deepcopy(self.batches[0]), True)

    def _take_steps(self) -> None:
        """Warm up, count, and time in turns."""
        order = [name for name in SIDES if name in self.runners]
        runs = {name: SteppedRun(self.runners[name], self.batches) for name in order}
        before, timed = planned(self.rounds, 1, 10**9)
        syncs = {}
        for name, run in runs.items():
            torch.manual_seed(0)
            run.warm_up(before)
            syncs[name] = run.host_syncs()

        def begin(number: int) -> None:
            # Heads draw at random which RoIs they are trained on: equal ones for all sides.
            torch.manual_seed(number)
            self.progress(number)

        take_turns(list(runs.values()), timed, begin)
        self.progress(timed)
        for name, run in runs.items():
            cost = run.cost()
            self.found.sides[name] = Side(run.seconds, cost.held, cost.peak, syncs[name])


def described(model: nn.Module) -> str:
    """The type of a model, and its backbone with its depth."""
    # All segmentors are of one type, and differ in their heads.
    head = getattr(model, 'decode_head', None)
    kind = type(head).__name__ if isinstance(head, nn.Module) else type(model).__name__
    backbone = getattr(model, 'backbone', None)
    depth = getattr(backbone, 'depth', None)
    if backbone is None:
        return kind
    return f'{kind} {type(backbone).__name__}' + (f'-{depth}' if isinstance(depth, int) else '')


def _methods(cfg: Config) -> str:
    """The methods of a block that have a weight, by their types, or their losses where these say more."""
    found = []
    for method in DistillBlock.parse(cfg.distill).methods.values():
        loss = getattr(method, 'loss', None)
        found.append(str(loss['type']).rpartition('.')[2] if isinstance(loss, dict) else type(method).__name__)
    return ' + '.join(found)
