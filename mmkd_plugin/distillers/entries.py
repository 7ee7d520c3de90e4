"""How the losses of a distiller are named, and what their mapping entries hold."""

from __future__ import annotations

from torch import Tensor

from mmkd_plugin.utilities.resize import resize_map

LEVEL = '_level'
"""Separates a loss's name from the pyramid level it works on; the levels of one loss are logged as their sum."""
OWN_KEYS = ('like', 'align_corners')
"""What a mapping entry may hold besides MMRazor's keys."""


def logged_name(loss: str, term: str) -> str:
    """What a term of a loss is called where its levels are added up."""
    name = loss.partition(LEVEL)[0]
    return name if not term or name.endswith(f'_{term}') else f'{name}_{term}'


def as_list(entry: dict | list[dict]) -> list[dict]:
    """The records of a mapping entry."""
    return entry if isinstance(entry, list) else [entry]


def entries(mapping: dict) -> list[dict]:
    """All records that one loss reads."""
    return [record for entry in mapping.values() for record in as_list(entry)]


def resized(feature: Tensor, other: Tensor, record: dict) -> Tensor:
    """A feature map in the size of another; one that has it already keeps its precision as well."""
    size = (other.shape[-2], other.shape[-1])
    if tuple(feature.shape[-2:]) == size:
        return feature
    return resize_map(feature, size, align_corners=record.get('align_corners', False))
