"""``python -m mmkd_plugin.doctor``: what is installed, what is tested, and what will not work."""

from __future__ import annotations

import sys

from mmkd_plugin.compat.doctor import main

if __name__ == '__main__':
    sys.exit(main())
