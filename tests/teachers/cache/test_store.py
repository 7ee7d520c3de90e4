"""Entries are whole or not there, whoever writes them, and nothing of a store is ever run."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('safetensors')

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache import EntryKey, Store
from mmkd_plugin.utilities.record_key import ImageKey

WRITER = """
import sys, torch
from pathlib import Path
from typing import Any
from mmkd_plugin.teachers.cache import EntryKey, Store
from mmkd_plugin.utilities.record_key import ImageKey
store = Store(Path(sys.argv[1]))
number = 0
while True:
    key = EntryKey(ImageKey(str(number), 1, 2), 64, 64)
    store.write(key, store.encode(key, {'neck': torch.full((64, 64, 64), float(number % 1000)).half()}))
    print(number, flush=True)
    number += 1
"""


def key_of(name: str = 'a.png', **changes: Any) -> EntryKey:
    return EntryKey(ImageKey(name, 10, 20)._replace(**changes), 64, 96)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store, value = Store(tmp_path / 'store'), torch.randn(3, 4).half()
    store.write(key_of(), store.encode(key_of(), {'neck:0': value, 'neck:1': value[:1]}))
    found = store.read(key_of(), ['neck:0'])
    assert found is not None and list(found) == ['neck:0'] and torch.equal(found['neck:0'], value)
    assert list(store.entries()) == [key_of().name] and not store.leftovers()


@pytest.mark.parametrize(
    'other',
    [
        key_of('b.png'),
        key_of(size=11),
        key_of(changed=21),
        key_of(flip='horizontal'),
        key_of(part='unlabelled'),
        key_of()._replace(height=65),
    ],
)
def test_another_image_flip_or_size_is_another_entry(tmp_path: Path, other: EntryKey) -> None:
    store = Store(tmp_path)
    store.write(key_of(), store.encode(key_of(), {'neck': torch.zeros(1)}))
    assert store.read(other, ['neck']) is None


def test_an_entry_in_the_place_of_another_is_not_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(key_of('b.png'), store.encode(key_of(), {'neck': torch.zeros(1)}))
    assert store.read(key_of('b.png'), ['neck']) is None


@pytest.mark.parametrize('keep', [0, 4, 40, -1])
def test_an_entry_that_was_cut_off_is_not_read(tmp_path: Path, keep: int) -> None:
    store = Store(tmp_path)
    content = store.encode(key_of(), {'neck': torch.zeros(100)})
    store.write(key_of(), content[:keep])
    assert store.read(key_of(), ['neck']) is None


def test_a_pickle_of_a_stranger_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / 'ran'),)

    store = Store(tmp_path)
    store.write(key_of(), pickle.dumps(Code()))
    assert store.read(key_of(), ['neck']) is None and not (tmp_path / 'ran').exists()


def test_a_killed_writer_leaves_whole_entries(tmp_path: Path) -> None:
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    for round_ in range(2):
        folder = tmp_path / str(round_)
        writer = subprocess.Popen(
            [sys.executable, '-c', WRITER, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert writer.stdout is not None and writer.stdout.readline() == '0\n'
        time.sleep(0.05 + 0.06 * round_)
        writer.send_signal(signal.SIGKILL)
        finished = [0, *map(int, writer.stdout.read().split())]
        writer.wait()
        store = Store(folder)
        for number in finished:
            found = store.read(EntryKey(ImageKey(str(number), 1, 2), 64, 64), ['neck'])
            assert found is not None and bool((found['neck'] == number % 1000).all())
        # At most one more had its name, but was not yet told.
        assert len(finished) <= len(store.entries()) <= len(finished) + 1
        assert len(store.leftovers()) <= 1


def test_two_writers_of_one_entry_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    for store in (first, second):
        store.write(key_of(), store.encode(key_of(), {'neck': torch.ones(5)}))
    found = first.read(key_of(), ['neck'])
    second.write(key_of(), second.encode(key_of(), {'neck': torch.zeros(5)}))
    # What was mapped into memory stays what it was.
    assert found is not None and bool((found['neck'] == 1).all())
    assert not first.leftovers()


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmkd_plugin.teachers.cache.store.write_whole', full)
    with pytest.raises(DistillError, match='The disk of the teacher cache .* is full; free some space'):
        Store(tmp_path).write(key_of(), b'')


def test_without_safetensors_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(DistillError, match='"pip install safetensors"'):
        Store(tmp_path)
