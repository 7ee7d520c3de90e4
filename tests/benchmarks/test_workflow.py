"""The workflow for hosted CI is well formed and runs every stack with the stack's own Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from mmkd_plugin.compat.stacks import read_stacks

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / '.github/workflows/stacks.yml'


def validate(file: Path) -> subprocess.CompletedProcess:
    """Hold a workflow against the published schema."""
    command = [sys.executable, '-m', 'check_jsonschema', '--builtin-schema', 'vendor.github-workflows', str(file)]
    return subprocess.run(command, capture_output=True, text=True)


def test_workflow_follows_its_schema() -> None:
    done = validate(WORKFLOW)
    assert done.returncode == 0, done.stdout


def test_schema_notices_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / 'wrong.yml'
    wrong.write_text(WORKFLOW.read_text().replace('runs-on:', 'run-on:'))
    assert validate(wrong).returncode == 1


def test_matrix_has_every_stack_with_its_python() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())['jobs']
    matrix = {entry['stack']: entry['python'] for entry in jobs['stack']['strategy']['matrix']['include']}
    assert matrix == {name: stack.python for name, stack in read_stacks().items()}
