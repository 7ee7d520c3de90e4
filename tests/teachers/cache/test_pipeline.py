"""What may stand in a pipeline whose teacher's records are kept, and the sentence on what may not."""

from __future__ import annotations

from typing import Any

import _helpers.tiny  # noqa: F401
import pytest
from _helpers.tiny_images import pipeline
from mmengine.registry import DefaultScope

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache.pipeline import require_repeatable, with_record_keys


@pytest.fixture(autouse=True)
def scope() -> Any:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def data(steps: list, **others: Any) -> dict:
    return dict(type='CocoDataset', pipeline=steps, **others)


def test_a_fixed_pipeline_with_a_flip() -> None:
    found = require_repeatable(data(pipeline(dict(type='Pad', size_divisor=32))))
    assert list(found) == [''] and found[''].flips == ('', 'horizontal')


@pytest.mark.parametrize(
    ('flip', 'flips'),
    [
        (dict(prob=0.5, direction='vertical'), ('', 'vertical')),
        (dict(prob=1.0, direction='diagonal'), ('diagonal',)),
        (dict(prob=0.0), ('',)),
        (dict(prob=[0.3, 0.4], direction=['diagonal', 'horizontal']), ('', 'horizontal', 'diagonal')),
        (dict(prob=[0.5, 0.5], direction=['vertical', 'horizontal']), ('horizontal', 'vertical')),
        (dict(prob=1.0, direction=['vertical', 'horizontal']), ('horizontal', 'vertical')),
    ],
)
def test_the_flips_that_can_happen(flip: dict, flips: tuple) -> None:
    steps = [step for step in pipeline() if step['type'] != 'RandomFlip']
    steps.insert(-1, dict(type='RandomFlip', **flip))
    assert require_repeatable(data(steps))[''].flips == flips


@pytest.mark.parametrize(
    'step',
    [
        dict(type='RandomResize', scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomChoiceResize', scales=[(64, 64), (96, 96)], keep_ratio=True),
        dict(type='RandomCrop', crop_size=(32, 32)),
        dict(type='PhotoMetricDistortion'),
        dict(type='Albu', transforms=[]),
        dict(type='RandomAffine'),
        dict(type='MixUp', img_scale=(64, 64)),
        dict(type='Mosaic', img_scale=(64, 64)),
        dict(type='RandAugment', aug_space=[]),
        dict(type='CutOut', n_holes=1, cutout_shape=(4, 4)),
        dict(type='RandomErasing', n_patches=1, ratio=0.1),
        dict(type='mmkd_plugin.RandomGaussianBlur'),
        dict(type='RandomApply', transforms=[]),
    ],
    ids=lambda step: step['type'],
)
def test_what_is_in_the_way_is_named(step: dict) -> None:
    name = step['type'].split('.')[-1]
    with pytest.raises(DistillError, match=f'{name} in the train pipeline .*distill.teacher_cache=False') as caught:
        require_repeatable(data(pipeline(step)))
    assert '\n' not in str(caught.value)


def test_a_transform_of_the_user_is_taken_at_their_word() -> None:
    steps = pipeline(dict(type='CutOut', n_holes=1, cutout_shape=(4, 4)))
    assert require_repeatable(data(steps), ['CutOut'])[''].steps[-1]['type'].endswith('CutOut')


def test_two_flips_are_refused() -> None:
    with pytest.raises(DistillError, match='two RandomFlip'):
        require_repeatable(data(pipeline(dict(type='RandomFlip', prob=0.5, direction='vertical'))))


@pytest.mark.parametrize('key', ['img_path', 'flip', 'flip_direction'])
def test_samples_must_tell_their_image(key: str) -> None:
    steps: list[Any] = pipeline()
    steps[-1]['meta_keys'] = [name for name in ('img_id', 'img_path', 'flip', 'flip_direction') if name != key]
    with pytest.raises(DistillError, match=f'"{key}", which the meta_keys'):
        require_repeatable(data(steps))


def test_images_made_of_several_are_refused() -> None:
    mixed = dict(type='MultiImageMixDataset', dataset=data(pipeline()), pipeline=pipeline())
    with pytest.raises(DistillError, match='MultiImageMixDataset makes its images'):
        require_repeatable(dict(type='RepeatDataset', times=2, dataset=mixed))


def test_data_sets_joined_need_one_pipeline() -> None:
    other = pipeline(resize=dict(type='Resize', scale=(96, 96)))
    joined: dict[str, Any] = dict(type='ConcatDataset', datasets=[data(pipeline()), data(pipeline())])
    assert require_repeatable(joined)[''] == require_repeatable(data(pipeline()))['']
    joined['datasets'][1]['pipeline'] = other
    with pytest.raises(DistillError, match='several; give all of them'):
        require_repeatable(joined)


def test_unlabelled_images_have_a_part_where_their_pipeline_differs() -> None:
    def mixed(steps: list) -> dict:
        return dict(type='mmkd_plugin.MixedDataset', dataset=data(pipeline()), unlabelled=data(steps))

    assert list(require_repeatable(mixed(pipeline()))) == ['']
    other = mixed(pipeline(resize=dict(type='Resize', scale=(96, 96))))
    assert list(require_repeatable(other)) == ['', 'unlabelled']
    marked = with_record_keys(other, ('', 'unlabelled'))
    assert marked['dataset']['pipeline'][-1] == dict(type='mmkd_plugin.RecordKey')
    assert marked['unlabelled']['pipeline'][-1] == dict(type='mmkd_plugin.RecordKey', part='unlabelled')
    assert other['dataset']['pipeline'][-1] == dict(type='PackDetInputs')


def test_data_without_a_pipeline_is_refused() -> None:
    with pytest.raises(DistillError, match='finds no pipeline in TinyBoxes'):
        require_repeatable(dict(type='TinyBoxes'))
