"""Bytes, rows and frames to typed frames, what cannot be used kept with its reason."""

from headrace.formats.decoding import decode
from headrace.formats.frames import decode_frame
from headrace.formats.rows import decode_rows

__all__ = ["decode", "decode_frame", "decode_rows"]
