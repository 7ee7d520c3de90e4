"""A text encoder that nobody has to download."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet')

from mmkd_plugin.study.one_step import offline
from mmkd_plugin.study.one_step.language import WORDS, names


def test_a_small_text_encoder_takes_the_place_of_one_that_would_be_downloaded():
    transformers = pytest.importorskip('transformers')
    state = torch.get_rng_state()
    model = offline(dict(type='GLIP', language_model=dict(type='BertModel', name='bert-base-uncased')))
    folder = model.language_model.name
    assert torch.equal(torch.get_rng_state(), state)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)('. '.join(names(WORDS)) + '.')['input_ids']
    assert (
        len(tokens) == 2 * WORDS + 2
        and transformers.BertTokenizerFast.from_pretrained(folder).unk_token_id not in tokens
    )
    encoder = transformers.BertModel.from_pretrained(folder)
    assert encoder(torch.tensor([tokens])).last_hidden_state.shape == (1, 2 * WORDS + 2, 768)
