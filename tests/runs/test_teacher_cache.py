"""Runs that read their teacher's records from the disk: the same numbers, no teacher, and nothing out of date."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.tiny import CLASSES, build, exact_resume, faster_rcnn, losses_of, retinanet, state_of
from _helpers.tiny_images import SIZE, entries, kept_config, pipeline, save_teacher, write_images
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler

pytest.importorskip('safetensors')

from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.teacher_cache import fill_cache
from mmkd_plugin.teachers.cache import CachedTeacher

METHODS: dict[str, dict[str, Any]] = {
    'fgd': dict(fgd=dict(type='FGD')),
    'fgi': dict(fgi=dict(type='FGI')),
    'pkd': dict(pkd=dict(type='Feature', loss=dict(type='PKDLoss', loss_weight=6))),
    'cwd': dict(cwd=dict(type='Feature', loss=dict(type='ChannelWiseDivergence', loss_weight=1.0, tau=1.0))),
    'two taps': dict(
        fgd=dict(type='FGD'), mid=dict(type='Feature', tap='backbone.layer2', loss=dict(type='L2Loss', loss_weight=0.1))
    ),
    'chen': dict(chen=dict(type='Chen')),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the versions of all compilers takes longer than such a run."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture()
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / 'data')


def trained(cfg: Config) -> Any:
    runner = build(cfg)
    runner.train()
    return runner


def teacher_of(runner: Any) -> CachedTeacher:
    algorithm = algorithm_of(runner)
    assert algorithm is not None
    found = algorithm.teacher
    assert isinstance(found, CachedTeacher)
    return found


def logged(runner: Any) -> dict[str, list[float]]:
    names = [name[6:] for name in runner.message_hub.log_scalars if 'distill.' in name]
    return {name: losses_of(runner, name) for name in names}


def online(cfg: Config) -> Config:
    cfg.distill.teacher_cache = False
    return cfg


@pytest.mark.parametrize('method', METHODS)
def test_the_losses_are_those_of_a_teacher_that_runs(method: str, data: Path, tmp_path: Path) -> None:
    plain = trained(online(kept_config(data, tmp_path / 'plain', METHODS[method])))
    cold = trained(kept_config(data, tmp_path / 'cold', METHODS[method]))
    warm = trained(kept_config(data, tmp_path / 'warm', METHODS[method]))
    expected = logged(plain)
    assert expected
    for name, values in logged(cold).items():
        assert values == pytest.approx(expected[name], rel=5e-3, abs=1e-5)
    assert logged(warm) == logged(cold)
    for key, value in state_of(cold).items():
        assert torch.equal(value, state_of(warm)[key])


def test_a_whole_cache_needs_neither_teacher_nor_checkpoint(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    [kept] = fill_cache(kept_config(data, tmp_path / 'fill'))
    assert (kept.records, kept.computed) == (12, 12)
    assert kept.size == sum(map(len, entries(data).values()))
    assert fill_cache(kept_config(data, tmp_path / 'again'))[0].computed == 0

    def refuse(*_: Any) -> None:
        raise AssertionError('the teacher was built')

    monkeypatch.setattr('mmkd_plugin.teachers.cache.source.build_teacher', refuse)
    runner = trained(kept_config(data, tmp_path / 'run', self_check=True))
    teacher = teacher_of(runner)
    assert not teacher.built and not teacher.misses
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert '12 of 12 there' in log and 'the teacher is not built' in log


def test_a_teacher_that_was_inherited_from_is_let_go(data: Path, tmp_path: Path) -> None:
    def same(name: str) -> Config:
        return kept_config(data, tmp_path / name, inherit=True, teacher=retinanet(width=16))

    cold = trained(same('cold'))
    fill_cache(same('fill'))
    warm = trained(same('warm'))
    assert teacher_of(cold).built and not teacher_of(warm).built
    for key, value in state_of(cold).items():
        assert torch.equal(value, state_of(warm)[key])


def test_a_part_of_a_batch_that_is_missing_alone_is_computed(data: Path, tmp_path: Path) -> None:
    fill_cache(kept_config(data, tmp_path / 'fill'))
    gone = next(iter(sorted((data / 'cache').rglob('*.safetensors'))))
    before = gone.read_bytes()
    gone.unlink()
    [kept] = fill_cache(kept_config(data, tmp_path / 'again'))
    assert kept.computed == 1 and gone.stat().st_size == len(before)


def fingerprints(data: Path) -> set[str]:
    return {str(path.parents[1].relative_to(data / 'cache')) for path in (data / 'cache').rglob('*.safetensors')}


def test_other_weights_pipelines_and_taps_have_folders_of_their_own(data: Path, tmp_path: Path) -> None:
    def folders(**changes: Any) -> set[str]:
        steps = changes.pop('steps', None)
        mean = changes.pop('mean', None)
        cfg = kept_config(data, tmp_path / str(len(list(tmp_path.iterdir()))), **changes)
        if steps:
            cfg.train_dataloader.dataset.pipeline = steps
        if mean:
            cfg.model.data_preprocessor.mean = mean
        before = fingerprints(data)
        fill_cache(cfg)
        return fingerprints(data) - before

    assert len(folders()) == 1
    assert not folders(methods=dict(other=dict(type='FGD', loss_weight=0.5)))
    assert len(folders(steps=pipeline(resize=dict(type='Resize', scale=(96, 96))))) == 1
    assert len(folders(mean=[1.0, 2.0, 3.0])) == 1
    assert len(folders(teacher_cache=dict(dir=str(data / 'cache'), dtype='bfloat16'))) == 1
    assert len(folders(methods=dict(low=dict(type='Feature', tap='backbone.layer2', loss=dict(type='L2Loss'))))) == 1
    assert len(folders(teacher_scale=2.0)) == 1
    save_teacher(data / 'teacher.pth', retinanet(width=24), seed=2)
    assert len(folders()) == 1
    save_teacher(data / 'deep.pth', retinanet(width=24, depth=34))
    assert len(folders(teacher=retinanet(width=24, depth=34), teacher_ckpt=str(data / 'deep.pth'))) == 1


def test_a_changed_image_is_computed_anew(data: Path, tmp_path: Path) -> None:
    fill_cache(kept_config(data, tmp_path / 'fill'))
    write_images(tmp_path / 'other', seed=5)
    shutil.copy(tmp_path / 'other/images/002.png', data / 'images/002.png')
    said: list[str] = []
    [kept] = fill_cache(kept_config(data, tmp_path / 'again'), said.append)
    assert (kept.records, kept.computed) == (12, 2)
    [kept] = fill_cache(kept_config(data, tmp_path / 'tidy'), said.append, remove_others=True)
    assert any(line.startswith('removed: 2 files') for line in said)
    assert len(entries(data)) == 12


def test_other_stores_are_named_with_their_size_and_stay(data: Path, tmp_path: Path) -> None:
    fill_cache(kept_config(data, tmp_path / 'fill'))
    [old] = fingerprints(data)
    save_teacher(data / 'teacher.pth', retinanet(width=24), seed=2)
    trained(kept_config(data, tmp_path / 'run'))
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    size = sum(path.stat().st_size for path in (data / 'cache' / old).rglob('*') if path.is_file()) / 1000
    assert f'{old}" ({size:.3g} kB) holds records of another teacher' in log
    assert old in fingerprints(data)
    fill_cache(kept_config(data, tmp_path / 'tidy'), remove_others=True)
    assert len(fingerprints(data)) == 1 and old not in fingerprints(data)


def test_what_does_not_fit_is_refused_before_anything_is_written(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    small = dict(dir=str(data / 'cache'), max_disk=1e-5)
    said: list[str] = []
    with pytest.raises(
        DistillError, match=r'12 teacher records of .* more than distill.teacher_cache.max_disk=1e-05 GB'
    ):
        fill_cache(kept_config(data, tmp_path / 'small', teacher_cache=small), said.append)
    assert '12 teacher records' in said[0] and not entries(data)
    monkeypatch.setattr('mmkd_plugin.teachers.cache.budget.free_bytes', lambda folder: 100)
    with pytest.raises(DistillError, match='but only 100 B are free there'):
        trained(kept_config(data, tmp_path / 'full'))
    assert not entries(data)


def test_what_is_told_is_what_is_taken(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    [kept] = fill_cache(kept_config(data, tmp_path / 'fill'), said.append)
    told = float(said[0].split(' take ')[1].split(' kB')[0])
    assert told == pytest.approx(kept.size / 1000, rel=0.01)


@DATA_SAMPLERS.register_module()
class BatchesOfSomeone(BatchSampler):
    """One that is not known."""


def of_two_sizes(cfg: Config, folder: Path) -> Config:
    """The same run on square images and upright ones."""
    write_images(folder / 'upright', size=(120, SIZE))
    upright = dict(cfg.train_dataloader.dataset, data_root=str(folder / 'upright'))
    same = dict(type='Resize', scale=(96, 64), keep_ratio=True)
    both = [dict(item, pipeline=pipeline(resize=same)) for item in (cfg.train_dataloader.dataset, upright)]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    return cfg


def test_batches_of_images_of_several_sizes_have_one_size_each(data: Path, tmp_path: Path) -> None:
    cfg = of_two_sizes(kept_config(data, tmp_path / 'run'), tmp_path)
    assert fill_cache(cfg)[0].computed == 24
    runner = trained(cfg)
    assert not teacher_of(runner).misses
    cfg.work_dir = str(tmp_path / 'plain')
    cfg.train_dataloader.batch_sampler = dict(type='mmdet.AspectRatioBatchSampler')
    expected = logged(trained(online(cfg)))
    for name, values in logged(runner).items():
        assert values == pytest.approx(expected[name], rel=5e-3, abs=1e-5)


def test_other_batches_of_images_of_several_sizes_are_refused(data: Path, tmp_path: Path) -> None:
    cfg = of_two_sizes(kept_config(data, tmp_path / 'run'), tmp_path)
    cfg.train_dataloader.batch_sampler = dict(type='BatchesOfSomeone', drop_last=False)
    with pytest.raises(DistillError, match='gives 2 sizes, such as 64 x 64 and 96 x 64'):
        trained(cfg)


def test_a_method_on_the_students_proposals_is_refused(data: Path, tmp_path: Path) -> None:
    cfg = kept_config(data, tmp_path / 'run', dict(chen=dict(type='Chen')), teacher=faster_rcnn(width=24))
    cfg.model = faster_rcnn()
    with pytest.raises(DistillError, match=r'"distill.methods.chen" \(Chen\) asks the teacher for RoIPredictions'):
        trained(cfg)


def test_a_random_teacher_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="teacher_ckpt is 'random'"):
        trained(kept_config(data, tmp_path / 'run', teacher_ckpt='random'))


def test_workers_and_an_exact_resume(data: Path, tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> Any:
        cfg = kept_config(data, tmp_path / name, iterations=4)
        cfg.train_dataloader.num_workers = 1
        cfg.default_hooks.checkpoint.interval = 2
        cfg.update(changes)
        return trained(cfg)

    whole = run('whole')
    again = run('again')
    assert not teacher_of(again).misses and not teacher_of(again).built
    for key, value in state_of(whole).items():
        assert torch.equal(value, state_of(again)[key])


@exact_resume
def test_resume(data: Path, tmp_path: Path) -> None:
    def cfg_of(name: str) -> Config:
        cfg = kept_config(data, tmp_path / name, iterations=4)
        cfg.default_hooks.checkpoint.interval = 2
        return cfg

    whole = state_of(trained(cfg_of('whole')))
    resumed = cfg_of('whole')
    (tmp_path / 'whole/last_checkpoint').write_text(str(tmp_path / 'whole/iter_2.pth'))
    resumed.resume = True
    runner = trained(resumed)
    assert runner.iter == 4
    for key, value in state_of(runner).items():
        assert torch.equal(value, whole[key])


def test_several_teachers(data: Path, tmp_path: Path) -> None:
    save_teacher(data / 'second.pth', retinanet(width=32), seed=3)
    teachers = dict(
        one=dict(teacher=retinanet(width=24), teacher_ckpt=save_teacher(data / 'first.pth', retinanet(width=24))),
        two=dict(teacher=retinanet(width=32), teacher_ckpt=str(data / 'second.pth')),
    )
    methods = dict(
        fgd=dict(type='FGD', teacher='one'), pkd=dict(type='Feature', teacher='two', loss=dict(type='PKDLoss'))
    )

    def run(name: str, kept: bool = True) -> Any:
        cfg = kept_config(data, tmp_path / name, methods, teachers=teachers)
        del cfg.distill['teacher'], cfg.distill['teacher_ckpt']
        return trained(cfg if kept else online(cfg))

    expected = logged(run('plain', kept=False))
    run('cold')
    warm = run('warm')
    assert [item.misses for item in algorithm_of(warm).teachers.values()] == [0, 0]  # type: ignore[union-attr]
    for name, values in logged(warm).items():
        assert values == pytest.approx(expected[name], rel=5e-3, abs=1e-5)


def test_a_killed_training_loses_no_finished_record(data: Path, tmp_path: Path) -> None:
    cfg = kept_config(data, tmp_path / 'run', iterations=100)
    cfg.custom_imports = dict(imports=['_helpers.tiny'])
    cfg.dump(tmp_path / 'run.py')
    code = (
        'import os, signal, sys; sys.path.insert(0, sys.argv[2]);'
        'from _helpers import tiny; from mmengine.config import Config;'
        'from mmkd_plugin.teachers.cache import Store; write = Store.write; count = []\n'
        'def killing(self, key, content):\n'
        '    write(self, key, content); count.append(1)\n'
        '    if len(count) == 5: os.kill(os.getpid(), signal.SIGKILL)\n'
        'Store.write = killing; tiny.build(Config.fromfile(sys.argv[1])).train()'
    )
    tests = str(Path(__file__).parents[1])
    result = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'run.py'), tests],
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(Path(tests).parent)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == -9, result.stderr
    survived = entries(data)
    assert len(survived) == 5
    [kept] = fill_cache(kept_config(data, tmp_path / 'fill'))
    assert kept.computed == 12 - 5
    assert {name: content for name, content in entries(data).items() if name in survived} == survived


def test_unknown_keys_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match='distill.teacher_cache'):
        build(kept_config(data, tmp_path / 'run', teacher_cache=dict(folder='x')))


def test_class_names_are_known_without_the_teacher(data: Path, tmp_path: Path) -> None:
    fill_cache(kept_config(data, tmp_path / 'fill'))
    assert teacher_of(trained(kept_config(data, tmp_path / 'run'))).meta == dict(
        dataset_meta=dict(classes=list(CLASSES))
    )
