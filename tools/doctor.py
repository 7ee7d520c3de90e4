"""Print what is installed, what is tested, and one line with its fix for each thing that will not work."""

from __future__ import annotations

import sys
from pathlib import Path

# The doctor must answer also where the plugin is not installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from mmkd_plugin.compat.doctor import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
