"""The core check on every stack, and the page that tells what came of it; needs the standard library alone."""
