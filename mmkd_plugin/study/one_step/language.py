"""A small text encoder with random weights, in place of one that would be downloaded."""

from __future__ import annotations

import functools
import tempfile
from typing import Any

WORDS = 80
"""Names of classes that the text encoder knows as one token each; with the dots between them they fit 256 tokens."""


def names(classes: int) -> tuple[str, ...]:
    """Names of classes, one token each."""
    return tuple(f'class{index}' for index in range(classes))


def local_text_encoder(name: str) -> str:
    """Folder of a BERT of two random layers as wide as the usual one, with a tokenizer for :func:`names`.

    Args:
        name: The text encoder that a config asks for.

    Returns:
        The folder, gone when the process ends; the name itself where ``transformers`` is not installed, so that the
        model says what it lacks.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        return name
    return _folder().name


@functools.lru_cache(maxsize=None)
def _folder() -> tempfile.TemporaryDirectory[str]:
    from pathlib import Path

    from transformers import BertConfig, BertModel, BertTokenizerFast

    from mmkd_plugin.utilities.rng import isolated_rng

    folder = tempfile.TemporaryDirectory()
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', *names(WORDS)]
    words = Path(folder.name) / 'words.txt'
    words.write_text('\n'.join(vocabulary))
    BertTokenizerFast(str(words)).save_pretrained(folder.name)
    config: Any = BertConfig(vocab_size=len(vocabulary), num_hidden_layers=2)
    with isolated_rng():
        BertModel(config).save_pretrained(folder.name)
    return folder
