"""A part of a real COCO tree must be balanced, repeatable and faithful."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mmkd_plugin.datasets.coco_mini import coco_split, ensure_coco_subset
from mmkd_plugin.datasets.coco_mini.subset import choose_images
from mmkd_plugin.errors import DistillError

# Ids with a gap, as COCO has.
CATEGORIES = {1: 'person', 3: 'car', 7: 'train'}


def fake_split(root: Path, name: str, first: int) -> None:
    """Write 40 images, all with persons, every second with a car, every fifth with a train; and 5 empty ones."""
    (root / name).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(45):
        image = first + 10 * number
        file_name = f'{image:012d}.jpg'
        (root / name / file_name).write_bytes(f'{name} {image}'.encode())
        images.append({'id': image, 'file_name': file_name, 'height': 8, 'width': 9, 'license': 4})
        seen = [1] if number < 40 else []
        seen += [3] if number < 40 and number % 2 == 0 else []
        seen += [7] if number < 40 and number % 5 == 0 else []
        for category in seen:
            annotations.append(
                {
                    'id': image * 1000 + category,
                    'image_id': image,
                    'category_id': category,
                    'iscrowd': 0,
                    'bbox': [1, 2, 3, 4],
                    'area': 12.5,
                    'segmentation': [[1, 2, 4, 2, 4, 6]],
                }
            )
        if seen:
            crowd = {'size': [8, 9], 'counts': [10, 4, 58]}
            annotations.append(
                {**annotations[-1], 'id': image * 1000, 'category_id': 1, 'iscrowd': 1, 'segmentation': crowd}
            )
    content = {
        'info': {'year': 2017},
        'licenses': [{'id': 4}],
        'images': images,
        'annotations': annotations,
        'categories': [{'id': key, 'name': value, 'supercategory': 'x'} for key, value in CATEGORIES.items()],
    }
    (root / 'annotations' / f'instances_{name}.json').write_text(json.dumps(content))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    fake_split(tmp_path / 'coco', 'train2017', 1000)
    fake_split(tmp_path / 'coco', 'val2017', 9000)
    return tmp_path / 'coco'


def make(tree: Path, out: Path, train: int = 12, val: int = 6, **arguments) -> Path:
    splits = coco_split(tree, 'train2017', train), coco_split(tree, 'val2017', val)
    return ensure_coco_subset(out, *splits, **{'report': lambda line: None, **arguments})


def read(out: Path, split: str = 'train') -> dict:
    return json.loads((out / 'annotations' / f'instances_{split}.json').read_bytes())


def test_images_and_annotations_are_taken_over(tree, tmp_path):
    out = make(tree, tmp_path / 'out')
    source = json.loads((tree / 'annotations' / 'instances_train2017.json').read_bytes())
    content = read(out)
    chosen = {image['id'] for image in content['images']}
    assert len(chosen) == 12
    assert all(image in source['images'] for image in content['images'])
    assert content['annotations'] == [entry for entry in source['annotations'] if entry['image_id'] in chosen]
    assert content['categories'] == source['categories']
    assert {path.name for path in (out / 'train').iterdir()} == {image['file_name'] for image in content['images']}
    assert all((out / 'train' / f'{image:012d}.jpg').read_bytes() == f'train2017 {image}'.encode() for image in chosen)
    assert len(read(out, 'val')['images']) == len(list((out / 'val').iterdir())) == 6


def test_crowds_are_kept(tree, tmp_path):
    crowds = [entry for entry in read(make(tree, tmp_path / 'out'))['annotations'] if entry['iscrowd']]
    assert len(crowds) == 12
    assert all(crowd['segmentation'] == {'size': [8, 9], 'counts': [10, 4, 58]} for crowd in crowds)


def test_rare_classes_are_chosen_as_far_as_they_reach(tree, tmp_path):
    # Every image shows a person; 20 of 40 a car, 8 a train, 4 of these both. 12 images by chance would show 2.4 trains.
    images = Counter(entry['category_id'] for entry in read(make(tree, tmp_path / 'out'))['annotations'])
    assert images[7] >= 6
    assert images[3] >= 6


def test_choice_takes_turns_between_classes():
    # Images 0 to 9 show class 1 alone, 10 and 11 class 2 alone, 12 to 15 class 3 alone, and crowds count for nothing.
    owners = [1] * 10 + [2] * 2 + [3] * 4
    entries = [{'image_id': image, 'category_id': category} for image, category in enumerate(owners)]
    entries += [{'image_id': 16, 'category_id': 2, 'iscrowd': 1}]
    chosen = choose_images({'annotations': entries}, {1, 2, 3}, 9, seed=0)
    assert Counter(owners[image] for image in chosen) == {1: 4, 2: 2, 3: 3} or Counter(
        owners[image] for image in chosen
    ) == {1: 3, 2: 2, 3: 4}


def test_choice_ignores_the_order_in_the_file():
    entries = [{'image_id': image, 'category_id': image % 3} for image in range(60)]
    forward = choose_images({'annotations': entries}, {0, 1, 2}, 9, seed=5)
    assert choose_images({'annotations': entries[::-1]}, {0, 1, 2}, 9, seed=5) == forward


def test_seed_decides(tree, tmp_path):
    def names(out: str, seed: int) -> list[str]:
        return [image['file_name'] for image in read(make(tree, tmp_path / out, seed=seed))['images']]

    assert names('first', 0) == names('second', 0)
    assert names('third', 1) != names('first', 0)


def test_classes_restrict_images_annotations_and_categories(tree, tmp_path):
    content = read(make(tree, tmp_path / 'out', train=8, classes=['train', 'car']))
    assert [category['id'] for category in content['categories']] == [3, 7]
    assert {entry['category_id'] for entry in content['annotations']} == {3, 7}
    assert {entry['image_id'] for entry in content['annotations']} == {image['id'] for image in content['images']}


def test_images_can_be_linked(tree, tmp_path):
    out = make(tree, tmp_path / 'out', symlink=True)
    for path in (out / 'train').iterdir():
        assert path.is_symlink()
        assert path.resolve() == (tree / 'train2017' / path.name).resolve()


def test_splits_of_one_file_share_no_image(tree, tmp_path):
    split = coco_split(tree, 'val2017', 15)
    out = ensure_coco_subset(tmp_path / 'out', split, replace(split, count=20), report=lambda line: None)
    train, val = ({image['id'] for image in read(out, name)['images']} for name in ('train', 'val'))
    assert (len(train), len(val), train & val) == (15, 20, set())


def test_classes_are_named_at_the_end(tree, tmp_path):
    lines: list[str] = []
    make(tree, tmp_path / 'out', report=lines.append)
    assert lines[-1] == "classes: ('person', 'car', 'train')"


def test_complete_subset_needs_no_source(tree, tmp_path):
    out = make(tree, tmp_path / 'out')
    (tree / 'annotations' / 'instances_train2017.json').unlink()
    assert make(tree, tmp_path / 'out') == out


def test_missing_annotation_file_is_named(tree, tmp_path):
    (tree / 'annotations' / 'instances_val2017.json').unlink()
    with pytest.raises(DistillError, match=r'expected at ".*instances_val2017\.json" but is not there'):
        make(tree, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_missing_image_folder_is_named(tree, tmp_path):
    (tree / 'train2017').rename(tree / 'elsewhere')
    with pytest.raises(DistillError, match='expected in the folder ".*train2017"'):
        make(tree, tmp_path / 'out')


def test_missing_image_is_named(tree, tmp_path):
    for path in (tree / 'train2017').iterdir():
        path.unlink()
    with pytest.raises(DistillError, match=r'image ".*\.jpg", which ".*" names, is not there'):
        make(tree, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_half_an_annotation_file_is_refused(tree, tmp_path):
    path = tree / 'annotations' / 'instances_train2017.json'
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DistillError, match='not a complete JSON file'):
        make(tree, tmp_path / 'out')


def test_file_of_another_kind_is_refused(tree, tmp_path):
    (tree / 'annotations' / 'instances_train2017.json').write_text('{"images": [], "annotations": []}')
    with pytest.raises(DistillError, match='has no "categories"'):
        make(tree, tmp_path / 'out')


def test_unknown_class_gets_the_nearest_name(tree, tmp_path):
    with pytest.raises(DistillError, match='"persn" is not a class of the data set: did you mean "person"'):
        make(tree, tmp_path / 'out', classes=['persn'])


def test_too_many_images_are_refused(tree, tmp_path):
    with pytest.raises(DistillError, match='has 40 images .* but 41 were asked for'):
        make(tree, tmp_path / 'out', train=41)


def test_image_outside_the_folder_is_refused(tree, tmp_path):
    path = tree / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_bytes())
    for image in content['images']:
        image['file_name'] = f'../{image["file_name"]}'
    path.write_text(json.dumps(content))
    with pytest.raises(DistillError, match='outside its folder'):
        make(tree, tmp_path / 'out')
