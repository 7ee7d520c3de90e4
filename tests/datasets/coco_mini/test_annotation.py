"""Annotations must say what COCO's tools read."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from mmkd_plugin.datasets.coco_mini.annotation import annotation, json_bytes, run_lengths
from mmkd_plugin.datasets.coco_mini.scene import Instance


def test_run_lengths_go_down_the_columns_and_begin_with_zeros():
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    assert run_lengths(mask) == {'size': [2, 3], 'counts': [2, 3, 1]}
    assert run_lengths(~mask) == {'size': [2, 3], 'counts': [0, 2, 3, 1]}


def test_pycocotools_reads_the_run_lengths():
    mask = np.arange(35).reshape(5, 7) % 3 == 0
    encoded = run_lengths(mask)
    decoded = coco_mask.decode(coco_mask.frPyObjects(encoded, *encoded['size']))
    assert np.array_equal(decoded.astype(bool), mask)


def test_box_and_area_are_those_of_the_mask():
    mask = np.zeros((6, 8), dtype=bool)
    mask[2, 3:6] = True
    mask[4, 3] = True
    entry = annotation(Instance(label=1, mask=mask, crowd=True), number=9, image=4)
    assert entry['bbox'] == [3, 2, 3, 3]
    assert entry['area'] == 4
    assert (entry['id'], entry['image_id'], entry['category_id'], entry['iscrowd']) == (9, 4, 2, 1)


def test_json_has_one_spelling():
    assert json_bytes({'b': [1, 2], 'a': 'ä'}) == b'{"b":[1,2],"a":"\\u00e4"}'
