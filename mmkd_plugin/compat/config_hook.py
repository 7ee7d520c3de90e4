"""Makes ``mmkd_plugin::`` bases known to MMEngine before anything of the plugin is imported.

MMEngine resolves ``package::path`` only for the packages in a table of its own. An installed plugin carries a copy of
this file beside the package and runs it at every start of Python, so it imports nothing and waits for MMEngine.
"""

import sys

PACKAGE = 'mmkd_plugin'
TABLE_MODULE = 'mmengine.config.utils'
TABLE = 'MODULE2PACKAGE'


def install() -> None:
    """Add the package to MMEngine's table now, or as soon as MMEngine is imported."""
    if TABLE_MODULE in sys.modules:
        _add(sys.modules[TABLE_MODULE])
    else:
        sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]


def _add(module: object) -> None:
    table = getattr(module, TABLE, None)
    if isinstance(table, dict):
        table.setdefault(PACKAGE, PACKAGE)


class _Finder:
    """Finds one module the usual way and completes its table once it is executed."""

    def find_spec(self, name: str, path: 'list[str] | None' = None, target: object = None) -> object:
        """Answer for MMEngine's module only; see ``importlib.abc.MetaPathFinder``."""
        if name != TABLE_MODULE:
            return None
        from importlib.machinery import PathFinder
        from types import ModuleType

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_add(module: ModuleType) -> None:
                execute(module)
                _add(module)

            spec.loader.exec_module = execute_and_add  # type: ignore[method-assign]
        return spec
