"""The formulas need PyTorch and nothing else: no NumPy, nothing of OpenMMLab."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

from _helpers.standard_library import standard_library

REFUSE = """
import json, sys
sys.path, allowed = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] not in allowed:
            raise ModuleNotFoundError('refused ' + name, name=name)

sys.meta_path.insert(0, Refuse())
"""
LOSS = """
import torch
from mmkd_plugin.functional import fgd_loss

student = torch.tensor([[[[3.0, 5.0]]]], requires_grad=True)
teacher, box = torch.zeros(1, 1, 1, 2), torch.tensor([[[0.0, 0.0, 0.0, 4.0]]])
terms = fgd_loss(student, teacher, box, torch.tensor([[True]]), torch.tensor([[4, 8]]))
(terms.foreground + terms.background).backward()
foreign = {name.partition('.')[0] for name in sys.modules} - allowed - {'__main__', '__mp_main__'}
print(json.dumps([terms.foreground.item(), terms.background.item(), student.grad.tolist(), sorted(foreign)]))
"""


def of_torch() -> set[str]:
    """Names that PyTorch brings or requires, directly or not."""
    own = {str(path).partition('/')[0] for path in importlib.metadata.files('torch') or () if path.suffix == '.py'}
    required, waiting = set(), {'torch'}
    while waiting:
        name = waiting.pop()
        required.add(name)
        try:
            lines = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            # Of another system, or another Python.
            continue
        # PyTorch itself looks for its extras while it is imported.
        wanted = [line for line in lines if name == 'torch' or 'extra ==' not in line]
        waiting |= {re.split(r'[ ;<>=!~(\[]', line)[0] for line in wanted} - required
    return own | {name.replace('-', '_') for name in required} | {'torchgen', 'functorch'}


def run(program: str) -> subprocess.CompletedProcess:
    """Run a program where every import but of the standard library, PyTorch's and the plugin's own is refused."""
    arguments = [json.dumps(sys.path), json.dumps(sorted(of_torch() | standard_library() | {'mmkd_plugin'}))]
    # Without site, since what is installed may import packages at the start of Python.
    command = [sys.executable, '-I', '-S', '-c', REFUSE + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_loss_and_gradient_by_hand():
    result = run(LOSS)
    assert result.returncode == 0, result.stderr
    foreground, background, gradient, foreign = json.loads(result.stdout)
    # Of an even teacher the attention is 1. The box covers 2 x 1 cells, one of them on the map: 3^2 / 2 and 5^2, whose
    # derivatives are 3 and 2 * 5.
    assert (foreground, background, gradient) == (4.5, 25, [[[[3, 10]]]])
    assert foreign == []


def test_everything_else_is_refused():
    for name in ('numpy', 'mmengine', 'mmcv', 'mmdet', 'mmrazor', 'rich', 'joblib', 'pytest'):
        assert name not in of_torch()
    result = run('import numpy')
    assert 'ModuleNotFoundError: refused numpy' in result.stderr
