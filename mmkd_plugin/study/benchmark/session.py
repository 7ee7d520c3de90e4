"""Measure configs one after another, and keep each result as soon as it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

from mmengine.config import Config

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark.case import Case, digest, require_measurable
from mmkd_plugin.study.benchmark.measure import SIDES, measure
from mmkd_plugin.study.benchmark.results import Results, Row, public_name
from mmkd_plugin.study.runs import code_digest, progress_bar, told


def require_all_measurable(configs: Mapping[str, Config], case: Case) -> None:
    """Look at all configs before the first one is measured.

    Raises:
        DistillError: Naming the config and what is wrong with it.
    """
    for name, cfg in configs.items():
        try:
            require_measurable(cfg, case)
        except DistillError as error:
            raise DistillError(f'"{name}" cannot be measured: {error}') from error


def measure_all(
    configs: Mapping[str, Config],
    case: Case,
    rounds: int,
    results: Results,
    file: Path,
    any_code: bool = False,
    whole: bool = False,
    sides: Sequence[str] = SIDES,
) -> tuple[list[Row], int]:
    """Measure what has not been measured before.

    Args:
        configs: By name.
        case: What each is measured with.
        rounds: How many steps of each side are timed at least.
        results: Of this machine so far; what is measured is added.
        file: Gets them behind each config.
        any_code: Whether a result counts although the plugin's code has changed since.
        whole: Whether an error is raised as it is; else it is told, and the others go on.
        sides: What is measured.

    Returns:
        The rows of these configs, and how many could not be measured.
    """
    code = code_digest()
    rows, failed = [], 0
    with progress_bar() as progress:
        for number, (name, cfg) in enumerate(configs.items(), 1):
            public, content = public_name(name), digest(cfg)
            batches = case.described(cfg)
            task = progress.add_task(f'[{number}/{len(configs)}] {public}', total=rounds)
            known = results.find(public, batches)
            same = known is not None and known.digest == content and (any_code or known.code == code)
            if known is not None and same and known.rounds >= rounds:
                progress.update(task, completed=rounds)
                progress.console.print(f'{public}: measured before')
                rows.append(known)
                continue
            progress.console.print(f'{public}: building ...')

            def show(done: int, update: Callable = progress.update, task: int = task) -> None:
                update(task, completed=done)

            try:
                found = measure(cfg, case, rounds, sides, show)
            except Exception as error:
                if whole:
                    raise
                failed += 1
                progress.console.print(f'{public}: FAILED: {told(error)}', markup=False)
                continue
            rows.append(Row(public, content, code, batches, found))
            results.add(rows[-1])
            results.write(file)
    return rows, failed
