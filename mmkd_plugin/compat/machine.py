"""What the doctor asks a machine; a question that fails is answered, and nothing is printed."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator


class Machine:
    """This interpreter; tests let others answer."""

    def python(self) -> str:
        """The version of Python."""
        return platform.python_version()

    def version(self, distribution: str) -> str:
        """The installed version of what pip knows under this name, empty without one."""
        try:
            return importlib.import_module('importlib.metadata').version(distribution) or ''
        except Exception:  # A broken installation raises all sorts of errors.
            return ''

    def why_not(self, module: str) -> str:
        """Why a module cannot be imported, in one line; empty where it can."""

        def load() -> None:
            if module.startswith('mmrazor'):
                importlib.import_module('mmkd_plugin.compat').apply()
            importlib.import_module(module)

        return _failure(load)

    def why_no_bases(self) -> str:
        """Why MMEngine finds no config of another package, such as a base ``mmdet::...``; empty where it can."""
        return _failure(lambda: importlib.import_module('mmengine.utils').is_installed('mmengine'))

    def why_no_numpy(self) -> str:
        """Why torch gives numpy no array; empty where it does."""
        return _failure(lambda: importlib.import_module('torch').zeros(1).numpy())

    def torch_cuda(self) -> str:
        """The CUDA version torch was built for, where a GPU is there to use it; else empty."""
        try:
            with _quiet():
                torch = importlib.import_module('torch')
                return torch.version.cuda or '' if torch.cuda.is_available() else ''
        except Exception:
            return ''

    def mmcv_cuda(self) -> str:
        """The CUDA version mmcv's operators were built for; empty for the CPU."""
        try:
            with _quiet():
                found = importlib.import_module('mmcv.ops').get_compiling_cuda_version()
        except Exception:
            return ''
        return '' if found == 'not available' else found

    def lacking_in_torch(self) -> list[str]:
        """What MMRazor's quantization part misses in torch."""
        try:
            with _quiet():
                return importlib.import_module('mmkd_plugin.compat.quantization').missing_names()
        except Exception:
            return []

    def hook_runs(self) -> bool:
        """Whether this interpreter ran the plugin's start-up file."""
        return '_mmkd_plugin_config_hook' in sys.modules

    def hook_is_off(self) -> bool:
        """Whether the user keeps the plugin's start-up file from running."""
        return bool(os.environ.get('MMKD_NO_STARTUP'))


def _failure(action: Callable[[], object]) -> str:
    """Why an action fails, in one line; empty where it does not."""
    try:
        with _quiet():
            action()
    except (Exception, SystemExit) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
    return ''


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what packages print while they are imported out of the report."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter('ignore')
        yield
