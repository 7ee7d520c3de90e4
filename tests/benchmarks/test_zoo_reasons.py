"""What a stock model lacks, in a plain sentence."""

from __future__ import annotations

import sys

import pytest
import torch
from mmdet.registry import MODELS

from benchmarks.zoo import reasons
from benchmarks.zoo.reasons import lack, sentence
from mmkd_plugin.errors import DistillError


@pytest.mark.parametrize(
    ('said', 'expected'),
    [
        (
            'carafe_forward_impl: implementation for device cpu not found.\n',
            'needs a GPU: its operator carafe has no CPU version',
        ),
        ('absent_a is not installed,                 please install it by: pip install absent-a', 'absent_a'),
        ('Please run "pip install absent_b" to install it first.', 'absent_b'),
        ('Please run "pip install openmim" and run "mim install absent_c" to install absent_c first.', 'absent_c'),
        ('If you want to reduce memory,\n   execute the following command: pip install absent_d.', 'absent_d'),
        ('To use VPD model, please install required packages via `pip install -r o.txt`.', 'latent-diffusion'),
        (
            "We couldn't connect to 'https://huggingface.co' to load the files",
            'needs weights that cannot be fetched here',
        ),
        (
            'Please train `detector` and `reid` models firstly, then inference with SORT/DeepSORT.',
            'is put together of models that are trained by themselves',
        ),
        ("[enforce fail] . DefaultCPUAllocator: can't allocate memory", 'needs more memory than one config may take'),
    ],
)
def test_known_faults(said, expected):
    expected = expected if ' ' in expected else f'needs the package {expected}'
    assert lack(RuntimeError(said)) == expected


def test_the_innermost_missing_module_counts():
    try:
        try:
            import absent_module.part  # noqa: F401
        except ImportError as error:
            raise ImportError('Failed to import custom modules from ...') from error
    except ImportError as error:
        assert lack(error) == 'needs the package absent_module'


def test_names_of_pip(monkeypatch):
    monkeypatch.setattr(reasons, 'find_spec', lambda name: None)
    assert lack(ModuleNotFoundError('no', name='skimage.draw')) == 'needs the package scikit-image'


@pytest.mark.parametrize(('cuda', 'more'), [(None, ', which has no build for this torch'), ('13.0', '')])
def test_torchvision_fits_a_torch_with_cuda_alone(monkeypatch, cuda, more):
    monkeypatch.setattr(reasons, 'find_spec', lambda name: None)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    assert lack(ModuleNotFoundError('no', name='torchvision')) == f'needs the package torchvision{more}'


@pytest.mark.parametrize(
    ('code', 'expected'),
    [
        ('import absent_module', 'needs the package half_there: it needs the package absent_module'),
        ('class A(None): pass', 'needs the package half_there, which cannot be imported: TypeError: '),
    ],
)
def test_a_package_that_is_there_and_cannot_be_imported(tmp_path, monkeypatch, code, expected):
    (tmp_path / 'half_there.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'half_there', raising=False)
    assert lack(RuntimeError('half_there is not installed')).startswith(expected)


def test_what_is_not_known_stays_as_it_was_said():
    assert lack(TypeError('  odd\n      thing')) == sentence(TypeError('odd')) == 'TypeError: odd'
    assert sentence(DistillError('Ours.')) == 'Ours.'
    assert len(sentence(TypeError('a' * 500))) == len('TypeError: ') + 300


def test_a_fault_of_the_models_own_code_is_told_with_its_place():
    model = MODELS.build(
        dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=4, num_outs=2, norm_cfg=dict(type='BN'))
    )
    with pytest.raises(RuntimeError) as caught:
        model([torch.zeros(1, 4, 8, 8), torch.zeros(1, 16, 4, 4)])
    assert lack(caught.value).startswith('fails in its own code, mmdet/models/necks/fpn.py: RuntimeError: ')
    assert lack(RuntimeError('elsewhere')) == 'RuntimeError: elsewhere'
