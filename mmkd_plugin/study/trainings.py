"""Many trainings: one after another in this process, or each in a process of its own, side by side."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Dict, Optional

from rich.progress import Progress

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.study.runs import Outcome, progress_bar, train_once
from mmkd_plugin.study.training_options import INSTRUCTION_SETS


@dataclasses.dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        name: Shown in tables and progress.
        config: Path of the config.
        seed: Random seed.
        work_dir: Folder of the run.
        options: Overrides in the form of ``--cfg-options``.
        any_code: Whether a finished run counts although this package's code has changed since.
        instructions: One of :data:`INSTRUCTION_SETS`; those of the processor where none is named.
    """

    name: str
    config: str
    seed: int
    work_dir: str
    options: Dict[str, Any] = dataclasses.field(default_factory=dict)
    any_code: bool = False
    instructions: str = ''

    def run(self, progress: Progress) -> Outcome:
        """Train in this process, or read the outcome of an earlier, equal run."""
        return train_once(
            self.name,
            self.config,
            self.seed,
            Path(self.work_dir),
            progress,
            self.options,
            self.any_code,
            self.instructions,
        )


def require_instruction_sets(names: Sequence[str]) -> None:
    """Refuse what is no instruction set, or one that the processor lacks.

    Args:
        names: Instruction sets.

    Raises:
        DistillError: If one is not known or cannot be used here.
    """
    for name in names:
        if name not in INSTRUCTION_SETS:
            raise DistillError(f'There is no instruction set "{name}": {nearest(name, INSTRUCTION_SETS)}')
        if name in _lacking():
            raise DistillError(f'This processor has no {name}; leave it out of --instruction-sets.')


def train_all(trainings: Sequence[Training], progress: Progress, jobs: int = 1) -> list[Outcome]:
    """Train everything that is not done yet.

    Args:
        trainings: What is trained.
        progress: Where progress is shown.
        jobs: How many at a time; from two on, each in a process of its own with a part of the processor's cores.

    Returns:
        The outcomes in the order of the trainings.

    Raises:
        DistillError: If one fails, naming it; those that have begun are stopped and go on when they are run again.
    """
    if jobs == 1 and not any(training.instructions for training in trainings):
        return [training.run(progress) for training in trainings]
    return _Apart(progress, jobs).run(trainings)


class _Apart:
    """Processes of their own, some at a time."""

    def __init__(self, progress: Progress, jobs: int) -> None:
        self.progress = progress
        self.jobs = jobs
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def run(self, trainings: Sequence[Training]) -> list[Outcome]:
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            waiting = [pool.submit(self._one, training) for training in trainings]
            try:
                concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_EXCEPTION)
                for done in waiting:
                    if done.done() and done.exception() is not None:
                        done.result()
            except BaseException:
                self._stop(waiting)
                raise
            return [item.result() for item in waiting]

    def _stop(self, waiting: Sequence[concurrent.futures.Future]) -> None:
        for item in waiting:
            item.cancel()
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()

    def _one(self, training: Training) -> Outcome:
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        env = {'OMP_NUM_THREADS': threads, **os.environ, **INSTRUCTION_SETS.get(training.instructions, {})}
        with self.lock:
            if self.stopped:
                raise DistillError('Another training failed.')
            process = subprocess.Popen(
                [sys.executable, '-m', __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=env,
            )
            self.running.add(process)
        try:
            found = self._outcome(process, training)
        finally:
            process.kill()
            process.wait()
            with self.lock:
                self.running.discard(process)
        if found is None:
            raise DistillError(
                f'The run "{training.name}", seed {training.seed}, ended with status {process.returncode}; its output '
                f'is in "{training.work_dir}/console.log".'
            )
        return found

    def _outcome(self, process: subprocess.Popen, training: Training) -> Optional[Outcome]:
        """Show what the process says, until it says what it came to."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(dataclasses.asdict(training)))
        process.stdin.close()
        found = None
        for line in process.stdout:
            kind, _, text = line.rstrip('\n').partition(' ')
            if kind == _OUTCOME:
                found = Outcome(**json.loads(text))
            elif kind == _ERROR:
                raise DistillError(json.loads(text))
            elif kind == _SAID:
                self.progress.console.print(json.loads(text), highlight=False)
        return found


_OUTCOME, _ERROR, _SAID = '@outcome', '@error', '@said'
"""How lines begin that a process of ours means for the one that started it; others are noise."""


class _Line:
    """A stream of what is said, line by line, for the process that started this one."""

    def __init__(self) -> None:
        self.rest = ''
        self.stream = sys.stdout

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split('\n')
        for line in lines:
            if line.strip():
                print(_SAID, json.dumps(line.rstrip()), file=self.stream, flush=True)
        return len(text)

    def flush(self) -> None:
        """Lines are passed on as they end."""


def _lacking() -> set[str]:
    """Instruction sets that this processor is known to lack."""
    if platform.machine().lower() not in ('x86_64', 'amd64'):
        return set(INSTRUCTION_SETS)
    import torch

    best = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, 'cpu') else 'AVX512'
    return {'DEFAULT': {'avx2', 'avx512'}, 'AVX2': {'avx512'}}.get(best, set())


def _main() -> None:
    """The process of one training: it reads what to do from its standard input."""
    from rich.console import Console

    training = Training(**json.loads(sys.stdin.read()))
    said = _Line()
    try:
        with progress_bar(Console(file=said, width=200)) as progress:  # type: ignore[arg-type]
            outcome = training.run(progress)
    except DistillError as error:
        print(_ERROR, json.dumps(str(error)), flush=True)
        raise SystemExit(2) from None
    print(_OUTCOME, json.dumps(dataclasses.asdict(outcome)), flush=True)


if __name__ == '__main__':
    _main()
