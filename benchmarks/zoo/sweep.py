"""Try the families of a zoo one after the other, each config in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.progress import Progress

from benchmarks.zoo.trial import FAILS, LEFT_OUT, RECIPES, STOCK, WORKS, Trial, try_and_write
from mmkd_plugin.errors import DistillError, nearest


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one config may take.

    Attributes:
        seconds: Time.
        gib: Memory in GiB.
    """

    seconds: float = 600.0
    gib: float = 10.0


@dataclasses.dataclass(frozen=True)
class Family:
    """A folder of the zoo and what its configs came to.

    Attributes:
        name: The folder.
        trials: In the order in which they were tried.
    """

    name: str
    trials: tuple[Trial, ...]

    @property
    def result(self) -> Trial:
        """The trial that decides: one that distils or fails to, before a stock failure, before what is left out."""
        return min(self.trials, key=lambda trial: (FAILS, WORKS, STOCK, LEFT_OUT).index(trial.outcome))


def zoo_folder(package: str) -> Path:
    """The installed package's configs.

    Raises:
        DistillError: If the package is not installed.
    """
    spec = find_spec(package)
    if package not in RECIPES or spec is None or not spec.submodule_search_locations:
        raise DistillError(f'"{package}" is no installed package with a zoo: {nearest(package, RECIPES)}')
    return Path(spec.submodule_search_locations[0]) / '.mim' / 'configs'


def families(package: str, wanted: Sequence[str] = ()) -> dict[str, list[str]]:
    """The configs of a zoo by family, as names below its folder; small ResNets come first.

    Raises:
        DistillError: If a wanted family does not exist.
    """
    folder = zoo_folder(package)
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob('*/**/*.py')):
        name = file.relative_to(folder)
        if not {'_base_', '__pycache__'} & set(name.parts):
            found.setdefault(name.parts[0], []).append(name.as_posix())
    for family in wanted:
        if family not in found:
            raise DistillError(f'"{family}" is no family of the {package} zoo: {nearest(family, found)}')
    return {
        family: sorted(found[family], key=lambda config: ('r18' not in config, 'r50' not in config))
        for family in wanted or found
    }


def sweep(
    package: str,
    chosen: dict[str, list[str]],
    work_dir: Path,
    progress: Progress,
    every: bool = False,
    limits: Limits | None = None,
) -> Iterator[Family]:
    """Try families; results of an earlier, interrupted sweep in the same folder are taken over.

    Args:
        package: ``'mmdet'`` or ``'mmseg'``.
        chosen: Their configs, as :func:`families` gives them.
        work_dir: Where results are kept, one JSON file for each config with a log beside it.
        progress: Where progress is shown.
        every: Whether all configs of a family are tried, not only until one decides.
        limits: What one config may take.

    Yields:
        Each family when it is decided.
    """
    task = progress.add_task(package, total=len(chosen))
    for name, configs in chosen.items():
        trials = []
        for config in configs:
            progress.update(task, description=config)
            trials.append(_isolated(package, config, work_dir, limits or Limits()))
            if not every and trials[-1].outcome in (WORKS, FAILS):
                break
        family = Family(name, tuple(trials))
        progress.console.print(f'{name}: {family.result.outcome} {family.result.reason}', markup=False)
        progress.advance(task)
        yield family


def _isolated(package: str, config: str, work_dir: Path, limits: Limits) -> Trial:
    """Try a config in a process of its own, so that neither a crash nor a hang nor its memory ends the sweep."""
    result = (work_dir / config.replace('/', '__')).with_suffix('.json').resolve()
    if not result.exists():
        result.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([f'{package}.models', 'mmkd_plugin.engine', try_and_write.__module__])
        arguments = (package, config, str(result), limits.gib, str(zoo_folder(package).parent))
        process = context.Process(target=try_and_write, args=arguments)
        process.start()
        process.join(limits.seconds)
        if process.is_alive():
            process.kill()
            process.join()
            trial = Trial(config, FAILS, f'not done in {limits.seconds:g} seconds', seconds=limits.seconds)
        elif not result.exists():
            code = process.exitcode or 0
            died = signal.Signals(-code).name if code < 0 else f'code {code}'
            trial = Trial(config, FAILS, f'its process ended with {died}')
        else:
            return _read(result)
        result.write_text(json.dumps(dataclasses.asdict(trial), indent=1))
    return _read(result)


def _read(result: Path) -> Trial:
    return Trial(**json.loads(result.read_text()))
