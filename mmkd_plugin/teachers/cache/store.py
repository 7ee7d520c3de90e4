"""A folder of a teacher's records: one safetensors file for each image and flip, whole or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.files import UNFINISHED
from mmkd_plugin.utilities.record_key import ImageKey

SUFFIX = '.safetensors'
DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}
_KEY = 'key'


class EntryKey(NamedTuple):
    """What a teacher's records of one image are found by.

    Attributes:
        image: The image and its flip.
        height: Of the batch that it was in, padding included, on which the outputs near the border depend.
        width: Likewise.
    """

    image: ImageKey
    height: int
    width: int

    @property
    def text(self) -> str:
        """All of it, as it stands in the file."""
        return json.dumps([*self.image, self.height, self.width])

    @property
    def name(self) -> str:
        """Where the file lies in the store."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:32]
        return f'{digest[:2]}/{digest[2:]}{SUFFIX}'


class Store:
    """Records of one teacher for one way of preparing images.

    Each entry is written under a name of the process's own and then renamed, so that any number of processes and
    machines read and write at the same time, and one that is killed leaves all entries whole. Reading maps a file into
    memory and runs no code from it.

    Args:
        folder: Where the entries lie; made with the first one.
        dtype: Name of the type that numbers are kept in.
    """

    def __init__(self, folder: Path, dtype: str = 'float16') -> None:
        self.folder = folder
        self.dtype = dtype
        self._library = _safetensors()

    def read(self, key: EntryKey, names: Iterable[str]) -> dict[str, Tensor] | None:
        """Some tensors of an entry, without copying them.

        Args:
            key: Of the entry.
            names: Of the tensors.

        Returns:
            The tensors by name; None where there is no such entry, or none that is whole.
        """
        try:
            with self._library.safe_open(str(self.folder / key.name), 'pt') as file:
                if (file.metadata() or {}).get(_KEY) != key.text:
                    return None
                return {name: file.get_tensor(name) for name in names}
        except (FileNotFoundError, self._library.SafetensorError):
            return None

    def encode(self, key: EntryKey, tensors: Mapping[str, Tensor]) -> bytes:
        """An entry as it will lie on the disk.

        Args:
            key: Of the entry.
            tensors: By name, in the type of the store.
        """
        # Two places may return one tensor, which the library refuses to write twice.
        own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        return self._library.save(own, metadata={_KEY: key.text})

    def write(self, key: EntryKey, content: bytes) -> None:
        """Put an entry in its place.

        Args:
            key: Of the entry.
            content: From :meth:`encode`.

        Raises:
            DistillError: If the disk is full.
        """
        path = self.folder / key.name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DistillError(
                f'The disk of the teacher cache "{self.folder}" is full; free some space, or set '
                'distill.teacher_cache.dir to another disk. All records that are there stay valid.'
            ) from error

    def entries(self) -> dict[str, int]:
        """Bytes of each entry by its name."""
        return {name: size for name, size in _files(self.folder) if name.endswith(SUFFIX)}

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of the store by their names."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.folder / name)

    def leftovers(self) -> dict[str, int]:
        """Bytes of each file that a process has not finished, be it killed or at work."""
        return {name: size for name, size in _files(self.folder) if name.endswith(UNFINISHED)}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that other processes may be writing too, so that it is whole or not there.

    Args:
        path: The file.
        content: All of it.
    """
    temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}{UNFINISHED}')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(size for _, size in _files(folder))


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder lies or will lie."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Names of all files below a folder, relative to it, with their sizes."""
    waiting = [folder]
    while waiting:
        try:
            found = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        for item in found:
            if item.is_dir(follow_symlinks=False):
                waiting.append(Path(item.path))
            else:
                with contextlib.suppress(FileNotFoundError):
                    size = item.stat(follow_symlinks=False).st_size
                    yield os.path.relpath(item.path, folder).replace(os.sep, '/'), size


class _Safetensors(NamedTuple):
    """What is used of the library."""

    save: Any
    safe_open: Any
    SafetensorError: type[Exception]


def _safetensors() -> _Safetensors:
    """The library, or a sentence on how to get it."""
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save
    except ImportError as error:
        raise DistillError(
            'distill.teacher_cache keeps its records in safetensors files, and safetensors is not installed; install '
            'it with "pip install safetensors", or the plugin with "pip install .[cache]".'
        ) from error
    return _Safetensors(save, safe_open, SafetensorError)
