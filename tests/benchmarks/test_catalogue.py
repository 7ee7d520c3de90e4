"""What is measured is read from the registry and from configs/, and covers every method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import catalogue
from benchmarks.catalogue import CONFIGS, comparisons, first_sentence, general_recipes, methods, pairs, recipes
from benchmarks.check_numbers import chosen
from benchmarks.compare_methods import planned
from benchmarks.zoo.trial import RECIPES
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.compare import STUDENT, TEACHER

ROOT = CONFIGS.parent
REFERENCES = ROOT / 'benchmarks/references.json'


def pair(stem):
    return next(pair for pair in pairs() if pair.path.stem == stem)


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A folder of configs of our own, and a function that writes one."""
    monkeypatch.setattr(catalogue, 'CONFIGS', tmp_path)
    for function in (pairs, recipes):
        function.cache_clear()

    def add(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    yield add
    for function in (pairs, recipes):
        function.cache_clear()


def test_every_method_is_measured_on_coco_mini():
    assert {kind for pair in pairs() for kind in pair.methods.values()} == set(methods().values())


def test_every_method_with_a_loss_of_its_own_has_reference_numbers():
    named = json.loads(REFERENCES.read_text())['pairs']
    covered = {kind.__name__ for pair in pairs() if pair.path.stem in named for kind in pair.methods.values()}
    assert covered == set(methods()) - {'Feature'}


@pytest.mark.parametrize(
    ('stem', 'label', 'family', 'teacher', 'alone'),
    [
        ('fgd_retina_r34_to_r18', 'fgd', 'retina', 'r34', 'retina_r18'),
        ('fgd_chen_faster-rcnn_r34_to_r18', 'fgd + chen', 'faster-rcnn', 'r34', 'faster-rcnn_r18'),
        ('pspnet_kd_pspnet_r34_to_r18', 'pspnet_kd', 'pspnet', 'r34', 'pspnet_r18'),
        ('pixel_pair_holistic_pspnet_r34_to_r34', 'pixel + pair + holistic', 'pspnet', 'r34', 'pspnet_r34'),
        ('chen_retina_r34_high-res_to_r18', 'chen', 'retina', 'r34_high-res', 'retina_r18'),
    ],
)
def test_a_pair_is_read_from_its_block_and_its_name(stem, label, family, teacher, alone):
    found = pair(stem)
    assert (found.label, found.family, found.teacher, found.alone.stem) == (label, family, teacher, alone)
    assert found.alone.is_file()


def test_a_pair_knows_the_recipe_that_a_base_of_it_inherits():
    assert pair('fgd_chen_faster-rcnn_r34_to_r18').recipes == (Path('_base_/fgd/two_stage.py'),)


def test_a_method_without_a_weight_is_not_in_the_label(configs):
    block = "distill = dict(methods=dict(fgd=dict(type='FGD'), chen=dict(type='Chen', loss_weight=0)))"
    configs('own/fgd_retina_r34_to_r18.py', block)
    assert [found.label for found in pairs('own')] == ['fgd']


def test_a_file_that_is_not_called_as_its_methods_are_is_refused(configs):
    configs('own/focal_retina_r34_to_r18.py', "distill = dict(methods=dict(fgd=dict(type='FGD')))")
    with pytest.raises(DistillError, match='call it "fgd_<family>_<teacher>_to_<student>.py"'):
        pairs('own')


def test_a_recipe_under_a_former_path_is_no_second_recipe(configs):
    configs('_base_/fgd/one_stage.py', "distill = dict(methods=dict(fgd=dict(type='FGD')))")
    configs('_base_/focal/one_stage.py', "_base_ = '../fgd/one_stage.py'")
    configs('_base_/models/resnet.py', "model = dict(type='ResNet')")
    assert [recipe.path.as_posix() for recipe in recipes()] == ['_base_/fgd/one_stage.py']


def test_the_simplest_recipe_is_one_of_its_own():
    found = {name: recipe.path.as_posix() for name, recipe in general_recipes('segmentation').items()}
    assert found['PairWise'] == '_base_/structured_seg/pixel_pair.py'
    assert general_recipes('detection')['FGD'].path.as_posix() == '_base_/fgd/one_stage.py'


def test_the_zoo_is_tried_with_the_general_methods():
    assert RECIPES == {
        'mmdet': {'FGD': '_base_/fgd/one_stage.py', 'FGI': '_base_/fgi/one_stage.py'},
        'mmseg': {'PixelWise': '_base_/structured_seg/pixel.py', 'PairWise': '_base_/structured_seg/pixel_pair.py'},
    }
    # Columns of the pages, in this order.
    assert [list(recipes) for recipes in RECIPES.values()] == [['FGD', 'FGI'], ['PixelWise', 'PairWise']]


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('Chen et al. on classes and boxes. Twice.', 'Chen et al. on classes and boxes'),
        ('Chen et al. 2017\nunder the sun.', 'Chen et al. 2017 under the sun'),
        ('Pixels alone; a sum elsewhere.', 'Pixels alone'),
        ('', ''),
    ],
)
def test_the_first_sentence_of_a_docstring(tmp_path, text, sentence):
    (tmp_path / 'config.py').write_text(f'"""{text}"""\n')
    assert first_sentence(tmp_path / 'config.py') == sentence


def test_each_student_is_compared_with_the_teachers_of_its_own_images():
    retina, *others = planned(['retina'], [0], Path('runs'))
    assert not others and retina.work_dir == Path('runs/retina')
    assert Path(retina.student).name == 'retina_r18.py'
    names = {label: Path(config).name for label, config in retina.distilled.items()}
    # Each again with weights that find themselves, and with the whole hard loss where a method takes a share of it.
    assert set(names) == {f'{label}{auto}' for label in names for auto in ('', ', auto') if ', auto' not in label}
    assert {label for label in names if ', whole' in label and 'auto' not in label} == {
        'chen, whole',
        'fgd + chen, whole',
    }
    assert retina.own_options['chen, whole, auto'] == {
        'distill.methods.chen.hard_share': 1,
        'distill.methods.chen.soft_weight': 0.5,
        'distill.methods.chen.loss_weight': 'auto',
    }
    assert {label: name for label, name in names.items() if ',' not in label} == {
        'chen': 'chen_retina_r34_to_r18.py',
        'cwd': 'cwd_retina_r34_to_r18.py',
        'fgd': 'fgd_retina_r34_to_r18.py',
        'fgi': 'fgi_retina_r34_to_r18.py',
        'pkd': 'pkd_retina_r34_to_r18.py',
        'fgd + chen': 'fgd_chen_retina_r34_to_r18.py',
    }


def test_all_families_are_compared():
    assert [comparison.work_dir.name for comparison in planned([], [0], Path())] == ['faster-rcnn', 'retina', 'pspnet']


@pytest.mark.parametrize('path', sorted((ROOT / 'docs/results').glob('*.json')), ids=lambda path: path.stem)
def test_committed_results_are_called_as_the_pairs_are(path):
    folder = next(folder for folder in ('coco_mini', 'bccd', 'camvid') if path.stem.startswith(folder))
    family = path.stem[len(folder) + 1 :]
    families = comparisons(folder)
    known = {pair.label for name in families for pair in families[name] if family not in families or name == family}
    labels = {run['model'].partition(',')[0] for run in json.loads(path.read_text())}
    assert labels - {TEACHER, STUDENT} <= known


def test_the_configs_with_references_are_checked_by_default():
    named = json.loads(REFERENCES.read_text())['pairs']
    assert chosen([], REFERENCES) == {name: str(CONFIGS / 'coco_mini' / f'{name}.py') for name in named}


def test_any_config_of_coco_mini_may_be_checked():
    assert chosen(['pkd_retina_r34_to_r18'], REFERENCES) == {
        'pkd_retina_r34_to_r18': str(CONFIGS / 'coco_mini/pkd_retina_r34_to_r18.py')
    }


def test_an_unknown_config_is_refused():
    with pytest.raises(DistillError, match='did you mean "fgd_retina_r34_to_r18"'):
        chosen(['fgd_retina_r34_to_18'], REFERENCES)


def test_a_check_of_nothing_is_refused(tmp_path):
    with pytest.raises(DistillError, match='--update --pairs'):
        chosen([], tmp_path / 'none.json')
