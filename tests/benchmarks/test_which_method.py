"""Which weights the pages and the recipes recommend is what the committed numbers say."""

from __future__ import annotations

import ast
import json

import pytest

from benchmarks import which_method
from benchmarks.catalogue import CONFIGS, recipes
from benchmarks.which_method import SENTENCES, mean_gains, recommendation, weights

RECIPES = {recipe.path.as_posix(): recipe for recipe in recipes()}
ALONE = 'student alone'


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of comparisons, and a function that writes one: mAP of each seed by row."""
    monkeypatch.setattr('benchmarks.measured.RESULTS', tmp_path)

    def add(key, **rows):
        runs = [
            dict(
                model=name.replace('_auto', ', auto').replace('alone', ALONE),
                seed=seed,
                metrics={'coco/bbox_mAP': points / 100, 'coco/bbox_mAP_50': 0.5},
                time_per_iteration=1.0,
                weights_bytes=0,
            )
            for name, values in rows.items()
            for seed, points in enumerate(values)
        ]
        (tmp_path / f'{key}.json').write_text(json.dumps(runs))

    return add


@pytest.mark.parametrize('path', sorted(RECIPES))
def test_a_recipe_recommends_what_was_measured(path):
    text = ' '.join((ast.get_docstring(ast.parse((CONFIGS / path).read_text())) or '').split())
    said = recommendation(RECIPES[path])
    assert [sentence for sentence in SENTENCES.values() if sentence in text] == ([said] if said else [])


@pytest.mark.parametrize(
    ('auto', 'which'), [((40, 42), 'auto'), ((20, 21), 'published'), ((32, 30), 'either'), ((40, 20), 'either')]
)
def test_the_recommendation_is_beyond_the_spread(results, auto, which):
    results('coco_mini_retina', alone=(20, 20), fgd=(30, 32), fgd_auto=auto)
    results('coco_mini_faster-rcnn', alone=(20, 20))
    results('coco_mini_pspnet', alone=(20, 20))
    assert recommendation(RECIPES['_base_/fgd/one_stage.py']) == SENTENCES[which]


def test_a_recipe_that_several_pairs_inherit_is_judged_by_all_of_them(results):
    results('coco_mini_retina', alone=(20, 20), pkd=(30, 30), pkd_auto=(35, 36))
    results('coco_mini_faster-rcnn', alone=(20, 20), pkd=(30, 30), pkd_auto=(20, 20))
    results('coco_mini_pspnet', alone=(20, 20))
    assert recommendation(RECIPES['_base_/pkd/neck.py']) == SENTENCES['either']


def test_what_was_not_measured_with_both_recommends_nothing(results):
    results('coco_mini_retina', alone=(20, 20), fgd=(30, 32))
    results('coco_mini_faster-rcnn', alone=(20, 20))
    results('coco_mini_pspnet', alone=(20, 20))
    assert recommendation(RECIPES['_base_/fgd/one_stage.py']) == ''


def test_both_sorts_of_weights_side_by_side_and_their_means(results):
    results('coco_mini_retina', alone=(20, 20), fgd=(30, 32), fgd_auto=(35, 35), chen=(10, 11), chen_auto=(22, 24))
    results('bccd', alone=(40, 40), fgd=(41, 41))
    assert [row.strip('| ').split(' | ') for row in weights().splitlines()[2:]] == [
        ['RetinaNet, COCO-mini', 'fgd', '+11.0 ± 1.4', '+15.0 ± 0.0', 'auto'],
        ['RetinaNet, COCO-mini', 'chen', '-9.5 ± 0.7', '+3.0 ± 1.4', 'auto'],
    ]
    assert [row.strip('| ').split(' | ') for row in mean_gains().splitlines()[2:]] == [
        ['published', '2', '+0.8', '-9.5', '1'],
        ["`loss_weight='auto'`", '2', '+9.0', '+3.0', '0'],
    ]


def test_a_picture_for_each_family_of_coco_mini(results, tmp_path):
    results('coco_mini_retina', alone=(20, 20), fgd=(30, 32))
    results('coco_mini_high-res', alone=(40, 40), fgd=(41, 41))
    assert which_method.stale_pictures(tmp_path) == ['docs/images/spread_coco_mini_retina.png']
    which_method.draw('docs/images/spread_coco_mini_retina.png', tmp_path)
    assert (tmp_path / 'docs/images/spread_coco_mini_retina.png').stat().st_size > 5000
    assert which_method.stale_pictures(tmp_path) == []
    results('coco_mini_retina', alone=(20, 20), fgd=(30, 33))
    assert which_method.stale_pictures(tmp_path) == ['docs/images/spread_coco_mini_retina.png']


def test_the_page_has_all_three():
    assert list(which_method.page()) == ['answers', 'weights', 'mean gains']
