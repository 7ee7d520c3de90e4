"""Where cached records come from: a teacher that is built when one of them is missing, and not before."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd_plugin.probe.models import ModelTaps, probe
from mmkd_plugin.teachers.cache.described import described, from_description
from mmkd_plugin.teachers.cache.identity import fingerprint, teacher_identity, title
from mmkd_plugin.teachers.cache.store import Store, write_whole
from mmkd_plugin.teachers.source import model_config
from mmkd_plugin.teachers.weights import LoadedTeacher, build_teacher

DESCRIPTION = 'teacher.json'
"""The file in the folder of a teacher that says which one it is and what the probe found in it."""
_VERSION = 1


class CachedSource:
    """A teacher of which a folder knows what the probe found in it.

    Args:
        settings: The teacher's keys in the ``distill`` block.
        where: Where they stand, for messages.
        root: The folder of all caches.
        preparation: What makes the teacher's images from files: pipelines and preprocessor, as plain values.
        dtype: Name of the type that records are kept in.
        most: Bytes that its records may take, None for as many as the disk has.

    Raises:
        DistillError: If its weights are none that could be recognised again.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        where: str,
        root: Path,
        preparation: Mapping[str, Any],
        dtype: str = 'float16',
        most: float | None = None,
    ) -> None:
        self._settings = settings
        self._identity = json.loads(json.dumps(dict(teacher_identity(settings, where), version=_VERSION)))
        self._preparation = preparation
        self.dtype = dtype
        self.most = most
        self.root = root
        self.folder = root / f'{title(settings)}-{fingerprint(self._identity)}'
        self._known = self._read()

    @property
    def taps(self) -> ModelTaps:
        """What can be recorded in the teacher; it is built where no run has looked before."""
        return self._described()[0]

    @property
    def meta(self) -> dict:
        """Of the teacher's checkpoint, the names of its classes."""
        return self._described()[1]

    @functools.cached_property
    def loaded(self) -> LoadedTeacher:
        """The teacher with its weights."""
        values = self._settings
        return build_teacher(
            model_config(values['teacher']),
            values['teacher_ckpt'],
            values['trust_checkpoint'],
            values['teacher_prefix'],
        )

    def store(self, parts: list[str]) -> Store:
        """The store of some records.

        Args:
            parts: Names of the tensors that make up an entry.
        """
        identity = dict(self._preparation, parts=sorted(parts), dtype=self.dtype, version=_VERSION)
        return Store(self.folder / fingerprint(identity), self.dtype)

    def _described(self) -> tuple[ModelTaps, dict]:
        if self._known is None:
            self._known = probe(self.loaded.model, 'teacher'), _classes(self.loaded.meta)
            content = dict(identity=self._identity, taps=described(self._known[0]), meta=self._known[1])
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / DESCRIPTION, json.dumps(content, indent=1).encode())
        return self._known

    def _read(self) -> tuple[ModelTaps, dict] | None:
        """What an earlier run has found, None where it is not there or not to be trusted."""
        try:
            content = json.loads((self.folder / DESCRIPTION).read_text(encoding='utf-8'))
            if content['identity'] != self._identity:
                return None
            return from_description(content['taps']), _classes(content['meta'])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _classes(meta: Any) -> dict:
    """The names of the classes alone, as a checkpoint's meta holds them."""
    found = meta.get('dataset_meta', meta)
    names = (found or {}).get('classes', (found or {}).get('CLASSES'))
    if not isinstance(names, (list, tuple)):
        return {}
    return dict(dataset_meta=dict(classes=[str(name) for name in names]))
