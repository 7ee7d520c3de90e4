"""The code of the page on ONNX runs as it stands, and ONNX Runtime finds what the plain student finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmdeploy')
pytest.importorskip('onnxruntime')

import onnxruntime
from _helpers.layouts import below
from mmdet.apis import inference_detector, init_detector
from mmseg.apis import init_model

from mmkd_plugin.__main__ import main
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini

ROOT = Path(__file__).resolve().parents[2]
SEGMENTOR = {
    "output_names=['dets', 'labels']": "output_names=['output']",
    'found.pred_instances.scores[:5]': 'found.pred_sem_seg.data.shape',
}


def page(kind: str) -> str:
    """The page's code for a detector, and as the page says for a segmentor."""
    code = (ROOT / 'docs/export.md').read_text(encoding='utf-8').split('## On to ONNX')[1]
    code = code.split('```python\n')[1].split('```')[0]
    if kind == 'segmentor':
        for old, new in SEGMENTOR.items():
            assert old in code
            code = code.replace(old, new)
        start, end = code.index('        codebase_config='), code.index('        backend_config=')
        task = "        codebase_config=dict(type='mmseg', task='Segmentation', with_argmax=False),\n"
        code = code[:start] + task + code[end:]
    return code


def run(folder: Path, code: str) -> None:
    """Run the page in an interpreter of its own, since MMDeploy rewrites functions of torch and MMDetection."""
    (folder / 'script.py').write_text(code, encoding='utf-8')
    done = subprocess.run([sys.executable, 'script.py'], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """With an image."""
    ensure_coco_mini(tmp_path / 'data', MiniSettings(train=1, val=1), report=lambda line: None)
    (tmp_path / 'image.jpg').write_bytes(next((tmp_path / 'data/val').glob('*.png')).read_bytes())
    return tmp_path


def exported(folder: Path, model: str, changes: str = '') -> tuple[str, str]:
    """A student in MMRazor's layout, by the command: its config and its file."""
    content = load_checkpoint_file(str(ROOT / f'configs/coco_mini/{model}.pth'))
    torch.save(dict(state_dict=below('architecture', content['state_dict']), meta=content['meta']), folder / 'run.pth')
    (folder / 'student.py').write_text(f"_base_ = 'mmkd_plugin::coco_mini/{model}.py'\n{changes}")
    arguments = [folder / 'run.pth', '--config', folder / 'student.py', '--out', folder / 'student.pth']
    assert main(['export', *map(str, arguments)]) == 0
    return str(folder / 'student.py'), str(folder / 'student.pth')


def test_detector(folder: Path) -> None:
    student = init_detector(*exported(folder, 'retina_r34'), device='cpu')
    run(folder, page('detector') + "import numpy\nnumpy.savez('onnx.npz', **found.pred_instances.numpy())\n")
    onnx = np.load(folder / 'onnx.npz')
    plain = inference_detector(student, str(folder / 'image.jpg')).pred_instances.numpy()
    # What is found with little certainty may change places.
    sure = plain.scores > 0.1
    count = int(sure.sum())
    assert count > 0
    assert np.array_equal(onnx['labels'][:count], plain.labels[sure])
    assert np.abs(onnx['scores'][:count] - plain.scores[sure]).max() < 1e-4
    assert np.abs(onnx['bboxes'][:count] - plain.bboxes[sure]).max() < 0.1


def test_segmentor(folder: Path) -> None:
    # MMDeploy pools by cells of one size, which is exact where the scales divide the map; no weight depends on them.
    scales = 'model = dict(decode_head=dict(pool_scales=(1, 2, 4, 8)))\n'
    student = init_model(*exported(folder, 'pspnet_r34', scales), device='cpu')
    run(folder, page('segmentor'))
    session = onnxruntime.InferenceSession(str(folder / 'work_dirs/student.onnx'), providers=['CPUExecutionProvider'])
    # The logits, since MMDeploy enlarges labels to the size of the image, where MMSegmentation enlarges logits.
    image = torch.randn(1, 3, *session.get_inputs()[0].shape[2:], generator=torch.Generator().manual_seed(0))
    onnx = session.run(None, dict(input=image.numpy()))[0]
    with torch.no_grad():
        plain = student.predict(image)[0].seg_logits.data.numpy()
    assert onnx[0].shape == plain.shape
    assert np.abs(onnx[0] - plain).max() < 1e-4 * np.abs(plain).max()
