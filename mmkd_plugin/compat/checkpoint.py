"""Reading checkpoints safely: what the allow-list does not cover is refused in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import os.path as osp
import pickle
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Callable
from urllib.error import URLError

import torch
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner import CheckpointLoader

from mmkd_plugin.compat.allow_list import mmengine_globals
from mmkd_plugin.compat.safe_pickle import global_names, load_safely, torch_globals
from mmkd_plugin.errors import DistillError

_PATCHING = threading.RLock()
_FULL_LOADING = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_BY_BLOCK = 'set trust_checkpoint=True in the distill block'
_BY_ENVIRONMENT = f'set the environment variable {_FULL_LOADING}=1'
_ZIP = b'PK\x03\x04'
_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'


def load_checkpoint_file(path: str, map_location: str | Callable = 'cpu', trust: bool = False) -> dict[str, Any]:
    """Read a checkpoint from wherever MMEngine can: a file, an http address, ``open-mmlab://``, ...

    It is read safely on every torch, whatever the process or the loader defaults to; torch's own download helper, for
    one, unpickles everything.

    Args:
        path: Path or address.
        map_location: As for ``torch.load``.
        trust: Whether the file may hold anything, and so run code of its own while it is read. Holds for this call
            alone.

    Returns:
        The checkpoint.

    Raises:
        DistillError: If there is no such checkpoint, it is damaged, or it holds types outside the allow-list.
    """
    return _load(path, map_location, trust, _BY_BLOCK)


def load_model_file(path: str) -> dict[str, Any]:
    """Read a checkpoint that no distill block names, such as one to publish or to draw.

    It is read as safely; only torch's own switch opens files that hold anything.

    Args:
        path: Path or address.

    Returns:
        The checkpoint.

    Raises:
        DistillError: As :func:`load_checkpoint_file`, or if the file holds no weights.
    """
    checkpoint = _load(path, 'cpu', _trusted_by_environment(), _BY_ENVIRONMENT)
    weights_of(checkpoint, path)
    return checkpoint


def weights_of(checkpoint: Any, path: str) -> dict[str, torch.Tensor]:
    """The weights by name, from a checkpoint or from a file that holds nothing else.

    Args:
        checkpoint: What a file holds.
        path: What the user gave; the error names it.

    Raises:
        DistillError: If there are none.
    """
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise DistillError(
            f'The file "{path}" holds no weights of a model but a {type(checkpoint).__name__}'
            f'{_keys_of(checkpoint)}; give a checkpoint that training saved.'
        )
    return dict(state)


def _keys_of(checkpoint: Any) -> str:
    names = [repr(key) for key in checkpoint][:3] if isinstance(checkpoint, Mapping) else []
    return f' of {", ".join(names)}' if names else ''


def _load(path: str, map_location: str | Callable, trust: bool, switch: str) -> Any:
    try:
        with _reading(path, trust, switch):
            return CheckpointLoader.load_checkpoint(path, map_location, logger='silent')
    except KeyError as error:
        scheme, separator, name = path.partition('://')
        if not separator or scheme in ('http', 'https'):
            raise
        raise DistillError(f'"{name}" is not a checkpoint that {scheme}:// knows; check the name.') from error


def _trusted_by_environment() -> bool:
    return os.getenv(_FULL_LOADING, '0').lower() in ('1', 'y', 'yes', 'true')


@contextlib.contextmanager
def readable_refusal(path: str, weights: bool = False) -> Iterator[None]:
    """Say why a checkpoint that MMEngine reads by itself (to resume, to start from) cannot be read.

    Inside, safe loading holds for this thread, also where MMEngine downloads the file or tries again without a check;
    only torch's own switch, the environment variable ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD``, turns it off.

    Args:
        path: What the user gave; the error names it.
        weights: Whether what is read must hold weights of a model.

    Raises:
        DistillError: In place of torch's error.
    """
    with _reading(path, _trusted_by_environment(), _BY_ENVIRONMENT, weights):
        yield


def build_safely(config: dict) -> Any:
    """Build a model; files that its modules read meanwhile are read as safely as a checkpoint.

    Args:
        config: Of the model, with its ``type``.

    Returns:
        The model.

    Raises:
        DistillError: If such a file is refused.
    """
    with readable_refusal('a file that the model reads'):
        return ROOT_MODELS.build(config)


@contextlib.contextmanager
def _reading(path: str, trust: bool, switch: str, weights: bool = False) -> Iterator[None]:
    """Decide between safe and full loading for this thread, and translate the errors of ``torch.load``."""
    owner = threading.get_ident()
    with _PATCHING:
        original = torch.load
        allowed = {**torch_globals(), **mmengine_globals()}

        def load(file: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != owner:
                return original(file, *args, **kwargs)
            try:
                if trust:
                    found = original(file, *args, **{**kwargs, 'weights_only': False})
                else:
                    found = load_safely(original, file, allowed, *args, **kwargs)
                if weights:
                    weights_of(found, path)
                return found
            except DistillError:
                raise
            except Exception as error:
                sentence = _explain(path, file, error, '' if trust else switch, allowed)
                if sentence is None:
                    raise
                # torch's own text advises to load without the check; it must not be the last word.
                raise DistillError(sentence) from None

        torch.load = load  # type: ignore[assignment]
        try:
            yield
        except FileNotFoundError as error:
            if 'can not be found' not in str(error):
                raise
            raise DistillError(_not_there(path)) from error
        except URLError as error:
            raise DistillError(
                f'The checkpoint "{path}" cannot be downloaded ({error}); check the address, or download it by other '
                'means and give the path of the file.'
            ) from error
        finally:
            torch.load = original


def _not_there(path: str) -> str:
    """One sentence for a path at which there is no file."""
    folder = osp.expanduser(path)
    if not osp.isdir(folder):
        return f'The checkpoint "{path}" does not exist; check the path.'
    files = sorted(name for name in os.listdir(folder) if name.endswith('.pth'))
    named = f'one of its files, such as "{osp.join(path, files[-1])}"' if files else 'the file of a checkpoint'
    return f'The checkpoint "{path}" is a folder; name {named}.'


def _explain(path: str, file: Any, error: Exception, switch: str, allowed: Collection[str]) -> str | None:
    """One sentence for an error of ``torch.load``, None where the error speaks for itself.

    Args:
        path: What the user gave.
        file: What was read.
        error: The error.
        switch: How the user may allow everything; empty where that was done.
        allowed: The names that a checkpoint may hold.
    """
    # A zip archive that was cut off is an invalid argument; what else the system says (permissions) stands.
    if isinstance(error, (MemoryError, ImportError)) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
        return None
    head, local = _head(file)
    shown = f'"{path}"'
    if local and osp.abspath(osp.expanduser(path)) != osp.abspath(local):
        shown += f' ({local})'
    if not head.startswith((_ZIP, _LEGACY)):
        if not head:
            found = 'is empty'
        elif head.lstrip().startswith(b'<'):
            found = 'is a web page or another text, not a checkpoint'
        else:
            found = 'was not written by torch.save'
        return f'The checkpoint {shown} {found}; download it again, or check the path.'
    message = str(error)
    broken = ('PytorchStreamReader', 'unexpected EOF', 'truncated', 'corrupted', 'storage has wrong byte size')
    damaged = isinstance(error, (EOFError, OSError)) or any(words in message for words in broken)
    if isinstance(error, pickle.UnpicklingError) and switch and not damaged:
        names = _unsafe_names(file, message, allowed)
        if names:
            return (
                f'The checkpoint {shown} is refused because it holds {names}, which can run code while the file is '
                f'read; if you trust its source, {switch}.'
            )
        return f'The checkpoint {shown} cannot be read safely ({message}); if you trust its source, {switch}.'
    if 'explicit pickle_module' in message:
        return (
            f'The checkpoint {shown} is read safely without TORCH_FORCE_WEIGHTS_ONLY_LOAD, which shuts our reader out; '
            'unset that environment variable.'
        )
    if 'TorchScript' in message:
        return f'The checkpoint {shown} is a TorchScript archive; give the file that training saved.'
    # Full unpickling also passes on the errors of whatever the file holds.
    if damaged or (switch and not isinstance(error, RuntimeError)):
        return f'The checkpoint {shown} is incomplete or damaged; download or copy it again.'
    return None


def _head(file: Any) -> tuple[bytes, str]:
    """The first bytes of what was read, and its path where it has one."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            return opened.read(64), os.fspath(file)
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    return head, ''


def _unsafe_names(file: Any, message: str, allowed: Collection[str]) -> str:
    """The names that are not allowed, all of them where the file can be searched."""
    names = sorted(name for name in global_names(file) if name not in allowed) or re.findall(r'GLOBAL (\S+)', message)
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
