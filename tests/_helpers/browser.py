"""A headless Chromium, where there is one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome')


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser by Playwright's interface; skips the test where Playwright or a browser is missing."""
    api = pytest.importorskip('playwright.sync_api', reason='pip install -r requirements/browser.txt')
    installed = next((path for name in NAMES if (path := shutil.which(name))), None)
    with api.sync_playwright() as playwright:
        try:
            # Chromium's sandbox asks for rights that a container does not have; the page is our own.
            browser = playwright.chromium.launch(executable_path=installed, args=['--no-sandbox'])
        except api.Error as error:
            if installed:
                raise
            pytest.skip(f'no Chromium: {str(error).splitlines()[0]}')
        yield browser
        browser.close()
