"""What the probe found in a teacher survives the way through a file, and nothing else is taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from _helpers.tiny import faster_rcnn, retinanet
from _helpers.tiny_seg import pspnet
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_plugin.probe.models import probe
from mmkd_plugin.teachers.cache.described import described, from_description


@pytest.mark.parametrize('config', [retinanet(), faster_rcnn(), pspnet()], ids=lambda config: config['type'])
def test_taps_come_back_as_they_were(config: dict) -> None:
    taps = probe(MODELS.build(Config(config)), 'teacher')
    assert taps.output and from_description(json.loads(json.dumps(described(taps)))) == taps


@pytest.mark.parametrize('change', [dict(extra=1), dict(output=[dict(source='neck')]), dict(name=dict(a=1))])
def test_other_content_is_refused(change: dict[str, Any]) -> None:
    values = json.loads(json.dumps(described(probe(MODELS.build(Config(retinanet())), 'teacher'))))
    with pytest.raises(ValueError):
        from_description({**values, **change})
