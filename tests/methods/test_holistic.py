"""The discriminator's stages are found from the size of the class maps."""

from __future__ import annotations

import pytest
from _helpers.tiny_seg import block, pspnet, run_config

from mmkd_plugin.block import expand_config


def expanded(tmp_path, size=None, teacher=None, **keys):
    """The distiller's config for images of a size; class maps have an eighth of it."""
    student = pspnet()
    student['data_preprocessor']['size'] = size
    values = block({}, methods=dict(holistic=dict(type='Holistic', **keys)), **(teacher or {}))
    return expand_config(run_config(tmp_path, distill=values, model=student)).model.distiller


@pytest.mark.parametrize(
    ('size', 'stages'), [((512, 512), 4), ((256, 1024), 3), ((264, 264), 4), ((128, 128), 2), ((64, 64), 1), (None, 4)]
)
def test_stages_for_the_shorter_side_of_the_class_map(tmp_path, size, stages):
    widths = expanded(tmp_path, size).distill_losses.loss_holistic.widths
    assert tuple(widths) == (64, 128, 256, 512)[:stages]


def test_class_maps_have_the_size_of_the_teachers(tmp_path):
    # A teacher of images twice as large makes 16 cells of 64 pixels.
    widths = expanded(tmp_path, (64, 64), teacher=dict(teacher_scale=2.0)).distill_losses.loss_holistic.widths
    assert tuple(widths) == (64, 128)


def test_widths_that_are_written_stand(tmp_path):
    assert tuple(expanded(tmp_path, (64, 64), widths=[8, 8, 8]).distill_losses.loss_holistic.widths) == (8, 8, 8)


@pytest.mark.parametrize('wanted', [True, False])
def test_losses_are_compiled_where_the_block_says_so(tmp_path, wanted):
    distiller = expand_config(
        run_config(tmp_path, distill=block(dict(type='PixelWise'), compile_losses=wanted))
    ).model.distiller
    assert distiller.get('compile_losses', False) is wanted
