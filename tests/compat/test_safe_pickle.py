"""What a checkpoint may make torch do: nothing but what is listed, under our reader and under torch's own."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from _helpers.checkpoints import Gadget, legacy_head, make_runner, save, save_pickle
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from mmkd_plugin.compat.allow_list import allow_mmengine_checkpoints, mmengine_globals
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.compat.safe_pickle import global_names, load_safely, torch_globals
from mmkd_plugin.errors import DistillError


def pickled(value: Any) -> bytes:
    """Pickle without the first and last opcode, to be put into another pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


ALLOWED = {**torch_globals(), **mmengine_globals()}
HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
EMPTY_HISTORY = HISTORY + b')\x81'
SIZE = pickled(torch.Size([1]))
NDARRAY = b'cnumpy\nndarray\n'
FORGED_TYPE = 'it changes the fields, size or flags of a numpy.dtype'
extendable = pytest.mark.skipif(
    not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'), reason='this torch takes no names'
)


def read(path: Any) -> Any:
    """Read with our reader."""
    return load_safely(torch.load, path, ALLOWED, 'cpu')


def read_natively(path: Any) -> Any:
    """Read as the stock tools do on current torch."""
    allow_mmengine_checkpoints()
    return torch.load(path, weights_only=True)


both_readers = pytest.mark.parametrize('reader', [read, pytest.param(read_natively, marks=extendable)])
both_formats = pytest.mark.parametrize('zip_format', [True, False], ids=['zip', 'legacy'])


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """All that MMEngine's runner puts into a checkpoint."""
    folder = tmp_path_factory.mktemp('trained')
    make_runner(folder).train()
    return torch.load(folder / 'iter_4.pth', weights_only=False)


@both_readers
@both_formats
def test_checkpoint_of_mmengine_loads(trained: dict, tmp_path: Path, reader: Callable, zip_format: bool) -> None:
    loaded = reader(save(trained, tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format))
    torch.testing.assert_close(loaded['state_dict'], trained['state_dict'])
    torch.testing.assert_close(loaded['optimizer'], trained['optimizer'])
    assert loaded['meta']['dataset_meta']['label_map'] == dict(cat=dict(old=0, new=1))
    ours, theirs = (item['message_hub']['log_scalars']['train/loss'] for item in (loaded, trained))
    assert ours.data[0].tolist() == theirs.data[0].tolist()


@pytest.mark.parametrize(
    'value',
    [
        b'\x00\xff',
        bytearray(b'ab'),
        {1, 2},
        1 + 2j,
        2**70,
        'x' * 70000,
        torch.device('cpu'),
        torch.Size([1, 2]),
        torch.bfloat16,
        np.float32(0.5),
        ConfigDict(a=[ConfigDict(b=1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values_load(tmp_path: Path, value: Any) -> None:
    assert read(save(dict(value=value), tmp_path / 'a.pth'))['value'] == value


@pytest.mark.parametrize('kind', ['<f4', '>f8', '?', 'c16', 'U3', 'S2', 'M8[D]', 'O'])
def test_arrays_load(tmp_path: Path, kind: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(kind)
    loaded = read(save(dict(array=array, column=array[:, 1]), tmp_path / 'a.pth'))
    assert loaded['array'].dtype.newbyteorder('=') == array.dtype.newbyteorder('=')
    assert loaded['array'].tolist() == array.tolist()
    assert loaded['column'].tolist() == array[:, 1].tolist()


@both_formats
def test_tensors_of_every_kind_load(tmp_path: Path, zip_format: bool) -> None:
    shared = torch.arange(10.0)
    noted, parameter = torch.ones(2), nn.Parameter(torch.ones(2))
    noted.note = parameter.note = 'kept'  # type: ignore[attr-defined]
    content = dict(a=shared, view=shared[2:4], half=shared.half(), noted=noted, parameter=parameter)
    loaded = read(save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format))
    assert loaded['view'].tolist() == [2, 3]
    assert loaded['view'].data_ptr() == loaded['a'][2:].data_ptr()
    assert loaded['half'].dtype == torch.float16
    assert loaded['noted'].note == loaded['parameter'].note == 'kept'
    assert isinstance(loaded['parameter'], nn.Parameter)


def test_config_of_an_old_mmengine_loads(tmp_path: Path) -> None:
    # Before 0.9 a ConfigDict is pickled as an object whose items are set.
    config = b'cmmengine.config.config\nConfigDict\n)\x81'
    content = config + pickled('a') + pickled(1) + b's(' + pickled('b') + pickled(2) + b'u'
    loaded = read(save_pickle(b'\x80\x02' + content + b'.', tmp_path / 'a.pth'))
    assert type(loaded) is ConfigDict
    assert loaded == dict(a=1, b=2)


def test_streams_load_from_where_they_stand(tmp_path: Path) -> None:
    path = save(dict(a=1), tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    stream = io.BytesIO(b'before' + Path(path).read_bytes())
    stream.seek(6)
    assert read(stream) == dict(a=1)


ATTACKS = {
    'call': b'cposix\nsystem\n' + pickled(('touch MARK',)) + b'R',
    'call in python 2': b'c__builtin__\neval\n' + pickled(('open("MARK", "w")',)) + b'R',
    'object': b'csubprocess\nPopen\n' + pickled(('touch MARK',)) + b'\x81',
    'attribute by a dot': b'ccollections\nOrderedDict.__init__.__globals__\n',
    'attribute by a dot, protocol 4': b'\x8c\x05posix\x8c\x06system\x93' + pickled(('touch MARK',)) + b'R',
    'inst': b'(' + pickled('touch MARK') + b'iposix\nsystem\n',
    'obj': b'(cposix\nsystem\n' + pickled('touch MARK') + b'o',
    'extension': b'\x82\x01',
    'persistent id in text': b'Pstorage\n',
    'persistent id of a module': b'(' + pickled('module') + HISTORY + pickled('file') + pickled('source') + b'tQ',
    'persistent id that is text': pickled('storage') + b'Q',
    'persistent id within another': b'(' + pickled('storage') + b'(' + pickled('module') + HISTORY + b'tQtQ',
    'getattr': b'c__builtin__\ngetattr\n' + HISTORY + pickled('__init__') + b'\x86R',
    'method as a function': b'c__builtin__\ngetattr\n' + HISTORY + pickled('mean') + b'\x86' + EMPTY_HISTORY + b'\x85R',
    'state of a class': HISTORY + b'N}' + pickled('mean') + HISTORY + b's\x86b',
    'attributes of a class': HISTORY + b'}' + pickled('mean') + HISTORY + b'sb',
    'state of a function': b'ctorch._utils\n_rebuild_tensor_v2\n}' + pickled('x') + b'K\x01sb',
    'attack in a state': EMPTY_HISTORY + b'}' + pickled('note') + pickled(Gadget(os.system, 'touch MARK')) + b'sb',
    'item of a string': pickled('text') + pickled(0) + pickled(1) + b's',
    'append to a dict': b'ccollections\nOrderedDict\n)R' + pickled('append') + b'a',
    'appends to a history': EMPTY_HISTORY + b'(' + pickled('append') + b'e',
}
"""Pickles that must be refused, all but their first and last opcode."""


@both_readers
@both_formats
@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS.keys())
def test_attack_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable, zip_format: bool, attack: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(vars(HistoryBuffer))
    path = save_pickle(b'\x80\x02' + attack + b'.', tmp_path / 'a.pth', zip_format)
    with pytest.raises(pickle.UnpicklingError):
        reader(path)
    assert not (tmp_path / 'MARK').exists()
    assert dict(vars(HistoryBuffer)) == before


@both_readers
@pytest.mark.parametrize('place', range(5), ids=['magic', 'version', 'system', 'object', 'storages'])
def test_every_pickle_of_the_old_format_is_checked(tmp_path: Path, mark: Path, reader: Callable, place: int) -> None:
    parts = [*legacy_head(), pickle.dumps({}, protocol=2), pickle.dumps([], protocol=2)]
    parts[place] = pickle.dumps(Gadget(os.system, f'touch {mark}'), protocol=2)
    path = tmp_path / 'a.pth'
    path.write_bytes(b''.join(parts))
    with pytest.raises(pickle.UnpicklingError, match='posix'):
        reader(path)
    assert not mark.exists()
    assert 'posix.system' in global_names(path)


OURS_ALONE = {
    'item of a size': (SIZE + pickled(0) + pickled(1) + b's', 'it sets items of an object of type Size'),
    'items of a size': (SIZE + b'(' + pickled(0) + pickled(1) + b'u', 'it sets items of an object of type Size'),
    'array over bytes': (NDARRAY + pickled((1,)) + pickled('O') + pickled('12345678') + b'\x87R', 'it calls ndarray'),
    'new array over bytes': (NDARRAY + pickled(((1,), 'O', '12345678')) + b'\x81', 'it calls ndarray'),
    'array by a detour': (
        b'ctorch._tensor\n_rebuild_from_type_v2\n(' + NDARRAY * 2 + pickled(((1,), 'O', '12345678')) + b'}tR',
        'it calls ndarray',
    ),
    'method by a detour': (
        b'ctorch._tensor\n_rebuild_from_type_v2\n(c__builtin__\ngetattr\n'
        + HISTORY
        + pickled('mean')
        + b'\x86R'
        + HISTORY
        + EMPTY_HISTORY
        + b'\x85}tR',
        'it calls HistoryBuffer.mean',
    ),
    'pointers in a plain type': (
        b'cnumpy\ndtype\n'
        + pickled(('V8', False, True))
        + b'R('
        + pickled(3)
        + pickled('|')
        + b'N'
        + pickled(('a',))
        + b'}'
        + pickled('a')
        + b'cnumpy\ndtype\n'
        + pickled(('O',))
        + b'R'
        + pickled(0)
        + b'\x86s'
        + pickled(8)
        + pickled(1)
        + pickled(0)
        + b'tb',
        FORGED_TYPE,
    ),
    'larger type': (
        b'cnumpy\ndtype\n'
        + pickled(('S5', False, True))
        + b'R'
        + pickled((3, '|', None, None, None, 999, 1, 0))
        + b'b',
        FORGED_TYPE,
    ),
    'other flags': (
        b'cnumpy\ndtype\n'
        + pickled(('f8', False, True))
        + b'R'
        + pickled((3, '<', None, None, None, -1, -1, 63))
        + b'b',
        FORGED_TYPE,
    ),
    'sparse tensor': (b'ctorch._utils\n_rebuild_sparse_tensor\n', r'GLOBAL torch\._utils\._rebuild_sparse_tensor'),
}
"""Pickles that torch's own reader takes once numpy is listed."""


@pytest.mark.parametrize(('content', 'words'), OURS_ALONE.values(), ids=OURS_ALONE.keys())
def test_our_reader_keeps_files_from_the_memory(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=words):
        read(save_pickle(b'\x80\x02' + content + b'.', tmp_path / 'a.pth'))


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = save(dict(a=1), tmp_path / 'a.pth')
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(archive.namelist()[0].split('/')[0] + '/constants.pkl', pickle.dumps((), protocol=2))
    with pytest.raises(RuntimeError, match='TorchScript'):
        read(path)


def test_tar_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = []
    monkeypatch.setattr(tarfile.TarFile, 'extract', lambda *args, **kwargs: unpacked.append(args))
    path = tmp_path / 'a.pth'
    with tarfile.open(path, 'w') as archive:
        archive.add(__file__, 'storages')
    with pytest.raises(DistillError, match='was not written by torch.save'):
        load_checkpoint_file(str(path))
    assert not unpacked


@both_formats
def test_names_are_found_without_reading(tmp_path: Path, mark: Path, zip_format: bool) -> None:
    content = dict(a=Gadget(os.system, f'touch {mark}'), b=Gadget(eval, '1'))
    path = save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format)
    assert {'posix.system', 'builtins.eval'} <= global_names(path)
    assert not mark.exists()
