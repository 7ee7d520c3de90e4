"""``mmkd doctor`` from a clone, also where the plugin is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from mmkd_plugin.__main__ import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(['doctor', *sys.argv[1:]]))
