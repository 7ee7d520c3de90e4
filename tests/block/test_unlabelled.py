"""``distill.unlabelled``: what it makes of a dataloader, and what it refuses."""

from __future__ import annotations

import copy

import pytest
from _helpers.tiny_seg import block
from mmengine.config import ConfigDict

from mmkd_plugin.block import DistillBlock, UnlabelledBlock, mix_unlabelled
from mmkd_plugin.errors import DistillError

LOAD = dict(type='LoadImageFromFile')
PIPELINE = [LOAD, dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')]
DERIVED = [LOAD, dict(type='mmkd_plugin.NoLabels'), dict(type='PackSegInputs')]


def loader(dataset: dict, **options) -> dict:
    return dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'), dataset=dataset, **options)


def mixed(dataset: dict, options: dict | None = None, **unlabelled) -> dict:
    return mix_unlabelled(loader(dataset, **(options or {})), UnlabelledBlock('some/folder', **unlabelled))


def test_block_becomes_a_mixed_dataloader():
    source = loader(dict(type='ADE20KDataset', pipeline=PIPELINE))
    before = copy.deepcopy(source)
    result = mix_unlabelled(source, UnlabelledBlock('some/folder', batch_size=5))
    assert source == before
    assert result['dataset'] == dict(
        type='mmkd_plugin.MixedDataset',
        dataset=before['dataset'],
        unlabelled=dict(type='mmkd_plugin.UnlabelledImages', images='some/folder', pipeline=DERIVED),
    )
    assert result['batch_sampler'] == dict(type='mmkd_plugin.MixedBatchSampler', unlabelled=5)
    assert result['sampler'] == before['sampler'] and result['batch_size'] == 2


def test_as_many_as_labelled_ones_by_default():
    assert mixed(dict(pipeline=PIPELINE))['batch_sampler']['unlabelled'] == 2


def test_what_a_batch_sampler_cannot_be_given_is_the_mixed_ones():
    own = dict(type='SomeSampler')
    result = mixed(dict(pipeline=PIPELINE), dict(batch_sampler=own, drop_last=True))
    assert result['batch_sampler'] == dict(
        type='mmkd_plugin.MixedBatchSampler', unlabelled=2, batch_sampler=own, drop_last=True
    )
    assert 'drop_last' not in result


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='RepeatDataset', times=3, dataset=dict(pipeline=PIPELINE)),
        dict(type='ConcatDataset', datasets=[dict(pipeline=PIPELINE), dict(pipeline=PIPELINE)]),
        ConfigDict(type='RepeatDataset', times=3, dataset=dict(pipeline=PIPELINE)),
    ],
)
def test_pipeline_is_found_inside_wrappers(dataset):
    assert mixed(dataset)['dataset']['unlabelled']['pipeline'] == DERIVED


def test_labels_are_left_out_of_steps_inside_steps():
    class LoadAnnotations:
        """A transform that is named by its class."""

    steps = [LOAD, dict(type='RandomChoice', transforms=[[dict(type=LoadAnnotations)], [PIPELINE[1]]])]
    derived = mixed(dict(pipeline=steps))['dataset']['unlabelled']['pipeline']
    nothing = dict(type='mmkd_plugin.NoLabels')
    assert derived == [LOAD, dict(type='RandomChoice', transforms=[[nothing], [nothing]])]


@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        (dict(type='TinyMaps'), 'has no pipeline; write'),
        (
            dict(type='ConcatDataset', datasets=[dict(pipeline=PIPELINE), dict(pipeline=[LOAD])]),
            'has several pipelines; write',
        ),
        (
            dict(type='MultiImageMixDataset', dataset=dict(pipeline=PIPELINE), pipeline=[dict(type='RandomMosaic')]),
            'has several pipelines; write',
        ),
    ],
)
def test_pipeline_that_is_not_one_is_asked_for(dataset, message):
    with pytest.raises(DistillError, match=f'{message} the pipeline .* distill.unlabelled.pipeline'):
        mixed(dataset)
    assert mixed(dataset, pipeline=PIPELINE)['dataset']['unlabelled']['pipeline'] == DERIVED


@pytest.mark.parametrize('dataloader', [None, object(), dict(dataset=object(), batch_size=2)])
def test_dataloader_that_is_no_config_is_one_sentence(dataloader):
    with pytest.raises(DistillError, match='must be a config, a dict with a dict under "dataset"'):
        mix_unlabelled(dataloader, UnlabelledBlock('some/folder'))


@pytest.mark.parametrize(
    ('unlabelled', 'message'),
    [
        (dict(), '"distill.unlabelled.images" is missing'),
        (dict(images=3), '"distill.unlabelled.images" is 3; it must be a text'),
        (dict(image='x'), '"distill.unlabelled.image" is not a key .*did you mean "images"'),
        (dict(images='x', batch_size=0), '"distill.unlabelled.batch_size" is 0; .*of at least 1'),
        ('x', '"distill.unlabelled" is .x.; it must be a dict'),
    ],
)
def test_mistakes_are_one_sentence(unlabelled, message):
    with pytest.raises(DistillError, match=message):
        DistillBlock.parse(block(dict(type='PixelWise'), unlabelled=unlabelled))


def test_method_that_leaves_out_what_has_no_label_is_refused():
    ignoring = block(dict(type='PSPNetKD', ignore=True), unlabelled=dict(images='x'))
    with pytest.raises(DistillError, match='"distill.methods.seg.ignore" leaves out .*; set it to False'):
        DistillBlock.parse(ignoring)
    ignoring['methods']['seg']['ignore'] = False
    assert DistillBlock.parse(ignoring).unlabelled == UnlabelledBlock('x')
