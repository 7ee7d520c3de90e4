"""``mmkd print-config`` from a clone."""

from __future__ import annotations

import sys

from mmkd_plugin.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['print-config', *sys.argv[1:]]))
