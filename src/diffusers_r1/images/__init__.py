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
    picture_sizes,
    resized,
)
from .writing import (
    MOST_PIXELS_SENT,
    SUFFIXES,
    check_format,
    check_writable,
    content_of,
    size_to_send,
    to_png,
    to_send,
    write_picture,
)


__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MAX_UPLOAD_PIXELS",
    "MOST_PIXELS_SENT",
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
    "picture_sizes",
    "resized",
    "size_to_send",
    "to_png",
    "to_send",
    "write_picture",
]
