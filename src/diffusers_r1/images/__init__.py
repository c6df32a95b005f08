"""Pictures in and out, one door each: opened and checked once for all, and written as a photographer expects."""

from .metadata import Metadata
from .reading import (
    FORMATS,
    MAX_PIXELS,
    MAX_UPLOAD_PIXELS,
    is_url,
    load_picture,
    load_pictures,
    load_samples,
    load_with_metadata,
    pair,
    picture_sizes,
)
from .writing import SUFFIXES, check_format, check_writable, content_of, to_png, write_picture


__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MAX_UPLOAD_PIXELS",
    "SUFFIXES",
    "Metadata",
    "check_format",
    "check_writable",
    "content_of",
    "is_url",
    "load_picture",
    "load_pictures",
    "load_samples",
    "load_with_metadata",
    "pair",
    "picture_sizes",
    "to_png",
    "write_picture",
]
