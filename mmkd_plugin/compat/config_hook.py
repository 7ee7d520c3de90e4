"""Prepares MMEngine for the plugin before anything of the plugin is imported.

MMEngine resolves ``package::path`` only for the packages in a table of its own, and on current torch it refuses its own
checkpoints, also those of a distilled student that a stock config is to test. An installed plugin carries a copy of
this file beside the package and runs it at every start of Python, so it imports nothing and waits for MMEngine.
"""

import sys

PACKAGE = 'mmkd_plugin'
TABLE_MODULE = 'mmengine.config.utils'
TABLE = 'MODULE2PACKAGE'
CHECKPOINT_MODULE = 'mmengine.runner.checkpoint'
READ = '_load_checkpoint'


def install() -> None:
    """Complete MMEngine's modules now, or as soon as they are imported."""
    waiting = {}
    for name, complete in ((TABLE_MODULE, _add), (CHECKPOINT_MODULE, _allow_before_reading)):
        if name in sys.modules:
            complete(sys.modules[name])
        else:
            waiting[name] = complete
    if waiting:
        sys.meta_path.insert(0, _Finder(waiting))  # type: ignore[arg-type]


def _add(module: object) -> None:
    table = getattr(module, TABLE, None)
    if isinstance(table, dict):
        table.setdefault(PACKAGE, PACKAGE)


def _allow_before_reading(module: object) -> None:
    """Put the allow-list in force before MMEngine reads its first checkpoint."""
    read = getattr(module, READ, None)
    if not callable(read):
        return

    def allow_and_read(*args: object, **kwargs: object) -> object:
        from mmkd_plugin.compat.allow_list import allow_mmengine_checkpoints

        allow_mmengine_checkpoints()
        return read(*args, **kwargs)

    setattr(module, READ, allow_and_read)


class _Finder:
    """Finds some modules the usual way and completes each once it is executed."""

    def __init__(self, waiting: dict) -> None:
        self.waiting = waiting

    def find_spec(self, name: str, path: 'list[str] | None' = None, target: object = None) -> object:
        """Answer for MMEngine's modules only; see ``importlib.abc.MetaPathFinder``."""
        if name not in self.waiting:
            return None
        from importlib.machinery import PathFinder
        from types import ModuleType

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute, complete = spec.loader.exec_module, self.waiting[name]

            def execute_and_complete(module: ModuleType) -> None:
                execute(module)
                complete(module)

            spec.loader.exec_module = execute_and_complete  # type: ignore[method-assign]
        return spec
