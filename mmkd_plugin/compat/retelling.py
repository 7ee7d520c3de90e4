"""Known mistakes that the packages below answer with a traceback, told in one sentence.

Each entry of the table at the end looks at an error and gives the sentence, or None where it is another mistake.
Nothing heavy is imported unless such an error is there.
"""

from __future__ import annotations

import errno
import inspect
import json
import os.path as osp
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

from mmkd_plugin.errors import nearest

_NOT_REGISTERED = re.compile(r'(\w[\w.]*) is not in the (?:[\w.]+::)?([\w ]+) registry')
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
_REQUIRED = re.compile(r'missing \d+ required (?:positional|keyword-only) arguments?: (.*)')
_NO_LOOP = re.compile(r'self\._(train|val|test)_loop` should not be None')
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
_OUT_OF_CLASSES = re.compile(r'Target (\d+) is out of bounds')
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base 10: '(.*)'")
_IN_WORKER = re.compile(r'failed to load image: (.+)')
_COCO = 'it must hold a dict with "images", "annotations" and "categories".'
_VERBS = dict(train='train', val='validate', test='test')
_FIXES = {
    errno.EISDIR: 'it is a folder, give a file',
    errno.EEXIST: 'it is a file, give a folder',
    errno.ENOTDIR: 'a part of the path is a file, give another path',
    errno.EACCES: 'give a path that you may use',
    errno.EPERM: 'give a path that you may use',
    errno.EROFS: 'give a path that can be written',
    errno.ENOSPC: 'free some space, or give a path on another disk',
}


def retell(error: BaseException) -> str | None:
    """One sentence for an error of a package below, None where nothing is known about it.

    Args:
        error: As it was caught, with its traceback.

    Returns:
        What is wrong and what to do.
    """
    # MMEngine 0.8 raises an error anew at every level that it comes through.
    origin = error
    while type(origin.__context__) is type(origin) and _text(origin.__context__) in _text(origin):
        origin = origin.__context__
    for tell in _KNOWN:
        sentence = tell(origin)
        if sentence is not None:
            return sentence
    return None


def _text(error: BaseException | None) -> str:
    # The text of a KeyError is in quotes otherwise.
    return str(error.args[0]) if error is not None and len(error.args) == 1 else str(error)


def _gist(error: BaseException) -> str:
    """The line of an error that tells most; errors of a data loader's process carry their traceback in the text."""
    lines = [line.strip() for line in _text(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[-1] if 'Original Traceback' in _text(error) else lines[0]).rstrip('.')


def _frames(error: BaseException) -> list[Any]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _not_registered(error: BaseException) -> str | None:
    found = _NOT_REGISTERED.search(_text(error)) if isinstance(error, KeyError) else None
    if found is None:
        return None
    name, kind = found.groups()
    known = set(_registered(kind))
    return (
        f'The config asks for the {kind} "{name}", which nothing registers (a class of your own needs '
        f'custom_imports): {nearest(name, known) if known else "check the name."}'
    )


def _registered(kind: str) -> Iterator[str]:
    """All names of one kind, those of the packages also with their scope."""
    import mmengine.registry

    def names(registry: Any, prefix: str) -> Iterator[str]:
        for name in registry.module_dict:
            yield from (name, f'{prefix}{name}') if prefix else (name,)
        for scope, child in registry.children.items():
            yield from names(child, f'{scope}.')

    for registry in vars(mmengine.registry).values():
        if isinstance(registry, mmengine.registry.Registry) and registry.name == kind:
            yield from names(registry, '')


def _wrong_arguments(error: BaseException) -> str | None:
    if not isinstance(error, TypeError):
        return None
    frames = _frames(error)
    built = [frame for frame in frames if callable(frame.f_locals.get('obj_cls', frame.f_locals.get('scheduler_cls')))]
    if not built:
        return None
    inside = built[-1].f_locals
    target = inside.get('obj_cls', inside.get('scheduler_cls'))
    given = inside.get('args', inside.get('cfg')) or {}
    title = getattr(target, '__name__', str(target))
    unexpected, required = _UNEXPECTED.search(_text(error)), _REQUIRED.search(_text(error))
    if unexpected and unexpected[1] in given:
        return f'{title} has no setting "{unexpected[1]}": {nearest(unexpected[1], _arguments(target))}'
    if required and built[-1] is frames[-1]:
        return f'{title} lacks {required[1]}; set what is missing in the config.'
    return None


def _arguments(target: Any) -> Iterable[str]:
    """What a class takes, with what its ``**kwargs`` hand on to the next one."""
    found: list[str] = []
    for base in inspect.getmro(target) if inspect.isclass(target) else [target]:
        function = vars(base).get('__init__') if inspect.isclass(base) else base
        if function is None or base is object:
            continue
        parameters = [item for item in inspect.signature(function).parameters.values() if item.name != 'self']
        found += [item.name for item in parameters if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            break
    return found


def _bad_json(error: BaseException) -> str | None:
    if not isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return None
    for frame in reversed(_frames(error)):
        for name in ('annotation_file', 'ann_file', 'file', 'filepath', 'file_path', 'filename'):
            value = frame.f_locals.get(name)
            if isinstance(value, (str, Path)) and Path(value).is_file():
                return f'The file "{value}" is no JSON, or damaged ({_gist(error)}); make or copy it again.'
    return None


def _out_of_memory(error: BaseException) -> str | None:
    torch_says = isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(_text(error))
    if not isinstance(error, MemoryError) and not torch_says:
        return None
    where = 'GPU' if 'cuda' in _text(error).lower() else 'machine'
    return (
        f'The memory of the {where} is not enough ({_gist(error)}); lower train_dataloader.batch_size, the size of the '
        'images or num_workers.'
    )


def _file(error: BaseException) -> str | None:
    if not isinstance(error, OSError):
        return None
    name = error.filename if isinstance(error.filename, str) else None
    if name is None:
        if error.errno == errno.ENOSPC:
            return f'The disk is full ({error.strerror}); {_FIXES[errno.ENOSPC]}.'
        return f'{_gist(error)}; check the path.' if isinstance(error, FileNotFoundError) else None
    if error.errno == errno.ENOENT:
        folder = Path(osp.dirname(name) or '.')
        close = nearest(Path(name).name, (item.name for item in folder.iterdir())) if folder.is_dir() else ''
        return f'"{name}" does not exist; {close if "did you mean" in close else "check the path."}'
    fix = _FIXES.get(error.errno or 0, 'check the path')
    return f'"{name}" cannot be read or written ({error.strerror}); {fix}.'


def _no_loop(error: BaseException) -> str | None:
    found = _NO_LOOP.search(_text(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    parts = ('dataloader', 'cfg', 'optim_wrapper' if found[1] == 'train' else 'evaluator')
    names = [part if part == 'optim_wrapper' else f'{found[1]}_{part}' for part in parts]
    return f'The config does not say on what to {_VERBS[found[1]]}; set {names[0]}, {names[1]} and {names[2]}.'


def _one_value(error: BaseException) -> str | None:
    if not isinstance(error, ValueError) or 'Expected more than 1 value per channel' not in _text(error):
        return None
    return (
        f'A batch norm layer sees a single value ({_gist(error)}); set train_dataloader.batch_size to 2 or more, and '
        'drop_last=True where the last batch is smaller.'
    )


def _no_data(error: BaseException) -> str | None:
    empty = isinstance(error, ValueError) and 'need at least one array to concatenate' in _text(error)
    frames = [frame for frame in _frames(error) if frame.f_code.co_name in ('full_init', '_serialize_data')]
    if not empty or not frames:
        return None
    dataset = frames[-1].f_locals.get('self')
    places = [getattr(dataset, 'ann_file', ''), *(getattr(dataset, 'data_prefix', None) or {}).values()]
    found = ', '.join(f'"{place}"' for place in places if place) or 'its paths'
    return (
        f'The {type(dataset).__name__} holds no image; look at {found} and at filter_cfg, which leaves out images '
        'without boxes where it is told to.'
    )


def _no_coco_file(error: BaseException) -> str | None:
    if not isinstance(error, AssertionError) or 'annotation file format' not in _text(error):
        return None
    names = [frame.f_locals.get('annotation_file') for frame in _frames(error)]
    return f'"{next((name for name in reversed(names) if name), "The annotation file")}" is no COCO file; {_COCO}'


def _bad_sample(error: BaseException) -> str | None:
    """A step of a data pipeline that stumbles over an image or what belongs to it."""
    steps = [frame.f_locals for frame in _frames(error) if isinstance(frame.f_locals.get('results'), dict)]
    named = [step for step in steps if step['results'].get('img_path')]
    if named:
        image, step = named[0]['results']['img_path'], type(named[0].get('self')).__name__
    else:
        # The error of a process of a data loader has its frames in the text alone.
        found = _IN_WORKER.search(_text(error))
        if found is None:
            return None
        image, step = found[1], 'The pipeline'
    return (
        f'The image "{image}" or its annotation cannot be used ({step}: {_gist(error)}); make it again, or leave it '
        'out.'
    )


def _bad_annotation(error: BaseException) -> str | None:
    """An entry of an annotation file that a data set cannot read."""
    frames = [frame.f_locals for frame in _frames(error) if frame.f_code.co_name == 'parse_data_info']
    path = getattr(frames[-1].get('self'), 'ann_file', '') if frames else ''
    # Without "img" it is the data set that is set up wrongly.
    if not path or not isinstance(error, (ValueError, TypeError, KeyError, IndexError)) or error.args == ('img',):
        return None
    image = frames[-1].get('img_info')
    name = image.get('file_name') if isinstance(image, dict) else None
    what = f'What "{path}" says of "{name}"' if name else f'An entry of "{path}"'
    return f'{what} cannot be read ({type(error).__name__}: {_gist(error)}); correct the file or make it again.'


def _unknown_label(error: BaseException) -> str | None:
    found = _OUT_OF_CLASSES.search(_text(error)) if isinstance(error, IndexError) else None
    if found is None:
        return None
    return (
        f'The data hold the label {found[1]}, which is none of the classes of the model; set num_classes of its heads, '
        "or correct the labels and the data set's metainfo."
    )


def _half_a_loop(error: BaseException) -> str | None:
    if not isinstance(error, ValueError) or 'should be either all None or not None' not in _text(error):
        return None
    names = _gist(error).partition(' should be')[0]
    values = {name: f'{name}=None' in _text(error) for name in re.split(r',? and |, ', names)}
    missing = ' and '.join(name for name, absent in values.items() if absent)
    return f'The config has no {missing or "complete loop"}, without which {names} are of no use; set it.'


def _no_optimizer(error: BaseException) -> str | None:
    built = [frame.f_locals for frame in _frames(error) if frame.f_code.co_name == '__call__']
    kinds = [item.get('self') for item in built if hasattr(item.get('self'), 'optimizer_cfg')]
    if not isinstance(error, TypeError) or 'is not a callable object' not in _text(error) or not kinds:
        return None
    name = str(kinds[-1].optimizer_cfg.get('type'))
    known = set(_registered('optimizer'))
    return f'The config asks for the optimizer "{name}", which nothing registers: {nearest(name, known)}'


def _no_number(error: BaseException) -> str | None:
    found = _NO_NUMBER.search(_text(error)) if isinstance(error, ValueError) else None
    loops = [frame.f_locals for frame in _frames(error) if frame.f_code.co_name == '__init__']
    names = [key for item in loops for key in ('max_iters', 'max_epochs') if found and str(item.get(key)) == found[1]]
    if found is None or not names:
        return None
    return f'train_cfg.{names[0]} is "{found[1]}"; it must be a whole number.'


_KNOWN: tuple[Callable[[BaseException], str | None], ...] = (
    _not_registered,
    _wrong_arguments,
    _bad_json,
    _out_of_memory,
    _no_loop,
    _one_value,
    _no_data,
    _no_coco_file,
    _bad_annotation,
    _unknown_label,
    _half_a_loop,
    _no_optimizer,
    _no_number,
    _file,
    _bad_sample,
)
