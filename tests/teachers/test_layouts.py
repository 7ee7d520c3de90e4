"""A teacher's file loads in every layout that zoos, training and other people's code leave behind."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _helpers.layouts import State, authors_fgd, below, trained
from _helpers.tiny import block, build, faster_rcnn, retinanet, run_config
from _helpers.tiny_families import fcos
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers import build_teacher, local_file, plain_state_dict


def load(folder: Path, content: Any, config: dict, prefix: str | None = None) -> tuple[nn.Module, str]:
    """What the plugin makes of a file, and what it says."""
    torch.save(content, folder / 'teacher.pth')
    teacher = build_teacher(ConfigDict(config), str(folder / 'teacher.pth'), prefix=prefix)
    return teacher.model, teacher.report


def versions(state: Any) -> dict:
    """Those of the modules that wrote a state."""
    return state._metadata


def assert_same(model: nn.Module, wanted: nn.Module | dict[str, Tensor]) -> None:
    state = wanted.state_dict() if isinstance(wanted, nn.Module) else wanted
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_zoo_of_mmdetection_2(tmp_path: Path) -> None:
    model = trained(retinanet())
    meta = dict(mmdet_version='2.3.0', CLASSES=('a', 'b'), config='model = dict()', epoch=12, iter=100)
    loaded, report = load(tmp_path, dict(meta=meta, state_dict=model.state_dict(), optimizer={}), retinanet())
    assert_same(loaded, model)
    assert report.endswith('teacher.pth')


def test_weights_alone(tmp_path: Path) -> None:
    model = trained(retinanet())
    assert_same(load(tmp_path, model.state_dict(), retinanet())[0], model)


@pytest.mark.parametrize('wrapped', [True, False], ids=['state_dict', 'bare'])
def test_module_of_data_parallel(tmp_path: Path, wrapped: bool) -> None:
    model = trained(retinanet())
    state = nn.DataParallel(model).state_dict()
    assert all(key.startswith('module.') for key in state)
    loaded, report = load(tmp_path, dict(state_dict=state) if wrapped else state, retinanet())
    assert_same(loaded, model)
    assert 'its part "module"' in report and 'not used' not in report


def test_versions_of_modules_follow_their_keys() -> None:
    model = trained(fcos())
    assert versions(model.state_dict())['bbox_head']['version'] == 1
    for state in (model.state_dict(), nn.DataParallel(model).state_dict()):
        assert versions(plain_state_dict(state, model).state) == versions(model.state_dict())


def test_predictors_of_fcos_under_former_names(tmp_path: Path) -> None:
    model = trained(fcos())
    # Written by hand, as files of the first versions hold no versions.
    old = State((re.sub(r'bbox_head\.conv_(cls|reg|centerness)', r'bbox_head.fcos_\1', key), value)
                for key, value in model.state_dict().items())  # fmt: skip
    assert 'bbox_head.fcos_cls.weight' in old and 'bbox_head.conv_cls.weight' not in old
    assert_same(load(tmp_path, dict(state_dict=old), fcos())[0], model)
    assert_same(load(tmp_path, dict(state_dict=below('module', old)), fcos())[0], model)


def zoo(name: str, **changes: Any) -> dict:
    """A model of the zoo with a small backbone."""
    init_default_scope('mmdet')
    config = Config.fromfile(local_file(f'mmdet::{name}'))
    config.model.backbone.update(depth=18, init_cfg=None)
    config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    config.model._scope_ = 'mmdet'
    return config.model


def layers(of_2: str, of_3: str, attentions: tuple[str, ...]) -> dict[str, str]:
    """What MMDetection 2 calls the first layer of a transformer, by what MMDetection 3 does."""
    names = {f'{of_3}.layers.0.{name}.': f'{of_2}.layers.0.attentions.{i}.' for i, name in enumerate(attentions)}
    return {
        **names,
        f'{of_3}.layers.0.ffn.': f'{of_2}.layers.0.ffns.0.',
        f'{of_3}.layers.0.norms.': f'{of_2}.layers.0.norms.',
    }


SMALL = [512, 128, 256, 512]
LAYERS: dict[str, Any] = {'encoder.num_layers': 1, 'decoder.num_layers': 1}
BOX = 'bbox_head.transformer'
MASK = 'panoptic_head'
SELF, CROSS = 'self_attn', 'cross_attn'
# The right-hand sides are keys of models that MMDetection 2.28 built.
FORMER = {
    'yolact': (
        lambda: zoo('yolact/yolact_r50_1xb8-55e_coco.py', **{'neck.in_channels': [64, 128, 256, 512]}),
        {'mask_head.segm_branch.': 'segm_head.'},
    ),
    'detr': (
        lambda: zoo('detr/detr_r50_8xb2-150e_coco.py', **LAYERS, **{'neck.in_channels': [512]}),
        {
            **layers(f'{BOX}.encoder', 'encoder', (SELF,)),
            **layers(f'{BOX}.decoder', 'decoder', (SELF, CROSS)),
            'decoder.post_norm.': f'{BOX}.decoder.post_norm.',
            'neck.convs.0.conv.': 'bbox_head.input_proj.',
            'query_embedding.': 'bbox_head.query_embedding.',
        },
    ),
    'deformable_detr': (
        lambda: zoo(
            'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
            **LAYERS,
            **{'neck.in_channels': SMALL[1:]},
        ),
        {
            **layers(f'{BOX}.encoder', 'encoder', (SELF,)),
            **layers(f'{BOX}.decoder', 'decoder', (SELF, CROSS)),
            'level_embed': f'{BOX}.level_embeds',
            'memory_trans_fc.': f'{BOX}.enc_output.',
            'memory_trans_norm.': f'{BOX}.enc_output_norm.',
            'pos_trans_fc.': f'{BOX}.pos_trans.',
            'pos_trans_norm.': f'{BOX}.pos_trans_norm.',
        },
    ),
    'deformable_detr_plain': (
        lambda: zoo(
            'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', **LAYERS, **{'neck.in_channels': SMALL[1:]}
        ),
        {
            **layers(f'{BOX}.encoder', 'encoder', (SELF,)),
            **layers(f'{BOX}.decoder', 'decoder', (SELF, CROSS)),
            'level_embed': f'{BOX}.level_embeds',
            'query_embedding.': 'bbox_head.query_embedding.',
            'reference_points_fc.': f'{BOX}.reference_points.',
        },
    ),
    'maskformer': (
        lambda: zoo(
            'maskformer/maskformer_r50_ms-16xb1-75e_coco.py',
            **{
                f'{MASK}.in_channels': [64, 128, 256, 512],
                f'{MASK}.pixel_decoder.encoder.num_layers': 1,
                f'{MASK}.transformer_decoder.num_layers': 1,
            },
        ),
        {
            **layers(f'{MASK}.pixel_decoder.encoder', f'{MASK}.pixel_decoder.encoder', (SELF,)),
            **layers(f'{MASK}.transformer_decoder', f'{MASK}.transformer_decoder', (SELF, CROSS)),
        },
    ),
    # Here the queries look at the image first.
    'mask2former': (
        lambda: zoo(
            'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
            **{
                f'{MASK}.in_channels': [64, 128, 256, 512],
                f'{MASK}.pixel_decoder.encoder.num_layers': 1,
                f'{MASK}.transformer_decoder.num_layers': 1,
            },
        ),
        {
            **layers(f'{MASK}.pixel_decoder.encoder', f'{MASK}.pixel_decoder.encoder', (SELF,)),
            **layers(f'{MASK}.transformer_decoder', f'{MASK}.transformer_decoder', (CROSS, SELF)),
        },
    ),
}


@pytest.mark.parametrize('name', FORMER)
def test_keys_of_mmdetection_2(tmp_path: Path, name: str) -> None:
    config, former = FORMER[name]
    model = trained(config())
    old = State()
    for key, value in model.state_dict().items():
        start = next((start for start in former if key.startswith(start)), '')
        old[former.get(start, '') + key[len(start) :]] = value
    changed = len(set(old) - set(model.state_dict()))
    assert changed and len(old) == len(model.state_dict())
    loaded, report = load(tmp_path, dict(state_dict=old), config())
    assert_same(loaded, model)
    assert f', {changed} keys of MMDetection 2 renamed' in report and 'not used' not in report


def test_caffe_style(tmp_path: Path) -> None:
    config = retinanet(depth=50, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
    config['backbone'].update(style='caffe', norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False))
    model = trained(config)
    assert_same(load(tmp_path, dict(state_dict=model.state_dict()), config)[0], model)


@pytest.mark.parametrize('layout', ['caffe', 'torchvision', 'classifier', 'backbone'])
def test_backbone_alone_is_refused(tmp_path: Path, layout: str) -> None:
    bare = State(MODELS.build(retinanet()['backbone']).state_dict())
    if layout == 'caffe':
        bare = State((key, value) for key, value in bare.items() if 'num_batches' not in key)
    if layout == 'torchvision':
        bare.update({'fc.weight': torch.ones(1000, 8), 'fc.bias': torch.ones(1000)})
    if layout in ('classifier', 'backbone'):
        bare = below('backbone', bare)
    if layout == 'classifier':
        bare['head.fc.weight'] = torch.ones(1000, 8)
    with pytest.raises(
        DistillError, match=r'holds a backbone alone \(such as "(backbone\.)?conv1\.weight"\); give the'
    ):
        load(tmp_path, dict(state_dict=bare), retinanet())


def test_ema_of_mmengine(tmp_path: Path) -> None:
    model = trained(retinanet())
    hook = EMAHook()
    runner = SimpleNamespace(model=model)
    hook.before_run(runner)
    averages = trained(retinanet(), seed=2)
    hook.ema_model.module.load_state_dict(averages.state_dict())
    checkpoint = dict(state_dict=model.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    assert 'module.backbone.conv1.weight' in checkpoint['ema_state_dict']
    assert_same(load(tmp_path, checkpoint, retinanet())[0], averages)


def test_ema_of_mmcv_1(tmp_path: Path) -> None:
    averages, plain = trained(retinanet()).state_dict(), trained(retinanet(), seed=2).state_dict()
    # At the end of an epoch its hook swaps: the buffers hold what was averaged.
    buffers = {f'ema_{key.replace(".", "_")}': value for key, value in plain.items()}
    loaded, report = load(tmp_path, dict(state_dict=State({**averages, **buffers})), retinanet())
    assert_same(loaded, averages)
    assert f', {len(buffers)} entries of the file not used' in report


@pytest.mark.parametrize(('depth', 'part'), [(18, 'student'), (34, 'teacher')])
def test_authors_fgd(tmp_path: Path, depth: int, part: str) -> None:
    models = dict(student=trained(retinanet()), teacher=trained(retinanet(depth=34), seed=2))
    # All blocks of ResNet-18 are in ResNet-34 too.
    assert models['student'].state_dict().keys() < models['teacher'].state_dict().keys()
    loaded, report = load(tmp_path, authors_fgd(**models), retinanet(depth=depth))
    assert_same(loaded, models[part])
    assert f'its part "{part}"' in report


def test_authors_fgd_of_models_alike(tmp_path: Path) -> None:
    models = dict(student=trained(retinanet()), teacher=trained(retinanet(), seed=2))
    content = authors_fgd(**models)
    with pytest.raises(
        DistillError,
        match=r'teacher\.pth" holds 2 models that fit RetinaNet alike, "teacher" and "student"; say which by '
        r'distill\.teacher_prefix\.$',
    ):
        load(tmp_path, content, retinanet())
    for part, model in models.items():
        assert_same(load(tmp_path, content, retinanet(), part)[0], model)


def test_authors_fgd_of_another_model_is_refused(tmp_path: Path) -> None:
    content = authors_fgd(trained(retinanet()), trained(retinanet(depth=34)))
    with pytest.raises(
        DistillError, match=r'its part "\w+" fills \d+ of \d+ entries of RetinaNet \("neck.*" has the sh'
    ):
        load(tmp_path, content, retinanet(24))


def test_stray_keys_are_no_models(tmp_path: Path) -> None:
    state = {f'{part}.neck.fpn_convs.0.conv.bias': torch.ones(16) for part in ('left', 'right')}
    with pytest.raises(DistillError, match=r'fills 1 of \d+ entries of RetinaNet \("backbone.conv1.weight" is missing'):
        load(tmp_path, dict(state_dict=state), retinanet())


def test_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    content = authors_fgd(trained(retinanet()), trained(retinanet(depth=34)))
    with pytest.raises(DistillError, match='has no part "studnet"; did you mean "student"'):
        load(tmp_path, content, retinanet(), 'studnet')
    with pytest.raises(DistillError, match='has no part "student"; leave the prefix out'):
        load(tmp_path, trained(retinanet()).state_dict(), retinanet(), 'student')


def test_mmrazor(tmp_path: Path) -> None:
    student, teacher = trained(retinanet()), trained(retinanet(24), seed=2)
    state = State({**below('architecture', student.state_dict()), **below('teacher', teacher.state_dict())})
    state['distiller.connectors.neck.conv.weight'] = torch.ones(24, 16, 1, 1)
    assert_same(load(tmp_path, dict(state_dict=state), retinanet())[0], student)
    assert_same(load(tmp_path, dict(state_dict=state), retinanet(24))[0], teacher)


def test_wrappers_within_wrappers(tmp_path: Path) -> None:
    model = trained(retinanet())
    state = below('module.architecture', model.state_dict())
    assert_same(load(tmp_path, dict(state_dict=state), retinanet())[0], model)


def test_plain_keys_come_before_a_copy(tmp_path: Path) -> None:
    model, copied = trained(retinanet()), trained(retinanet(), seed=2)
    state = State({**below('ema_model.module', copied.state_dict()), **model.state_dict()})
    assert_same(load(tmp_path, dict(state_dict=state), retinanet())[0], model)


def test_model_with_more_heads_gives_its_common_part(tmp_path: Path) -> None:
    model = trained(faster_rcnn())
    more = State({**model.state_dict(), 'roi_head.mask_head.conv_logits.weight': torch.ones(2, 16, 1, 1)})
    loaded, report = load(tmp_path, dict(state_dict=more), faster_rcnn())
    assert_same(loaded, model)
    assert report.endswith(', 1 entries of the file not used')


def test_deeper_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r'has a deeper backbone than .* \("backbone\.layer1\.2\.conv1\.weight" has'):
        load(tmp_path, dict(state_dict=trained(retinanet(depth=34)).state_dict()), retinanet())


def test_file_of_mmdetection_1_names_the_converter(tmp_path: Path) -> None:
    old = State((re.sub(r'^roi_head\.', '', key), value) for key, value in trained(faster_rcnn()).state_dict().items())
    with pytest.raises(DistillError, match=r'was written by MMDetection 1 .*upgrade_model_version\.py\.$'):
        load(tmp_path, dict(state_dict=old), faster_rcnn())


def test_the_block_names_the_part(tmp_path: Path) -> None:
    models = {name: MODELS.build(retinanet(24)) for name in ('student', 'teacher')}
    torch.save(authors_fgd(**models), tmp_path / 'fgd.pth')
    values = dict(
        teacher=retinanet(24),
        teacher_ckpt=str(tmp_path / 'fgd.pth'),
        teacher_prefix='student',
        teacher_options=dict(fuse_bn=False),
    )
    config = run_config(tmp_path / 'run', iterations=1, distill=block(**values))
    runner = build(config)
    runner.train()
    assert_same(runner.model.teacher.model, models['student'])
    printed = expand_config(config)
    assert printed.model.teachers.teacher.teacher_prefix == 'student'
    assert_same(MODELS.build(printed.model).teacher.model, models['student'])
