"""Unpickling for ``torch.load`` that builds what a closed list names and nothing else, alike on every torch.

torch's own safe loading cannot be extended before torch 2.6. Since then its list is the whole process's: what another
package adds (MMEngine's fork adds the real ``getattr``) would hold for our files too. The rules here are torch's: exact
names, calls of the listed callables alone, state for instances of the listed types alone, the opcodes that
``torch.save`` writes. This file needs torch and numpy alone.
"""

from __future__ import annotations

import _codecs
import collections
import contextlib
import io
import os
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Callable

import numpy as np
import torch

_ZIP = b'PK\x03\x04'
_OPCODES = (
    'APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST '
    'EMPTY_SET EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM '
    'SETITEMS SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3'
)
"""The opcodes that torch's safe loading knows."""

_REBUILDS = (
    '_rebuild_parameter_with_state',
    '_rebuild_tensor_v3',
    '_rebuild_device_tensor_from_numpy',
    '_rebuild_device_tensor_from_cpu_tensor',
)
_PICKLES_IN_LEGACY_FILE = 5


def torch_globals() -> dict[str, Any]:
    """What torch's safe loading allows by itself, on old torch with what newer torch allows.

    Sparse tensors are left out: their indices may point beyond the memory, and not every torch checks them.

    Returns:
        Objects by the full names that a pickle gives them.
    """
    types = (collections.Counter, torch.device, set, bytearray, complex)
    added: dict[str, Any] = {f'{item.__module__}.{item.__name__}': item for item in types}
    added['_codecs.encode'] = _codecs.encode
    added.update((str(item), item) for item in vars(torch).values() if isinstance(item, torch.dtype))
    for name in _REBUILDS:
        if hasattr(torch._utils, name):
            added[f'torch._utils.{name}'] = getattr(torch._utils, name)
    own = torch._weights_only_unpickler._get_allowed_globals()
    return {**added, **{name: item for name, item in own.items() if 'sparse' not in name}}


def load_safely(
    load: Callable, file: Any, allowed: Mapping[str, Any], map_location: Any = None, *_: Any, **options: Any
) -> Any:
    """Read a checkpoint with ``torch.load``, unpickling by the rules of this module.

    Args:
        load: ``torch.load`` itself.
        file: As for ``torch.load``.
        allowed: What the checkpoint may name, by full name.
        map_location: As for ``torch.load``.
        options: As for ``torch.load``; ``pickle_module`` and ``weights_only`` are settled here.

    Returns:
        What the file holds.

    Raises:
        pickle.UnpicklingError: If it holds something else.
        RuntimeError: If it is a TorchScript archive.
    """
    source = file
    with _opened(file) as (stream, is_zip):
        if not is_zip:
            # In memory it is never taken for the tar format of before torch 0.1.10, whose members are unpacked to disk.
            source = io.BytesIO(stream.read())
        elif 'constants.pkl' in torch._C.PyTorchFileReader(stream).get_all_records():
            raise RuntimeError('This is a TorchScript archive, which torch would run.')
    return load(source, map_location, **{**options, 'pickle_module': _pickle_module(allowed), 'weights_only': False})


def global_names(file: Any) -> set[str]:
    """All that the pickles of a checkpoint ask for by name; nothing of it is built.

    Args:
        file: As for ``torch.load``.

    Returns:
        The full names, up to where the file can be read.
    """
    names = set()
    # A damaged file ends somewhere.
    with _opened(file) as (stream, is_zip), contextlib.suppress(Exception):
        if is_zip:
            stream, count = io.BytesIO(torch._C.PyTorchFileReader(stream).get_record('data.pkl')), 1
        else:
            count = _PICKLES_IN_LEGACY_FILE
        for _ in range(count):
            for opcode, argument, _position in pickletools.genops(stream):
                if opcode.name == 'GLOBAL':
                    names.add(_full_name(*str(argument).split(' ', 1)))
    return names


@contextlib.contextmanager
def _opened(file: Any) -> Iterator[tuple[Any, bool]]:
    """The file as a stream, which is left where it was found, and whether it is a zip archive."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(open(file, 'rb')) if isinstance(file, (str, os.PathLike)) else file
        start = stream.tell()
        is_zip = stream.read(len(_ZIP)) == _ZIP
        stream.seek(start)
        try:
            yield stream, is_zip
        finally:
            stream.seek(start)


def _pickle_module(allowed: Mapping[str, Any]) -> ModuleType:
    """What ``torch.load`` takes in place of ``pickle``."""

    class Unpickler(_SafeUnpickler):
        by_name = dict(allowed)
        identities = frozenset(map(id, allowed.values()))

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    module = ModuleType('safe_pickle')
    module.__dict__.update(Unpickler=Unpickler, load=load)
    return module


def _full_name(module: str, name: str) -> str:
    # The protocol that torch writes still has the names of Python 2.
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f'{IMPORT_MAPPING.get(module, module)}.{name}'


def _shown(item: Any) -> str:
    """Name a class or a function, and the class of anything else."""
    known = isinstance(item, (type, FunctionType, BuiltinFunctionType))
    return item.__qualname__ if known else f'an object of type {type(item).__qualname__}'


class _Handlers(dict):
    """The function of each opcode; others are refused."""

    def __missing__(self, key: int) -> Callable:
        raise pickle.UnpicklingError(f'Unsupported operand {key}')


_PythonUnpickler: Any = pickle._Unpickler


class _SafeUnpickler(_PythonUnpickler):
    """Python's own, with a check before everything that builds, calls or changes something."""

    by_name: Mapping[str, Any] = {}
    identities: frozenset[int] = frozenset()
    dispatch = _Handlers(
        (getattr(pickle, name)[0], _PythonUnpickler.dispatch[getattr(pickle, name)[0]]) for name in _OPCODES.split()
    )

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the list; nothing is ever imported."""
        full_name = _full_name(module, name)
        if full_name not in self.by_name:
            raise pickle.UnpicklingError(f'GLOBAL {full_name} is not allowed')
        return self.by_name[full_name]

    def _is_allowed(self, item: Any) -> bool:
        # By identity, as equality is up to the objects that the file builds.
        return id(item) in self.identities

    def _require_callable(self, item: Any) -> None:
        # ndarray is named to be rebuilt empty. Called with a buffer, it would take bytes of the file for pointers.
        if not self._is_allowed(item) or item is np.ndarray:
            raise pickle.UnpicklingError(f'it calls {_shown(item)}')

    def _call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        self._require_callable(function)
        if function is torch._tensor._rebuild_from_type_v2:
            # It calls its first argument.
            self._require_callable(arguments[0])
        self.stack[-1] = function(*arguments)

    def _create(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack.pop()
        self._require_callable(kind)
        self.append(kind.__new__(kind, *arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        kind = type(target)
        if isinstance(target, np.dtype):
            _check_dtype(target, state)
        elif not self._is_allowed(kind):
            raise pickle.UnpicklingError(f'it changes {_shown(target)}')
        # Of the type, as the file may have given the object an attribute of that name.
        set_state = getattr(kind, '__setstate__', None)
        if kind is torch.Tensor:
            # What torch itself does for its oldest files.
            target.set_(*state)
        elif set_state is not None:
            set_state(target, state)
        else:
            vars(target).update(state)

    def _check_list(self, target: Any) -> None:
        if type(target) is not list:
            raise pickle.UnpicklingError(f'it appends to {_shown(target)}')

    def _append_one(self) -> None:
        self._check_list(self.stack[-2])
        super().load_append()

    def _append_many(self) -> None:
        self._check_list(self.metastack[-1][-1])
        super().load_appends()

    def _check_dict(self, target: Any) -> None:
        kind = type(target)
        if kind is not dict and not (isinstance(target, dict) and self._is_allowed(kind)):
            raise pickle.UnpicklingError(f'it sets items of {_shown(target)}')

    def _set_one(self) -> None:
        self._check_dict(self.stack[-3])
        super().load_setitem()

    def _set_many(self) -> None:
        self._check_dict(self.metastack[-1][-1])
        super().load_setitems()

    def _load_storage(self) -> None:
        key = self.stack.pop()
        if type(key) is not tuple or not key or key[0] not in ('storage', b'storage'):
            raise pickle.UnpicklingError('it refers to something else than the storage of a tensor')
        self.append(self.persistent_load(key))

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _create
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.APPEND[0]] = _append_one
    dispatch[pickle.APPENDS[0]] = _append_many
    dispatch[pickle.SETITEM[0]] = _set_one
    dispatch[pickle.SETITEMS[0]] = _set_many
    dispatch[pickle.BINPERSID[0]] = _load_storage


def _check_dtype(dtype: np.dtype, state: Any) -> None:
    """Refuse what would let numpy take bytes of the file for pointers; only byte order and time unit may change."""
    plain = type(state) is tuple and len(state) >= 8 and state[2:5] == (None, None, None)
    # The numbers by type too: what compares equal might still convert to another number.
    same = plain and type(state[5]) is int and state[5] in (-1, dtype.itemsize)
    if not same or type(state[7]) is not int or state[7] != dtype.flags:
        raise pickle.UnpicklingError('it changes the fields, size or flags of a numpy.dtype')
