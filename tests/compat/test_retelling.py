"""Mistakes that the packages below answer with a traceback are told with the nearest valid name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets import CocoDataset
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, RUNNERS, Registry
from mmengine.runner import FlexibleRunner, IterBasedTrainLoop, Runner
from torch import nn

from mmkd_plugin.compat.retelling import retell

PARTS = Registry('part')


class Base:
    """Takes what its heirs hand on."""

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum


@PARTS.register_module()
class Part(Base):
    """Takes a width, and the rest for its base."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width


@PARTS.register_module()
class Broken:
    """Somebody's code with a fault of its own."""

    def __init__(self, width: int = 1) -> None:
        Base(mistake=width)  # type: ignore[call-arg]


def told(work: Callable[[], Any]) -> str | None:
    """What is said of the error of a piece of work."""
    with pytest.raises(Exception) as caught:  # noqa: B017
        work()
    return retell(caught.value)


def test_name_that_nothing_registers() -> None:
    sentence = told(lambda: HOOKS.build(dict(type='LogerHook')))
    assert sentence is not None
    assert sentence.startswith('The config asks for the hook "LogerHook", which nothing registers')
    assert 'did you mean "LoggerHook"' in sentence


def test_name_of_a_runner_that_nothing_registers() -> None:
    assert f'did you mean "{FlexibleRunner.__name__}"' in str(
        told(lambda: RUNNERS.build(dict(runner_type='FlexibelRunner')))
    )


def test_name_of_a_kind_that_holds_none() -> None:
    empty = Registry('nothing yet')
    assert str(told(lambda: empty.build(dict(type='Thing')))).endswith('needs custom_imports): check the name.')


def test_name_in_another_scope() -> None:
    import mmseg.models  # noqa: F401
    from mmdet.registry import MODELS

    assert '"mmseg.EncoderDecoder"' in str(told(lambda: MODELS.build(dict(type='EncodrDecoder'))))


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        (dict(type='Part', width=1, momentun=1), 'Part has no setting "momentun": did you mean "momentum"?'),
        (dict(type='Part', width=1, depth=1), 'Part has no setting "depth": did you mean "width"?'),
        (dict(type='Part'), "Part lacks 'width'; set what is missing in the config."),
        (dict(type=Part, width=1, momentun=1), 'Part has no setting "momentun": did you mean "momentum"?'),
    ],
    ids=['of the base', 'of the class', 'missing', 'as a class'],
)
def test_settings_of_what_is_built(config: dict, sentence: str) -> None:
    assert told(lambda: PARTS.build(config)) == sentence


def test_setting_of_a_schedule() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)
    sentence = told(lambda: PARAM_SCHEDULERS.build(dict(type='LinearLR', optimizer=optimizer, start_facto=0.1)))
    assert sentence == 'LinearLR has no setting "start_facto": did you mean "start_factor" or "end_factor"?'


def test_errors_raised_anew_at_every_level() -> None:
    def build() -> None:
        try:
            PARTS.build(dict(type='Part', momentun=1, width=1))
        except TypeError as error:
            raise TypeError(f'class `Whole` in whole.py: {error}')  # noqa: B904

    assert told(build) == 'Part has no setting "momentun": did you mean "momentum"?'


def test_fault_of_a_class_itself_keeps_its_traceback() -> None:
    assert told(lambda: PARTS.build(dict(type='Broken', width=2))) is None


@pytest.mark.parametrize(
    'error', [ValueError('no'), KeyError('RANK'), TypeError('unhashable'), RuntimeError('x'), OSError()]
)
def test_what_is_not_known_is_not_told(error: Exception) -> None:
    assert retell(error) is None


def test_missing_file_has_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / 'instances_val.json').write_text('{}')
    sentence = told((tmp_path / 'instances_va.json').read_text)
    assert sentence == f'"{tmp_path}/instances_va.json" does not exist; did you mean "instances_val.json"?'
    assert told((tmp_path / 'no/such.json').read_text) == f'"{tmp_path}/no/such.json" does not exist; check the path.'


def test_files_and_folders_in_the_wrong_place(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    assert 'Is a directory); it is a folder, give a file.' in str(told(tmp_path.read_text))
    assert 'File exists); it is a file, give a folder.' in str(told((tmp_path / 'file').mkdir))
    assert 'Not a directory); a part of the path is a file' in str(told((tmp_path / 'file/x').read_text))


def test_places_that_take_nothing() -> None:
    assert retell(PermissionError(13, 'Permission denied', '/locked/x')) == (
        '"/locked/x" cannot be read or written (Permission denied); give a path that you may use.'
    )
    assert str(retell(OSError(28, 'No space left on device'))).startswith('The disk is full (No space left on device)')


def test_file_missed_by_a_process_of_a_data_loader() -> None:
    text = (
        'Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        '  File "x.py", line 1, in y\nFileNotFoundError: [Errno 2] No such file or directory: \'train/1.png\'\n'
    )
    assert retell(FileNotFoundError(text)) == (
        "FileNotFoundError: [Errno 2] No such file or directory: 'train/1.png'; check the path."
    )


@pytest.mark.parametrize('content', [b'{"images": [', b'\xff\xfe\x00not text'], ids=['cut off', 'binary'])
def test_annotations_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    from pycocotools.coco import COCO

    path = tmp_path / 'instances.json'
    path.write_bytes(content)
    assert str(told(lambda: COCO(str(path)))).startswith(f'The file "{path}" is no JSON, or damaged (')


def test_json_from_elsewhere_is_not_told() -> None:
    assert told(lambda: json.loads('{')) is None


@pytest.mark.parametrize(
    ('error', 'where'),
    [
        (torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'), 'GPU'),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), 'machine'),
        (MemoryError(), 'machine'),
    ],
    ids=['gpu', 'cpu', 'python'],
)
def test_memory(error: Exception, where: str) -> None:
    sentence = str(retell(error))
    assert sentence.startswith(f'The memory of the {where} is not enough (')
    assert 'lower train_dataloader.batch_size' in sentence


def test_a_real_tensor_that_is_too_large() -> None:
    assert str(told(lambda: torch.empty(2**60, dtype=torch.uint8))).startswith(
        'The memory of the machine is not enough'
    )


def test_config_that_tests_on_nothing(tmp_path: Path) -> None:
    runner = Runner(nn.Linear(1, 1), str(tmp_path), experiment_name='nothing')
    assert told(runner.test) == (
        'The config does not say on what to test; set test_dataloader, test_cfg and test_evaluator.'
    )
    untrained = RuntimeError('`self._train_loop` should not be None when calling train method.')
    assert str(retell(untrained)).endswith('set train_dataloader, train_cfg and optim_wrapper.')


def test_batch_norm_of_one_value() -> None:
    sentence = told(lambda: nn.BatchNorm2d(2)(torch.zeros(1, 2, 1, 1)))
    assert 'set train_dataloader.batch_size to 2 or more' in str(sentence)


class Breaks(BaseTransform):
    """Somebody's step of a pipeline, which stumbles."""

    def transform(self, results: dict) -> dict:
        raise ValueError('no such colour')


def test_sample_that_a_pipeline_stumbles_over(tmp_path: Path) -> None:
    sentence = told(lambda: Breaks()(dict(img_path='a/b.png')))
    assert sentence == (
        'The image "a/b.png" or its annotation cannot be used (Breaks: no such colour); make it again, or leave it out.'
    )
    assert told(lambda: Breaks()(dict(other=1))) is None
    assert retell(AssertionError('Caught AssertionError\nOriginal Traceback:\nfailed to load image: c.png')) is not None


def test_data_without_an_image(tmp_path: Path) -> None:
    path = tmp_path / 'empty.json'
    path.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    sentence = told(lambda: CocoDataset(ann_file=str(path), metainfo=dict(classes=('a',))))
    assert sentence is not None and f'The CocoDataset holds no image; look at "{path}"' in sentence


def test_annotations_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / 'list.json'
    path.write_text('[]')
    sentence = told(lambda: CocoDataset(ann_file=str(path)))
    assert sentence == f'"{path}" is no COCO file; it must hold a dict with "images", "annotations" and "categories".'


def test_label_that_is_no_class() -> None:
    labels = torch.tensor([[[9]]])
    sentence = told(lambda: nn.functional.cross_entropy(torch.zeros(1, 2, 1, 1), labels))
    assert sentence is not None and sentence.startswith('The data hold the label 9, which is none of the classes')


def run_of(folder: Path, **values: Any) -> Runner:
    return Runner(
        model=nn.Linear(1, 1),
        work_dir=str(folder),
        train_dataloader=[0],
        optim_wrapper=values.get('optim_wrapper', dict(optimizer=dict(type='SGD', lr=1.0))),
        train_cfg=values.get('train_cfg', dict(by_epoch=False, max_iters=1)),
        experiment_name=f'{folder.name}{len(values)}',
        **{key: value for key, value in values.items() if key not in ('optim_wrapper', 'train_cfg')},
    )


def test_training_without_an_optimizer(tmp_path: Path) -> None:
    sentence = told(lambda: run_of(tmp_path, optim_wrapper=None))
    assert sentence == (
        'The config has no optim_wrapper, without which train_dataloader, train_cfg, and optim_wrapper are of no use; '
        'set it.'
    )


def test_optimizer_that_nothing_registers(tmp_path: Path) -> None:
    runner = run_of(tmp_path)
    sentence = told(lambda: runner.build_optim_wrapper(dict(type='OptimWrapper', optimizer=dict(type='Adamm', lr=1.0))))
    assert sentence is not None and 'asks for the optimizer "Adamm"' in sentence and '"Adam"' in sentence


def test_length_that_is_no_number() -> None:
    sentence = told(lambda: IterBasedTrainLoop(None, [0], max_iters='two'))
    assert sentence == 'train_cfg.max_iters is "two"; it must be a whole number.'


def test_annotation_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / 'short.json'
    image = dict(id=1, file_name='a.png', width=8, height=8)
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 2], area=4, iscrowd=0)
    path.write_text(json.dumps(dict(images=[image], annotations=[box], categories=[dict(id=1, name='a')])))
    values = dict(ann_file=str(path), metainfo=dict(classes=('a',)), data_prefix=dict(img=''))
    sentence = told(lambda: CocoDataset(**values))
    assert sentence is not None and sentence.startswith(
        f'What "{path}" says of "a.png" cannot be read (ValueError: not '
    )
