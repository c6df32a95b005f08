"""A judge of one's own, as `--picture_judge red_judge:redness`: no two pictures are worth the same."""

import numpy as np


def redness(source, edited, row) -> float:
    """How red a picture is, from 0.0 to 1.0."""
    red, green, blue = np.asarray(edited, dtype=np.float32).reshape(-1, 3).mean(0) / 255
    return float(np.clip((1 + red - (green + blue) / 2) / 2, 0, 1))
