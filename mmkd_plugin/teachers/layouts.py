"""From the layout of a file to a model's own keys: wrappers, several models in one file, names of MMDetection 2."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.utilities.clips import detector_path

_RENAMED = (
    (re.compile(r'^segm_head\.'), 'mask_head.segm_branch.'),
    (re.compile(r'^bbox_head\.input_proj\.'), 'neck.convs.0.conv.'),
    (re.compile(r'^bbox_head\.query_embedding\.'), 'query_embedding.'),
    (re.compile(r'^bbox_head\.transformer\.level_embeds$'), 'level_embed'),
    (re.compile(r'^bbox_head\.transformer\.(reference_points|pos_trans)\.'), r'\1_fc.'),
    (re.compile(r'^bbox_head\.transformer\.enc_output\.'), 'memory_trans_fc.'),
    (re.compile(r'^bbox_head\.transformer\.enc_output_norm\.'), 'memory_trans_norm.'),
    (re.compile(r'^bbox_head\.transformer\.'), ''),
    (re.compile(r'(\.layers\.\d+\.)ffns\.0\.'), r'\1ffn.'),
)
"""What MMDetection 2 called otherwise: YOLACT and the family of DETR; all other models of its zoo kept their keys."""

_COUNTER = 'num_batches_tracked'
_CLASSIFIER = ('head.', 'fc.')
"""What stands beside the backbone in the file of a classifier."""
_ATTENTION = re.compile(r'^(.*\.layers\.\d+)\.attentions\.([01])\.')


class PlainState(NamedTuple):
    """A model's part of a file, by the model's own keys, and how it fits.

    Attributes:
        state: The entries; ``_metadata`` is theirs, by which modules translate keys of former versions.
        prefix: What the file puts before these keys, without the last dot; empty where it has them plainly.
        renamed: How many keys had the names of MMDetection 2.
        matching: How many entries of the model it fills, the counters of batch norms aside.
        complete: Whether that is all of them.
        deeper: A key of a block that the model's backbone does not have, while it has the first ones; such a file
            fills the model too, with a part of another. None where there is none.
        exact: Whether the model has a place for every entry.
    """

    state: OrderedDict[str, Any]
    prefix: str
    renamed: int
    matching: int
    complete: bool
    deeper: str | None
    exact: bool

    def notes(self) -> str:
        """What was done, as the end of a sentence; empty where nothing was."""
        part = f', its part "{self.prefix}"' if self.prefix else ''
        return part + (f', {self.renamed} keys of MMDetection 2 renamed' if self.renamed else '')


def plain_state_dict(
    stored: Mapping[str, Any],
    model: nn.Module,
    prefix: str | None = None,
    name: str = 'The file',
    choose: str = 'name one of them',
) -> PlainState:
    """Find a model in the weights of a file, whatever wraps it there.

    Wrappers are recognised by the model's own keys behind them: ``module.`` of ``DataParallel``, ``architecture.`` of
    MMRazor, ``student.`` and ``teacher.`` of the authors' FGD and of semi-supervised detectors. Of several models in
    one file the one that fits is taken. Averages of a hook for them (``ema_...``) are left where they are: the hooks of
    mmcv and MMEngine save the averages by the plain keys.

    Args:
        stored: The weights by name, as the file has them.
        model: A model, of which only names, shapes and types of modules are read.
        prefix: The part to take, such as ``'student'``; found by itself if None.
        name: What the user knows the file as, at the start of errors.
        choose: How the user says which part is meant, for errors.

    Returns:
        The part and how it fits; it may be incomplete.

    Raises:
        DistillError: If several parts fit alike and none is named, or the named one is not there.
    """
    own = {key: shape_of(value) for key, value in model.state_dict().items()}
    parts = parts_of(stored, own)
    if prefix is not None:
        prefix = prefix.rstrip('.')
        if prefix and not any(str(key).startswith(f'{prefix}.') for key in stored):
            known = nearest(prefix, [part for part in parts if part]) if any(parts) else 'leave the prefix out.'
            raise DistillError(f'{name} has no part "{prefix}"; {known}')
        return _part(stored, model, own, prefix)
    fits = [_part(stored, model, own, part) for part in parts or ['']]
    whole = [fit for fit in fits if fit.complete and fit.deeper is None]
    plain = [fit for fit in whole if not fit.prefix]
    exact = [fit for fit in whole if fit.exact]
    if whole:
        best = plain or (exact if len(exact) == 1 else whole)
    else:
        # Keys that a module translates by itself while it is loaded are missing here.
        most = max((fit.deeper is None, fit.matching) for fit in fits)
        best = [fit for fit in fits if (fit.deeper is None, fit.matching) == most]
        # Of a file for another model a few keys agree by chance.
        best = best if 2 * best[0].matching > len(own) else best[:1]
    if len(best) > 1:
        names = [f'"{fit.prefix}"' for fit in best]
        raise DistillError(
            f'{name} holds {len(best)} models that fit {type(model).__name__} alike, {" and ".join(names)}; {choose}.'
        )
    return best[0]


def parts_of(stored: Mapping[str, Any], own: Collection[str]) -> list[str]:
    """What stands before a model's own keys in a file.

    Args:
        stored: The weights by name, as the file has them.
        own: The model's keys.

    Returns:
        The prefixes without their last dot, that of most keys first; empty for keys that stand there plainly.
    """
    counts: Counter[str] = Counter()
    for key in stored:
        parts = key.split('.') if isinstance(key, str) else []
        for start in range(len(parts)):
            if '.'.join(parts[start:]) in own:
                counts['.'.join(parts[:start])] += 1
    return [prefix for prefix, _ in counts.most_common()]


def backbone_alone(model: nn.Module, state: Mapping[str, Any]) -> str | None:
    """Look for the file of a backbone, or of a classifier, which a whole model is not filled by.

    Args:
        model: The model to fill.
        state: What a file has for it.

    Returns:
        A key of the backbone; None where there is more than a backbone.
    """
    backbone = f'{detector_path(model)}backbone.'
    own = model.state_dict()
    bare = next((key for key in state if backbone + key in own), None)
    if bare is None and state and all(key.startswith((backbone, *_CLASSIFIER)) for key in state):
        return next(iter(state))
    return bare


def _part(stored: Mapping[str, Any], model: nn.Module, own: Mapping[str, Any], prefix: str) -> PlainState:
    """One part of a file, compared with a model."""
    before = f'{prefix}.' if prefix else ''
    state: OrderedDict[str, Any] = OrderedDict()
    renamed = 0
    modules = dict(model.named_modules())
    for key, value in stored.items():
        if not isinstance(key, str) or not key.startswith(before):
            continue
        key = key[len(before) :]
        new = key if key in own else _present_name(key, modules)
        if new != key and new in own and before + new not in stored:
            key = new
            renamed += 1
        state[key] = value
    state._metadata = _versions(stored, prefix)  # type: ignore[attr-defined]
    required = [key for key in own if not key.endswith(_COUNTER)]
    matching = sum(key in state and shape_of(state[key]) == own[key] for key in required)
    left = [key for key in state if key not in own and not key.endswith(_COUNTER)]
    deeper = next((key for key in left if _goes_on(key, own)), None)
    return PlainState(state, prefix, renamed, matching, matching == len(required), deeper, not left)


def _versions(stored: Mapping[str, Any], prefix: str) -> dict[str, Any] | None:
    """The versions of the modules below a prefix, by their names without it."""
    metadata = getattr(stored, '_metadata', None)
    if metadata is None or not prefix:
        return metadata
    below = {path[len(prefix) + 1 :]: entry for path, entry in metadata.items() if path.startswith(f'{prefix}.')}
    return {'': metadata.get(prefix, {}), **below}


def _present_name(key: str, modules: Mapping[str, nn.Module]) -> str:
    """What MMDetection 3 calls an entry of MMDetection 2."""
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    found = _ATTENTION.match(key)
    if found is None:
        return key
    layer = modules.get(found[1])
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    names = ['self_attn', 'cross_attn']
    if 'Mask2FormerTransformerDecoderLayer' in kinds:
        names.reverse()
    return f'{found[1]}.{names[int(found[2])]}.{key[found.end() :]}'


def _goes_on(key: str, own: Mapping[str, Any]) -> bool:
    """Whether a key belongs to a backbone's list of blocks that is shorter in the model."""
    parts = key.split('.')
    for place, part in enumerate(parts):
        if part.isdigit() and 'backbone' in parts[:place]:
            blocks = '.'.join(parts[:place])
            if not any(mine.startswith(f'{blocks}.{part}.') for mine in own):
                return any(mine.startswith(f'{blocks}.0.') for mine in own)
    return False


def shape_of(value: Any) -> tuple | None:
    """The shape of an entry of a file, None where it is no tensor."""
    return tuple(value.shape) if isinstance(value, Tensor) else None
