"""The exact judge of scenes: what each cell shows is read out of the picture, without any model."""

from __future__ import annotations

from PIL import Image

from ..scenes import Scene, contents, read_contents
from .marks import PictureMarks


HARM_WEIGHT = 2.0


def scenes_marks(edited: Image.Image, before: Scene, after: Scene) -> PictureMarks:
    """What an edited picture of a scene is worth, from 0.0 to 1.0: `max(0, effect - 2 * harm) / 2 + exact / 2`.

    The parts are, over the nine cells and the background:

    - `effect`: of those that should change, the share that shows what it should;
    - `harm`: of those that should not, the share that no longer shows what it did;
    - `exact`: 1.0 if all ten are right, else 0.0.

    A picture left as it was has no effect and no harm: 0.0. Harm counts double, so that changing everything to hit
    something does not pay, and the half for `exact` keeps an edit too few from being good enough.

    Args:
        edited (`PIL.Image.Image`): What the editor made; resized to 64x64 if it has another size.
        before, after ([`~scenes.Scene`]): The source's scene, and the true outcome; of a [`~scenes.Task`] its `scene` and
            `target_scene`. They differ.

    Returns:
        [`PictureMarks`]: `parts` has `effect`, `harm` and `exact`.

    Example:
        >>> task = sample_task(0, "complex")  # doctest: +SKIP
        >>> scenes_marks(task.target_image, task.scene, task.target_scene).reward  # doctest: +SKIP
        1.0
    """
    right = {True: [], False: []}
    for was, should, shows in zip(contents(before), contents(after), read_contents(edited)):
        right[was != should].append(shows == should)
    changed, rest = right[True], right[False]
    effect = sum(changed) / len(changed)
    harm = rest.count(False) / len(rest) if rest else 0.0
    exact = float(all((*changed, *rest)))
    reward = max(0.0, effect - HARM_WEIGHT * harm) / 2 + exact / 2
    return PictureMarks(reward, {"effect": effect, "harm": harm, "exact": exact})
