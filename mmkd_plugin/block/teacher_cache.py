"""What a user says of the teacher's records that are kept on the disk."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Sequence, Union

from typing_extensions import Literal

from mmkd_plugin.utilities.settings import Positive, from_dict


@dataclasses.dataclass(frozen=True)
class CacheBlock:
    """How the teacher's records are kept.

    Attributes:
        dir: The folder; each teacher, pipeline and set of taps has a folder of its own inside, shared by all runs.
        dtype: The type that numbers are kept in.
        max_disk: How many GB (of 1,000 MB) the records of one teacher may take; as many as are free by default.
        repeatable: Types of transforms of your own that do the same to an image each time, and may stay in the train
            pipeline.
    """

    dir: str = 'work_dirs/teacher_cache'
    dtype: Literal['float16', 'bfloat16', 'float32'] = 'float16'
    max_disk: Optional[Positive] = None
    repeatable: Sequence[str] = ()


def parse_cache(values: Union[bool, Dict[str, Any]], where: str) -> Optional[CacheBlock]:
    """Check what a user wrote.

    Args:
        values: True, False, or a dict of keys.
        where: Its place in the config, for messages.

    Returns:
        The settings, None where nothing is kept.

    Raises:
        DistillError: On an unknown key, a wrong type or a number out of range.
    """
    if values is False:
        return None
    return from_dict(CacheBlock, {} if values is True else values, where)
