"""The zoo sweep: what it makes of configs, how it keeps results, and what it writes."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from rich.progress import Progress

from benchmarks.zoo import sweep as sweep_module
from benchmarks.zoo.language import WORDS, names
from benchmarks.zoo.page import page, summary
from benchmarks.zoo.samples import GeneratedImages, needs, walk
from benchmarks.zoo.shrink import offline, one_step_config, wider
from benchmarks.zoo.sweep import Family, Limits, families, sweep, zoo_folder
from benchmarks.zoo.trial import FAILS, LEFT_OUT, STOCK, WORKS, OneStep, Trial, _compare, try_config
from mmkd_plugin.compat.stacks import distribution_of, read_stacks
from mmkd_plugin.errors import DistillError

pytestmark = pytest.mark.slow


def zoo(name: str, package: str = 'mmdet') -> Config:
    return Config.fromfile(zoo_folder(package) / name)


@pytest.mark.parametrize(
    ('package', 'config', 'methods'),
    [
        ('mmdet', 'yolox/yolox_nano_8xb8-300e_coco.py', {'FGD': WORKS, 'FGI': '-'}),
        ('mmdet', 'qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py', {'FGD': WORKS, 'FGI': WORKS}),
        ('mmseg', 'cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py', {'PixelWise': WORKS, 'PairWise': WORKS}),
    ],
)
def test_a_config_is_tried(package, config, methods):
    trial = try_config(package, config)
    assert (trial.outcome, trial.methods, trial.reason) == (WORKS, methods, '')


def test_what_cannot_be_tried_is_told_apart():
    assert try_config('mmdet', 'yolox/yolox_tta.py').outcome == LEFT_OUT
    assert try_config('mmdet', 'cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco.py').outcome == LEFT_OUT
    assert try_config('mmdet', 'reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20.py').outcome == LEFT_OUT
    clip = try_config('mmseg', 'san/san-vit-b16_coco-stuff164k-640x640.py')
    assert (clip.outcome, clip.reason) == (STOCK, 'needs the weights of CLIP, which cannot be fetched here')
    absent = try_config('mmdet', 'yolox/absent.py')
    assert absent.outcome == STOCK and 'cannot be read' in absent.reason


def test_faults_of_ours_are_no_faults_of_the_stock_model(monkeypatch):
    def one_step(cfg, package, size):
        if 'distill' in cfg:
            raise DistillError('No level.')
        return OneStep({'loss': 1.0}, 3)

    monkeypatch.setattr('benchmarks.zoo.trial.one_step', one_step)
    trial = try_config('mmdet', 'yolox/yolox_nano_8xb8-300e_coco.py')
    assert (trial.outcome, trial.methods['FGD'], trial.reason) == (FAILS, 'No level.', 'FGD: No level. FGI: No level.')


@pytest.mark.parametrize(
    ('distilled', 'said'),
    [
        ({'loss': 3.0, 'loss_cls': 1.0, 'distill.loss_fgd': 2.0}, WORKS),
        ({'loss': 3.0, 'loss_cls': 1.1, 'distill.loss_fgd': 2.0}, "the student's own loss_cls is 1.1 instead of 1"),
        ({'loss': 3.0, 'distill.loss_fgd': 2.0}, "the student's own loss_cls is nan instead of 1"),
        ({'loss': 1.0, 'loss_cls': 1.0}, 'the distillation terms are missing or not finite'),
    ],
)
def test_distillation_leaves_the_students_losses_alone(distilled, said):
    assert _compare({'loss': 1.0, 'loss_cls': 1.0}, distilled) == said


def test_annotations_follow_the_pipeline():
    boxes = needs(zoo('retinanet/retinanet_r50_fpn_1x_coco.py'), 'mmdet', 64)
    assert (boxes['classes'], boxes['masks'], boxes['semantic'], boxes['frames']) == (80, False, None, 0)
    stuff = needs(zoo('htc/htc_r50_fpn_1x_coco.py'), 'mmdet', 64)
    assert (stuff['masks'], stuff['semantic'][0]) == (True, 0)
    panoptic = needs(zoo('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'), 'mmdet', 64)
    assert (panoptic['masks'], panoptic['semantic']) == (True, (80, 133))
    assert needs(zoo('qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py'), 'mmdet', 64)['frames'] == 2
    images = zoo('ocsort/ocsort_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval.py')
    assert needs(images, 'mmdet', 64)['frames'] == 0
    maps = needs(zoo('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'mmseg'), 'mmseg', 64)
    assert maps['classes'] == 19


def test_objects_lie_inside_their_images():
    data = GeneratedImages('mmdet', 64, 5, masks=True, semantic=(5, 8))
    for index, shape in enumerate([(64, 64), (56, 48)]):
        sample = data[index]['data_samples']
        boxes, masks = sample.gt_instances.bboxes, sample.gt_instances.masks.masks
        assert data[index]['inputs'].shape == (3, *shape) == (3, *sample.img_shape)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes[:, 2] <= shape[1]).all() and (boxes[:, 3] <= shape[0]).all()
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        assert np.allclose(masks.sum((1, 2)), area, rtol=0.4) and sample.gt_instances.labels.max() < 5
        labels = sample.gt_sem_seg.sem_seg
        assert labels.shape == (1, *shape) and 5 <= labels.min() <= labels.max() < 8


def test_images_have_one_size_where_the_config_makes_them_so():
    assert needs(zoo('yolact/yolact_r50_1xb8-55e_coco.py'), 'mmdet', 64)['one_size']
    assert not needs(zoo('retinanet/retinanet_r50_fpn_1x_coco.py'), 'mmdet', 64)['one_size']
    data = GeneratedImages('mmdet', 64, 5, one_size=True)
    assert data[0]['inputs'].shape == data[1]['inputs'].shape == (3, 64, 64)


def test_classes_are_named_for_detectors_that_read():
    asked = needs(zoo('grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py'), 'mmdet', 64)
    assert asked['text'] and asked['classes'] == 80
    sample = GeneratedImages('mmdet', 64, 5, text=True)[0]['data_samples']
    assert len(sample.text) == 5 and sample.custom_entities
    assert 'text' not in GeneratedImages('mmdet', 64, 5)[0]['data_samples']


def test_clips_and_label_maps():
    clip = GeneratedImages('mmdet', 64, 2, frames=2)[0]
    assert clip['inputs'].shape == (2, 3, 64, 64) and len(clip['data_samples'].video_data_samples) == 2
    labels = GeneratedImages('mmseg', 32, 4)[0]['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, 32, 32) and labels.max() < 4


def test_nothing_is_downloaded_and_the_model_stays_otherwise():
    cfg = zoo('retinanet/retinanet_r50_fpn_1x_coco.py')
    model = offline(cfg.model)
    assert cfg.model.backbone.pop('init_cfg').type == 'Pretrained'
    assert model.backbone.pop('init_cfg') is None
    assert model == cfg.model
    run = one_step_config(zoo('swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'), 'mmdet', 64, Path('unused'))
    assert run.optim_wrapper.type == 'OptimWrapper' and 'paramwise_cfg' in run.optim_wrapper


def test_models_are_for_one_process_and_need_no_network():
    folder = 'strong_baselines/mask-rcnn_r50-caffe_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py'
    norms = {str(node['type']) for node in walk(zoo(folder).model) if 'BN' in str(node.get('type'))}
    assert 'MMSyncBN' in norms
    assert {str(node['type']) for node in walk(offline(zoo(folder).model)) if 'BN' in str(node.get('type'))} == {'BN'}
    pvt = offline(zoo('pvt/retinanet_pvt-t_fpn_1x_coco.py').model)
    assert pvt.backbone.init_cfg is None
    model = offline(
        dict(type='SOLO', backbone=dict(type='mmpretrain.ConvNeXt', ckpt='mmpretrain::a.py', pretrained=True))
    )
    assert dict(model.backbone) == dict(type='mmpretrain.ConvNeXt', ckpt=None, pretrained=False)


def test_a_small_text_encoder_takes_the_place_of_one_that_would_be_downloaded():
    transformers = pytest.importorskip('transformers')
    state = torch.get_rng_state()
    model = offline(dict(type='GLIP', language_model=dict(type='BertModel', name='bert-base-uncased')))
    folder = model.language_model.name
    assert torch.equal(torch.get_rng_state(), state)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)('. '.join(names(WORDS)) + '.')['input_ids']
    assert (
        len(tokens) == 2 * WORDS + 2
        and transformers.BertTokenizerFast.from_pretrained(folder).unk_token_id not in tokens
    )
    encoder = transformers.BertModel.from_pretrained(folder)
    assert encoder(torch.tensor([tokens])).last_hidden_state.shape == (1, 2 * WORDS + 2, 768)


def test_wider_teachers():
    model = wider(zoo('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model)
    assert (model.neck.out_channels, model.rpn_head.in_channels, model.roi_head.bbox_head.in_channels) == (384,) * 3
    assert model.neck.in_channels == [256, 512, 1024, 2048] and model.backbone.depth == 50
    head = wider(zoo('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'mmseg').model).decode_head
    assert (head.channels, head.in_channels) == (768, 2048)
    assert wider(zoo('ssd/ssd300_coco.py').model) is None


def test_families():
    found = families('mmdet', ['retinanet'])
    assert list(found) == ['retinanet'] and found['retinanet'][0].startswith('retinanet/retinanet_r18')
    assert '_base_' not in families('mmseg')
    with pytest.raises(DistillError, match='"retinanets" is no family.*retinanet'):
        families('mmdet', ['retinanets'])
    with pytest.raises(DistillError, match='no installed package'):
        zoo_folder('mmpose')


def end_by_signal(package, name, result, *rest):
    signal.raise_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ('limits', 'reason'), [(Limits(seconds=0.01), 'not done in 0.01 seconds'), (Limits(), 'SIGKILL')]
)
def test_a_crash_or_a_hang_does_not_end_the_sweep(tmp_path, monkeypatch, limits, reason):
    monkeypatch.setattr(sweep_module.multiprocessing, 'get_context', lambda kind: _Fork())
    monkeypatch.setattr(sweep_module, 'try_and_write', end_by_signal)
    with Progress(disable=True) as progress:
        (family,) = sweep('mmdet', {'a': ['a/b.py']}, tmp_path, progress, limits=limits)
    assert family.result.outcome == FAILS and reason in family.result.reason


class _Fork:
    """Processes without a start-up time."""

    def __init__(self):
        import multiprocessing.context

        self.Process = multiprocessing.context.ForkProcess

    def set_forkserver_preload(self, names):
        pass


def test_results_are_kept_and_one_that_decides_is_enough(tmp_path):
    trials = [Trial('a/1.py', STOCK, 'no CUDA'), Trial('a/2.py', WORKS), Trial('a/3.py', FAILS, 'ours')]
    for trial in trials:
        (tmp_path / trial.config.replace('/', '__')).with_suffix('.json').write_text(
            json.dumps(dataclasses.asdict(trial))
        )
    chosen = {'a': [trial.config for trial in trials]}
    with Progress(disable=True) as progress:
        (some,) = sweep('mmdet', chosen, tmp_path, progress)
        (every,) = sweep('mmdet', chosen, tmp_path, progress, every=True)
    assert some == Family('a', tuple(trials[:2])) and some.result.outcome == WORKS
    assert every.result.reason == 'ours'


def test_page():
    found = [
        Family('a', (Trial('a/x.py', WORKS, methods={'FGD': WORKS, 'FGI': '-'}, teacher='same width'),)),
        Family('b', (Trial('b/x.py', FAILS, 'FGD: no | level', methods={'FGD': 'no | level', 'FGI': WORKS}),)),
        Family('c', (Trial('c/x.py', LEFT_OUT, 'no neck'), Trial('c/y.py', STOCK, 'needs CUDA'))),
        Family('d', (Trial('d/x.py', LEFT_OUT, 'no neck'),)),
    ]
    assert summary(found).startswith('1 of 2 families that train alone can be distilled (50.0 %); 1 cannot')
    text = page('mmdet', found)
    assert '| a | works | works | - | same width | `x.py` |  |' in text
    assert '| b | does not work | no | works | - | `x.py` | FGD: no \\| level |' in text
    assert '| c | stock cannot train | - | - | - | `y.py` | needs CUDA |' in text
    assert torch.__version__ in text and 'more families of the zoo have not been tried yet' in text


@pytest.mark.parametrize(('stack', 'command'), [('default', 'make zoo`'), ('forks', 'make zoo STACK=forks`')])
def test_a_page_tells_its_stack(monkeypatch, stack, command):
    chosen = read_stacks()[stack]
    installed = {chosen.distribution('mmcv'): '2.9.9', 'timm': '1.0', distribution_of(chosen.optional[0]): ''}
    monkeypatch.setattr('benchmarks.zoo.page.installed_stack', lambda: chosen)
    monkeypatch.setattr('benchmarks.zoo.page._version', lambda name: installed.get(name, ''))
    text = page('mmseg', [])
    assert f'Written by `{command} on a CPU, in the stack `{stack}` ({chosen.about})' in text
    assert f'{chosen.distribution("mmcv")} 2.9.9' in text
    assert 'Optional packages: timm 1.0, no torchvision' in text
