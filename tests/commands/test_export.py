"""A checkpoint of any layout becomes the file of a plain stock model, or one sentence and no file."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from _helpers import tiny, tiny_seg
from _helpers.layouts import State, authors_fgd, below
from _helpers.tiny import retinanet
from _helpers.tiny_families import fcos
from mmdet.apis import DetInferencer
from mmdet.models import RetinaNet
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from mmkd_plugin.__main__ import main
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.study.made_up import outputs_of

ROOT = Path(__file__).resolve().parents[2]
META = dict(dataset_meta=dict(classes=('square', 'bar'), palette=np.array([[1, 2, 3], [4, 5, 6]])))


def filled(config: dict, seed: int = 1) -> BaseModel:
    """A model whose every weight is its own."""
    init_default_scope(config['_scope_'])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(ConfigDict(copy.deepcopy(config)))
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.02 * torch.rand(value.shape) - 0.01)
    model.eval()
    return model


def config_file(folder: Path, model: dict, name: str = 'stock.py', **more: Any) -> Path:
    Config(dict(default_scope=model.get('_scope_', 'mmdet'), model=model, **more)).dump(folder / name)
    return folder / name


def export(folder: Path, content: Any, model: dict, *options: str) -> Path:
    """What the command makes of a file."""
    torch.save(content, folder / 'run.pth')
    arguments = [folder / 'run.pth', '--config', config_file(folder, model), '--out', folder / 'plain.pth', *options]
    assert main(['export', *map(str, arguments)]) == 0
    return folder / 'plain.pth'


def assert_plain(path: Path, config: dict, wanted: dict[str, Tensor]) -> None:
    """Stock code loads the file strictly, and gets the outputs of a model that was given these weights by hand."""
    content = torch.load(path, weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    stock, by_hand = filled(config, 7), filled(config, 8)
    load_checkpoint(stock, str(path), strict=True)
    by_hand.load_state_dict(wanted, strict=True)
    for key, value in by_hand.state_dict().items():
        assert torch.equal(stock.state_dict()[key], value), key
    name, outputs = outputs_of(stock)
    _, same = outputs_of(by_hand)
    assert name == 'outputs' and len(outputs) == len(same) > 0
    assert all(map(torch.equal, outputs, same))


def test_other_weights_give_other_outputs() -> None:
    """The comparison of outputs can fail."""
    for config in (retinanet(), tiny.faster_rcnn(), tiny_seg.pspnet()):
        name, outputs = outputs_of(filled(config))
        _, others = outputs_of(filled(config, 2))
        assert name == 'outputs' and all(bool(torch.isfinite(output).all()) for output in outputs)
        assert not all(map(torch.equal, outputs, others))


def test_distilled_run_with_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = [dict(type='EMAHook', momentum=0.5, update_buffers=True)]
    run = tiny.run_config(tmp_path / 'run', iterations=2, distill=tiny.block(), custom_hooks=hooks)
    tiny.build(run).train()
    run.dump(tmp_path / 'run.py')
    source = tmp_path / 'run/iter_2.pth'
    saved = load_checkpoint_file(str(source))
    averages = saved['state_dict']
    raw = {key[len('module.') :]: value for key, value in saved['ema_state_dict'].items() if key.startswith('module.')}
    assert not torch.equal(averages['neck.lateral_convs.0.conv.weight'], raw['neck.lateral_convs.0.conv.weight'])
    capsys.readouterr()
    # The config of the run stands for its student; without --out the file lies beside the checkpoint.
    assert main(['export', str(source), '--config', str(tmp_path / 'run.py')]) == 0
    printed = capsys.readouterr().out
    assert_plain(tmp_path / 'run/iter_2_student.pth', retinanet(), averages)
    count = len(averages)
    assert re.search(rf'iter_2\.pth: {count} entries, \d\.\d\d MiB, the averages of EMAHook\n', printed)
    assert re.search(r'Left out: .*distill_state', printed) and re.search(r'Left out: .*optimizer', printed)
    assert 'Loaded strictly into the stock RetinaNet: outputs on a made-up image are equal.' in printed
    assert re.search(rf'iter_2_student\.pth: {count} entries, \d\.\d\d MiB\n', printed)
    meta = load_checkpoint_file(str(tmp_path / 'run/iter_2_student.pth'))['meta']
    assert meta == dict(dataset_meta=dict(classes=tiny.CLASSES))


def test_run_of_mmrazor_on_a_segmentor(tmp_path: Path) -> None:
    logits = dict(type='mmrazor.ModuleOutputs', source='decode_head.conv_seg')
    mapping = {role: dict(recorder='logits', from_student=role == 'preds_S') for role in ('preds_S', 'preds_T')}
    algorithm = dict(
        type='mmrazor.SingleTeacherDistill',
        architecture=tiny_seg.pspnet(),
        teacher=tiny_seg.pspnet(24),
        distiller=dict(
            type='mmrazor.ConfigurableDistiller',
            student_recorders=dict(logits=logits),
            teacher_recorders=dict(logits=logits),
            distill_losses=dict(loss_kl=dict(type='mmrazor.ChannelWiseDivergence')),
            loss_forward_mappings=dict(loss_kl=mapping),
        ),
    )
    cfg = tiny_seg.run_config(tmp_path / 'run', iterations=1, model=algorithm)
    cfg.pop('runner_type')
    tiny.build(cfg).train()
    saved = load_checkpoint_file(str(tmp_path / 'run/iter_1.pth'))
    for part, prefix, config in (
        ('student', 'architecture.', tiny_seg.pspnet()),
        ('teacher', 'teacher.', tiny_seg.pspnet(24)),
    ):
        wanted = {key[len(prefix) :]: value for key, value in saved['state_dict'].items() if key.startswith(prefix)}
        assert_plain(export(tmp_path, saved, config, '--part', part), config, wanted)


def test_authors_fgd_of_models_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = dict(student=filled(retinanet()), teacher=filled(retinanet(), 2))
    content = authors_fgd(**models)
    content['meta'].update(CLASSES=('square', 'bar'))
    path = export(tmp_path, content, retinanet())
    lines = capsys.readouterr().out.splitlines()
    own = models['student'].state_dict()
    assert_plain(path, retinanet(), own)
    assert load_checkpoint_file(str(path))['meta'] == dict(dataset_meta=dict(classes=('square', 'bar')))
    assert re.search(rf'run\.pth: {len(content["state_dict"])} entries, \d\.\d\d MiB, its part "student"$', lines[0])
    assert lines[1] == 'Left out: optimizer.' and f'plain.pth: {len(own)} entries, ' in lines[-1]
    for part in ('teacher', 'student', 'teacher.'):
        path = export(tmp_path, content, retinanet(), '--part', part)
        assert_plain(path, retinanet(), models[part.rstrip('.')].state_dict())


def of_data_parallel(model: nn.Module) -> dict:
    return nn.DataParallel(model).state_dict()


def of_mmcv_1(model: nn.Module) -> dict:
    buffers = {f'ema_{key.replace(".", "_")}': torch.zeros(1) for key in model.state_dict()}
    return {**model.state_dict(), **buffers}


def beside_a_copy(model: nn.Module) -> dict:
    copied = filled(retinanet(), 2).state_dict()
    return {**below('ema_model.module', copied), 'ema_model.steps': torch.tensor(3), **model.state_dict()}


def without_counters(model: nn.Module) -> dict:
    return {key: value for key, value in model.state_dict().items() if 'num_batches_tracked' not in key}


@pytest.mark.parametrize(
    ('layout', 'bare'),
    [(of_data_parallel, True), (of_mmcv_1, False), (beside_a_copy, False), (without_counters, True)],
    ids=['data parallel', 'mmcv 1', 'beside a copy', 'without counters'],
)
def test_layout(tmp_path: Path, layout: Callable[[nn.Module], dict], bare: bool) -> None:
    model = filled(retinanet())
    state = layout(model)
    path = export(tmp_path, state if bare else dict(state_dict=state, meta=META), retinanet())
    assert_plain(path, retinanet(), model.state_dict())
    # Arrays would need more than a plain reader.
    colours = dict(classes=('square', 'bar'), palette=[[1, 2, 3], [4, 5, 6]])
    assert torch.load(path, weights_only=True)['meta'] == ({} if bare else dict(dataset_meta=colours))


def test_former_names_become_present_ones(tmp_path: Path) -> None:
    model = filled(fcos())
    old = State((re.sub(r'bbox_head\.conv_(cls|reg|centerness)', r'bbox_head.fcos_\1', key), value)
                for key, value in model.state_dict().items())  # fmt: skip
    assert_plain(export(tmp_path, below('module', old), fcos()), fcos(), model.state_dict())


def test_two_stage_detector(tmp_path: Path) -> None:
    model = filled(tiny.faster_rcnn())
    path = export(tmp_path, below('architecture', model.state_dict()), tiny.faster_rcnn())
    assert_plain(path, tiny.faster_rcnn(), model.state_dict())


def test_inferencer_takes_the_file(tmp_path: Path) -> None:
    config = ROOT / 'configs/coco_mini/retina_r34.py'
    trained = ROOT / 'configs/coco_mini/retina_r34.pth'
    content = load_checkpoint_file(str(trained))
    torch.save({**content, 'state_dict': below('student', content['state_dict'])}, tmp_path / 'run.pth')
    assert main(['export', str(tmp_path / 'run.pth'), '--config', str(config)]) == 0
    image = np.random.RandomState(0).randint(0, 255, (96, 128, 3)).astype(np.uint8)
    found = [
        DetInferencer(model=str(config), weights=str(weights), device='cpu', show_progress=False)
        for weights in (trained, tmp_path / 'run_student.pth')
    ]
    assert found[0].model.dataset_meta['classes'] == found[1].model.dataset_meta['classes']
    before, after = (inferencer(image)['predictions'][0] for inferencer in found)
    assert before == after and len(after['scores']) > 0


def student_state(**changes: Any) -> dict:
    return filled(retinanet(**changes)).state_dict()


def with_entry(key: str, value: float) -> dict:
    state = filled(retinanet()).state_dict()
    state[key][0] = value
    return state


REFUSED: dict[str, tuple[Callable[[], Any], list[str], str]] = {
    'another width': (
        lambda: student_state(width=24),
        [],
        r'run\.pth" does not fit the RetinaNet of the config: of another shape are \d+ entries '
        r'\("neck\.lateral_convs\.0\.conv\.weight" \(24, 16, 1, 1\) instead of \(16, 16, 1, 1\), .*, \.\.\.\); give',
    ),
    'deeper': (
        lambda: dict(state_dict=below('student', student_state(depth=34))),
        [],
        r'its part "student" does not fit .*: the model has no place for \d+ entries \("backbone\.layer1\.2\.conv1',
    ),
    'another model': (
        lambda: filled(tiny.faster_rcnn()).state_dict(),
        [],
        r'the file lacks \d+ entries \("bbox_head\..*, the model has no place for \d+ entries \(".*give the',
    ),
    'one too many': (
        lambda: {**student_state(), 'mask_head.weight': torch.ones(1)},
        [],
        r'the model has no place for 1 entry \("mask_head\.weight"\); give',
    ),
    'backbone alone': (
        lambda: MODELS.build(retinanet()['backbone']).state_dict(),
        [],
        r'holds a backbone alone \(such as "conv1\.weight"\); give the checkpoint of a whole trained model\.',
    ),
    'teacher alone': (
        lambda: dict(state_dict=below('teacher', student_state())),
        [],
        r'holds the RetinaNet of the config as a teacher alone, its part "teacher"; add "--part teacher"',
    ),
    'no teacher': (lambda: student_state(), ['--part', 'teacher'], r'has no part "teacher"; leave the prefix out'),
    'misspelt part': (
        lambda: authors_fgd(filled(retinanet()), filled(retinanet())),
        ['--part', 'studnet'],
        r'has no part "studnet"; did you mean "student"',
    ),
    'teacher of another config': (
        lambda: authors_fgd(filled(retinanet()), filled(retinanet(24))),
        ['--part', 'teacher'],
        r'its part "teacher" does not fit the RetinaNet of the config: of another shape are',
    ),
    'two students': (
        lambda: {**below('a', student_state()), **below('b', student_state())},
        [],
        r'holds 2 models that fit RetinaNet alike, "a" and "b"; name one of them by --part\.',
    ),
    'diverged': (
        lambda: with_entry('bbox_head.retina_cls.bias', float('nan')),
        [],
        r'is of a training that had diverged: nan or infinite are 1 entry \("bbox_head\.retina_cls\.bias"\); give an',
    ),
    'no weights': (lambda: dict(epoch=3), [], r'holds no weights of a model but a dict of \'epoch\''),
}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """The one line with which the command ends; no file has come or changed."""
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        main(['export', *map(str, arguments)])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith('error: ') and error.count('\n') == 1
    assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before
    return error


@pytest.mark.parametrize('name', REFUSED)
def test_what_does_not_match_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, options, sentence = REFUSED[name]
    torch.save(content(), tmp_path / 'run.pth')
    stock = config_file(tmp_path, retinanet())
    assert re.search(sentence, refused(capsys, tmp_path, tmp_path / 'run.pth', '--config', stock, *options))


@pytest.mark.parametrize('way', ['same', 'symlink'])
def test_source_is_never_overwritten(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = target = tmp_path / 'run.pth'
    torch.save(student_state(), source)
    if way == 'symlink':
        target = tmp_path / 'link.pth'
        target.symlink_to(source)
    stock = config_file(tmp_path, retinanet())
    assert 'is the checkpoint itself' in refused(capsys, tmp_path, source, '--config', stock, '-o', target)


def test_config_that_is_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(student_state(), tmp_path / 'run.pth')
    razor = config_file(tmp_path, dict(type='mmrazor.SingleTeacherDistill', architecture=retinanet()), 'razor.py')
    (tmp_path / 'empty.py').write_text('a = 1\n')
    for config, sentence in (
        (
            razor,
            'The config describes MMRazor\'s "mmrazor.SingleTeacherDistill", which holds a student; give',
        ),
        (tmp_path / 'empty.py', 'The config holds no "model"'),
        (config_file(tmp_path, dict(type='RetinaNt'), 'typo.py'), 'The model of type "RetinaNt" cannot be built'),
        (tmp_path / 'none.py', 'none.py" does not exist'),
    ):
        assert sentence in refused(capsys, tmp_path, tmp_path / 'run.pth', '--config', config)


@MODELS.register_module()
class RandomRetinaNet(RetinaNet):
    """A model that draws what it does not save."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.offset = float(torch.rand(()))

    def _forward(self, *arguments: Any) -> Any:
        return [self.offset + level for level in super()._forward(*arguments)[0]]


def test_other_outputs_leave_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(student_state(), tmp_path / 'run.pth')
    stock = config_file(tmp_path, {**retinanet(), 'type': 'RandomRetinaNet'})
    error = refused(capsys, tmp_path, tmp_path / 'run.pth', '--config', stock, '-o', tmp_path / 'new.pth')
    assert 'new.pth" is not written, since it gives another RandomRetinaNet than the checkpoint: the outputs' in error
