"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmkd_plugin.errors import DistillError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary file beside a path, which takes the path's place where all went well.

    Folders are made; a link stays one, and the file that it leads to is replaced.

    Args:
        path: The file to write.

    Yields:
        The file to write to.

    Raises:
        DistillError: If there can be no such file.
    """
    real = Path(os.path.realpath(path))
    if real.is_dir():
        raise DistillError(f'"{path}" is a folder; give the name of a file to write.')
    if real.exists() and not real.is_file():
        raise DistillError(f'"{path}" is a device or a pipe; give the name of a file to write.')
    temporary = None
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f'.{real.name[:100]}.', suffix=real.suffix, dir=real.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # Files made for others to read, as open() makes them.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, real)
    except OSError as error:
        raise DistillError(
            f'"{path}" cannot be written ({error.strerror or error}); give a place where files can be made.'
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()
