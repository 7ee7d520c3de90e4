"""Prepares MMEngine and MMRazor for the plugin before anything else of the plugin is imported.

MMEngine resolves ``package::path`` only for the packages in a table of its own, in which its fork has MMSegmentation
under a name that the fork's users do not have. On current torch it refuses its own checkpoints, also those of a
distilled student that a stock config is to test, and its own runners pass over a ``distill`` block without a word. An
installed plugin carries a copy of this file beside the package and runs :func:`install` at every start of Python,
unless the environment variable ``MMKD_NO_STARTUP`` is set. So this file imports nothing and waits for what it
completes.
"""

import sys

PACKAGE = 'mmkd_plugin'
TABLE_MODULE = 'mmengine.config.utils'
TABLE = 'MODULE2PACKAGE'
CHECKPOINT_MODULE = 'mmengine.runner.checkpoint'
READ = '_load_checkpoint'
CONFIG_MODULE = 'mmengine.config.config'
RUNNER_MODULE = 'mmengine.runner.runner'
FLEXIBLE_MODULE = 'mmengine.runner._flexible_runner'
DONE = '_completed_by_mmkd_plugin'
RAZOR = 'mmrazor'
FORK = 'onedl-'


def install() -> None:
    """Complete MMEngine's modules now, or as soon as they are imported."""
    _complete_on_import(
        {
            TABLE_MODULE: _add,
            CHECKPOINT_MODULE: _allow_before_reading,
            CONFIG_MODULE: _retell_errors,
            RUNNER_MODULE: _look_before_training,
            FLEXIBLE_MODULE: _look_before_building,
        }
    )


def install_for_mmrazor() -> None:
    """Let ``import mmrazor.models`` succeed from now on; only a process that imports the plugin asks for it."""
    _complete_on_import({RAZOR: _stub_quantization}, _execute_mmrazor)


def _execute(execute: object, module: object) -> None:
    execute(module)  # type: ignore[operator]


def _complete_on_import(wanted: dict, run: object = _execute) -> None:
    waiting = {}
    for name, complete in wanted.items():
        if name in sys.modules:
            complete(sys.modules[name])
        else:
            waiting[name] = complete
    if waiting:
        sys.meta_path.insert(0, _Finder(waiting, run))  # type: ignore[arg-type]


def _add(module: object) -> None:
    table = getattr(module, TABLE, None)
    if isinstance(table, dict):
        table.setdefault(PACKAGE, PACKAGE)
        for module, package in table.items():
            # Where both have one name MMEngine finds the module itself, whichever distribution brought it.
            if module != package:
                table[module] = _installed(package)


def _installed(package: str) -> str:
    """The name under which a package is installed: that of its fork where only the fork is there."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (package, FORK + package):
        try:
            version(name)
            return name
        except PackageNotFoundError:
            continue
    return package


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


def _retell_errors(module: object) -> None:
    """Let the errors of configs that do not fit each other name the fix where a ``distill`` block is concerned."""

    def around(call: object) -> object:
        def call_and_retell(*args: object, **kwargs: object) -> object:
            try:
                return call(*args, **kwargs)  # type: ignore[operator]
            except (KeyError, TypeError) as error:
                ours = _ours('config_errors')
                if ours is not None:
                    ours.retell(error)  # type: ignore[attr-defined]
                raise

        return call_and_retell

    _wrap(module, 'Config', 'fromfile', around, static=True)
    _wrap(module, 'Config', 'merge_from_dict', around)


def _look_before_training(module: object) -> None:
    """Let MMEngine's runner refuse to train what only ours distils; testing needs no teacher."""

    def around(train: object) -> object:
        def look_and_train(self: object, *args: object, **kwargs: object) -> object:
            ours = _ours('unread_block')
            if ours is not None:
                ours.refuse_unread_block(self)  # type: ignore[attr-defined]
            return train(self, *args, **kwargs)  # type: ignore[operator]

        return look_and_train

    _wrap(module, 'Runner', 'train', around)


def _look_before_building(module: object) -> None:
    """Let MMEngine's runner with strategies refuse what only ours distils, before a strategy fails at building."""

    def around(build: object) -> object:
        def look_and_build(self: object, *args: object, **kwargs: object) -> None:
            ours = _ours('unread_block')
            if ours is not None:
                ours.refuse_runner(self, kwargs.get('cfg'))  # type: ignore[attr-defined]
            build(self, *args, **kwargs)  # type: ignore[operator]

        return look_and_build

    _wrap(module, 'FlexibleRunner', '__init__', around)


def _ours(name: str) -> object:
    """A module of the plugin; None where the plugin was deleted and left the start-up file behind."""
    from importlib import import_module

    try:
        return import_module(f'{PACKAGE}.compat.{name}')
    except ImportError:
        return None


def _wrap(module: object, owner: str, name: str, around: object, static: bool = False) -> None:
    """Put something around a method of a class, once in a process."""
    cls = getattr(module, owner, None)
    original = getattr(cls, name, None)
    if cls is None or original is None or getattr(original, DONE, False):
        return
    wrapped = around(original)  # type: ignore[operator]
    for attribute in ('__doc__', '__name__', '__qualname__', '__module__'):
        setattr(wrapped, attribute, getattr(original, attribute, None))
    wrapped.__wrapped__ = original
    setattr(wrapped, DONE, True)
    setattr(cls, name, staticmethod(wrapped) if static else wrapped)


def _stub_quantization(module: object) -> None:
    """Follow the import of MMRazor itself, which comes before that of its parts."""
    from mmkd_plugin.compat.quantization import stub_quantization

    stub_quantization()


def _execute_mmrazor(execute: object, module: object) -> None:
    from mmkd_plugin.compat.newer_mmcv import execute_mmrazor

    execute_mmrazor(execute, module)  # type: ignore[arg-type]


class _Finder:
    """Finds some modules the usual way, has each executed by ``run`` and completes it."""

    def __init__(self, waiting: dict, run: object) -> None:
        self.waiting = waiting
        self.run = run

    def find_spec(self, name: str, path: 'list[str] | None' = None, target: object = None) -> object:
        """Answer for the awaited modules only; see ``importlib.abc.MetaPathFinder``."""
        complete = self.waiting.pop(name, None)
        if complete is None:
            return None
        try:
            spec = _found_by_others(name, path, target)
        finally:
            self.waiting[name] = complete
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_complete(module: object) -> None:
                self.run(execute, module)  # type: ignore[operator]
                complete(module)

            spec.loader.exec_module = execute_and_complete
        return spec


def _found_by_others(name: str, path: 'list[str] | None', target: object):
    """Ask all finders, those of editable installations among them; the one that asks must answer None meanwhile."""
    for finder in sys.meta_path:
        find = getattr(finder, 'find_spec', None)
        spec = find(name, path, target) if find else None
        if spec is not None:
            return spec
    return None
