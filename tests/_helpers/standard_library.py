"""The modules that come with Python."""

from __future__ import annotations

import pkgutil
import sys
import sysconfig


def standard_library() -> set[str]:
    """Their top-level names; before Python 3.10 those that lie in its folders."""
    if hasattr(sys, 'stdlib_module_names'):
        return set(sys.stdlib_module_names)
    folder = sysconfig.get_path('stdlib')
    found = pkgutil.iter_modules([folder, f'{folder}/lib-dynload'])
    frozen = {'_frozen_importlib', '_frozen_importlib_external'}
    return {*sys.builtin_module_names, *frozen, *(module.name for module in found)}
