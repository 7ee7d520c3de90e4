"""MMRazor beside an MMCV that is newer than the last one it was released for, as the maintained forks bring it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Callable


def execute_mmrazor(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute MMRazor's ``__init__``; where it refuses MMCV as too new, show it the newest that it takes.

    Nobody else sees that version: when MMRazor refuses, all that its ``__init__`` imports is imported already.

    Args:
        execute: Executes the module.
        module: MMRazor.

    Raises:
        AssertionError: In MMRazor's words, if it refuses anything else.
    """
    try:
        execute(module)
    except AssertionError:
        mmcv: Any = sys.modules.get('mmcv')
        newest = getattr(module, 'mmcv_maximum_version', None)
        if mmcv is None or newest is None or not _is_newer(mmcv.__version__, newest):
            raise
        true_version = mmcv.__version__
        mmcv.__version__ = newest
        try:
            execute(module)
        finally:
            mmcv.__version__ = true_version


def _is_newer(version: str, other: str) -> bool:
    from mmengine.utils import digit_version

    return digit_version(version) > digit_version(other)
