"""PNG files whose bytes depend on the pixels alone."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_BLOCK = 65535


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png(pixels: np.ndarray) -> bytes:
    """Encode a picture without compression.

    Compressed bytes differ from one zlib to the next. Stored blocks (RFC 1951, 3.2.4) leave nothing to choose.

    Args:
        pixels: ``(H, W)`` grey or ``(H, W, 3)`` red, green, blue; uint8.

    Returns:
        The content of the file.
    """
    height, width = pixels.shape[:2]
    lines = np.zeros((height, pixels[0].size + 1), dtype=np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    raw = lines.tobytes()
    stream = b'\x78\x01'
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK]
        stream += struct.pack('<BHH', start + _BLOCK >= len(raw), len(block), len(block) ^ 0xFFFF) + block
    stream += struct.pack('>I', zlib.adler32(raw))
    header = struct.pack('>IIBBBBB', width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + _chunk(b'IHDR', header) + _chunk(b'IDAT', stream) + _chunk(b'IEND', b'')
