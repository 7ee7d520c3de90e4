"""Play one case and judge what became of it."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import random
import re
import shutil
import signal
import threading
from pathlib import Path

from mmengine.config import Config

from benchmarks.fuzz.case import CONFIG, EITHER, ROOT, WRONG, Case, Scene
from benchmarks.fuzz.child import BEFORE, RESULT, SCREEN, play
from benchmarks.fuzz.draws import plain_case
from benchmarks.fuzz.files import DATA, EVIDENCE, WEIGHTS
from mmkd_plugin.block import DistillBlock
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini

RUNS, SENTENCE, TRACEBACK, SILENT = 'runs', 'one sentence', 'traceback', 'silent'
"""What a case comes to."""

OUTCOMES = (RUNS, SENTENCE, TRACEBACK, SILENT)
SECONDS = 120.0
"""What a command may take before it counts as one that hangs."""
GIB = 6.0
"""Memory that a command may take."""

PRELOADED = (
    *(
        f'{package}.{part}'
        for package in ('mmdet', 'mmseg')
        for part in ('datasets', 'engine', 'models', 'visualization')
    ),
    *('mmkd_plugin.cli', 'mmkd_plugin.connectors', 'mmkd_plugin.datasets', 'mmkd_plugin.engine', 'torch._dynamo'),
)
"""What every command would import anew."""

_WARNING = re.compile(r' - WARNING - (.*)')
_ERROR = re.compile(r'^(?:[\w./-]+(?: [\w-]+)?: )?error: .', re.MULTILINE)
_OFF = 'Distillation is off'
_TRACE = 'Traceback (most recent call last)'


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        outcome: One of ``OUTCOMES``.
        why: What was seen: the sentence, the last line of a traceback, or what was missing.
    """

    outcome: str
    why: str = ''


class Ground:
    """A folder with data and models, in which cases are played.

    Args:
        folder: Where it is made; cases get folders of their own in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = ensure_coco_mini(folder / 'data', MiniSettings(train=8, val=2, size=64), report=lambda line: None)
        self.usual: dict[str, set[str]] = {}
        self._learning = threading.Lock()

    def play(self, case: Case, name: str, seed: int = 0, seconds: float = SECONDS) -> Verdict:
        """Play a case.

        Args:
            case: The case.
            name: Of its folder, which is made anew and removed if nothing is wrong.
            seed: What its files are drawn with.
            seconds: Time that it may take.

        Returns:
            What became of it.
        """
        with self._learning:
            if case.scene.name not in self.usual:
                self._learn(case.scene)
        folder = self.folder / name
        verdict = self._typed(case, folder, seed, seconds) or self.judge(case, folder)
        if verdict.outcome in (RUNS, SENTENCE):
            shutil.rmtree(folder)
        return verdict

    def _learn(self, scene: Scene) -> None:
        """Take the warnings of a run that is right as the usual ones.

        Raises:
            RuntimeError: If it does not run.
        """
        case, folder = plain_case('plain', scene), self.folder / f'usual_{scene.name}'
        self.usual[scene.name] = set()
        verdict = self._typed(case, folder, 0, SECONDS) or self.judge(case, folder)
        if verdict.outcome != RUNS:
            raise RuntimeError(f'{scene.name} does not run by itself: {verdict.why}')
        self.usual[scene.name] = set(_WARNING.findall((folder / SCREEN).read_text()))

    def _typed(self, case: Case, folder: Path, seed: int, seconds: float) -> Verdict | None:
        """Write a case and type its command; a verdict where the command did not come to an end of its own."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(case, folder, self.data, random.Random(seed))
        arguments = [argument.format(configs=ROOT / 'configs') for argument in case.arguments]
        if case.options:
            arguments += ['--cfg-options', *case.options]
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([*PRELOADED, play.__module__])
        process = context.Process(target=play, args=(str(folder), case.tool, arguments, GIB))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return Verdict(TRACEBACK, f'not done in {seconds:g} seconds')
        if not (folder / RESULT).exists():
            return Verdict(TRACEBACK, f'its process ended with {_death(process.exitcode or 0)}')
        return None

    def judge(self, case: Case, folder: Path) -> Verdict:
        """What became of a case that was played."""
        screen = (folder / SCREEN).read_text(errors='replace')
        result = json.loads((folder / RESULT).read_text())
        lines = [line for line in screen.splitlines() if line.strip()]
        last = lines[-1][:300] if lines else ''
        if (folder / EVIDENCE).exists():
            return Verdict(SILENT, 'the code in a file was run')
        if _TRACE in screen:
            return Verdict(TRACEBACK, last)
        if result['status']:
            said = _ERROR.findall(screen)
            return Verdict(SENTENCE if len(said) == 1 else TRACEBACK, last if said else f'no sentence: {last}')
        warned = set(_WARNING.findall(screen)) - self.usual.get(case.scene.name, set())
        if case.sort == WRONG and not warned:
            return Verdict(SILENT, 'nothing was said of it')
        if result.get('same') and case.sort == EITHER and not warned:
            return Verdict(SILENT, 'it had no effect')
        return _of_run(case, folder) if case.tool == 'train.py' and case.sort != WRONG else Verdict(RUNS)


def write(case: Case, folder: Path, data: Path, draw: random.Random) -> None:
    """Write what a case consists of.

    Args:
        case: The case.
        folder: An empty folder.
        data: The data set, which is copied.
        draw: Chooses where files are broken.
    """
    root = folder / 'data/coco_mini'
    shutil.copytree(data, root)
    if case.data:
        DATA[case.scene.task][case.data][1](root, draw)
    if case.teacher_file:
        WEIGHTS[case.teacher_file][1](ROOT / 'configs' / case.scene.weights, folder / 'teacher.pth', draw)
    (folder / CONFIG).write_text(case.text())
    if case.before:
        (folder / BEFORE).write_text(case.text(case.before))


def _of_run(case: Case, folder: Path) -> Verdict:
    """Whether a training distilled, and to finite numbers."""
    logs = sorted(folder.glob('run/*/vis_data/scalars.json'))
    steps = [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []
    if not steps:
        return Verdict(SILENT, 'no step was logged')
    strange = [name for step in steps for name, value in step.items() if 'loss' in name and not _finite(value)]
    if strange:
        return Verdict(SILENT, f'{strange[0]} is not finite')
    distilled = any(name.startswith('distill.') for step in steps for name in step)
    told = _OFF in (folder / SCREEN).read_text(errors='replace')
    if not distilled and not told and distils(folder / CONFIG):
        return Verdict(SILENT, 'it was not distilled')
    return Verdict(RUNS)


def distils(config: Path) -> bool:
    """Whether a config's block, with all that it inherits, asks for terms; True where it cannot be read."""
    try:
        return bool(DistillBlock.parse(Config.fromfile(str(config)).distill).methods)
    except Exception:
        return True


def _finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _death(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f'code {code}'
