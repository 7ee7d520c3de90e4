"""Fingerprints: stored records belong to one teacher, one way of preparing images, and one set of places to record."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.source import local_file, model_config
from mmkd_plugin.teachers.weights import RANDOM_WEIGHTS
from mmkd_plugin.utilities.plain import to_plain

_LEAVES_RECORDS = ('teacher', 'teacher_ckpt', 'trust_checkpoint', 'loss_weight')
"""Keys of a teacher that change nothing of what it says, or stand in its identity in another form."""
_LENGTH = 12


def canonical(value: Any) -> Any:
    """A config in a form that is the same for equal configs: JSON's types, without the scope of a name."""
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items() if key != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    plain = to_plain(value)
    return plain if plain is None or isinstance(plain, (bool, int, float, str)) else repr(plain)


def fingerprint(value: Any) -> str:
    """A short name for a config, the same for equal ones."""
    text = json.dumps(canonical(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def teacher_identity(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What tells a teacher from every other one.

    Args:
        settings: Its keys in the ``distill`` block.
        name: Where they stand, for messages.

    Returns:
        Its config, a hash of the file of its weights (the address where they come from one), and its other keys.

    Raises:
        DistillError: If its weights are drawn at random.
    """
    checkpoint = settings['teacher_ckpt']
    if checkpoint == RANDOM_WEIGHTS:
        raise DistillError(
            f"{name}.teacher_ckpt is '{RANDOM_WEIGHTS}', and records of weights that are drawn anew each time cannot "
            'be kept; name a checkpoint, or set distill.teacher_cache=False.'
        )
    others = {key: value for key, value in settings.items() if key not in _LEAVES_RECORDS}
    return dict(config=canonical(model_config(settings['teacher'])), weights=weights_identity(checkpoint), **others)


def weights_identity(checkpoint: str) -> str:
    """A hash of a checkpoint's content; an address stands for itself.

    Raises:
        DistillError: If the file does not exist.
    """
    path = os.path.expanduser(local_file(checkpoint))
    if '://' in path:
        return path
    if not os.path.isfile(path):
        raise DistillError(f'The teacher checkpoint "{checkpoint}" does not exist; give the path of a file.')
    content = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 22), b''):
            content.update(block)
    return content.hexdigest()


def title(settings: Mapping[str, Any]) -> str:
    """The beginning of a folder's name, by which a reader knows the teacher."""
    stem = os.path.splitext(os.path.basename(str(settings['teacher_ckpt'])))[0]
    return re.sub(r'[^\w.-]+', '_', stem)[:40] or 'teacher'
