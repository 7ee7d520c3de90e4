"""Other people's decoders must read the pixels that were written."""

from __future__ import annotations

import io
import struct

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmkd_plugin.datasets.coco_mini.png import png


# 3 * 200 * 150 bytes need two stored blocks; 109 * (3 * 200 + 1) = 65509 and 257 * 255 = 65535 lie at a block's end.
@pytest.mark.parametrize('shape', [(7, 5), (7, 5, 3), (150, 200, 3), (109, 200, 3), (257, 254), (258, 254)])
def test_pixels_come_back(shape):
    pixels = (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)
    content = png(pixels)
    assert np.array_equal(np.array(Image.open(io.BytesIO(content))), pixels)
    order = 'unchanged' if len(shape) == 2 else 'color'
    assert np.array_equal(mmcv.imfrombytes(content, flag=order, channel_order='rgb', backend='cv2'), pixels)


def test_bytes_of_one_pixel():
    # Signature; header 1 x 1, 8 bit grey; zlib header, one last stored block of 2 bytes, filter 0 and the grey 5,
    # Adler-32 of (0, 5): low sum 1 + 0 + 5 = 6, high sum 1 + 6 = 7.
    content = png(np.array([[5]], dtype=np.uint8))
    assert content[:16] == b'\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR'
    assert struct.unpack('>IIBBBBB', content[16:29]) == (1, 1, 8, 0, 0, 0, 0)
    assert content[37:54] == b'IDAT' + b'\x78\x01' + b'\x01\x02\x00\xfd\xff' + b'\x00\x05' + b'\x00\x07\x00\x06'
