"""The small world: coloured shapes on a 3x3 board over a plain background, drawn, and judged cell by cell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image, ImageDraw


COLORS = {
    "red": (220, 38, 38),
    "green": (34, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 40),
    "purple": (140, 50, 180),
    "orange": (245, 130, 30),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = {
    "gray": (150, 150, 150),
    "teal": (0, 128, 128),
    "pink": (250, 180, 195),
    "brown": (110, 72, 48),
    "beige": (222, 208, 170),
}
PLACES = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")

SIZE = 64  # pixels a side of a picture
CELL = (
    16  # pixels a side of a cell; the board of 3x3 cells lies in the middle, so cells and the editor's latents align
)
MARGIN = (SIZE - 3 * CELL) // 2
NOTHING, UNREADABLE = "nothing", "unreadable"
RIGHT_LIMIT = 40.0  # mean absolute difference, of 255, above which a cell is wrong even when its truth is nearest


@dataclass(frozen=True)
class Item:
    """A coloured shape; prints as `"red circle"`."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


CONTENTS = (None, *(Item(color, shape) for color in COLORS for shape in SHAPES))


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Args:
        cells (`tuple` of [`Item`] or `None`, length 9): The contents, in the order of `PLACES`.
        background (`str`): A key of `BACKGROUNDS`.
    """

    cells: tuple[Item | None, ...]
    background: str

    @property
    def items(self) -> list[Item]:
        """The shapes, in the order of `PLACES`."""
        return [item for item in self.cells if item]

    def place_of(self, item: Item) -> int:
        """The index in `PLACES` at which `item` lies."""
        return self.cells.index(item)

    def with_cell(self, place: int, item: Item | None) -> Scene:
        """The scene with another content at `place`."""
        return replace(self, cells=(*self.cells[:place], item, *self.cells[place + 1 :]))


def describe(scene: Scene) -> str:
    """The inventory of a scene in words, place by place and the background last.

    Example:
        >>> describe(Scene((None, Item("red", "star"), *[None] * 7), "teal"))
        'top red star; background teal'
    """
    shown = [f"{place} {item}" for place, item in zip(PLACES, scene.cells) if item]
    return "; ".join([*shown, f"background {scene.background}"])


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture of 64x64 pixels. The same scene always gives the same pixels."""
    pixels = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    pixels[:] = BACKGROUNDS[scene.background]
    for place, item in enumerate(scene.cells):
        top, left = _corner(place)
        pixels[top : top + CELL, left : left + CELL] = _cell(item, scene.background)
    return Image.fromarray(pixels)


def score_scene(image: Image.Image, scene: Scene) -> list[bool]:
    """Judge a picture against the scene that it should show.

    A cell is right when, of every content that a cell can have on the scene's background (nothing, or each shape in
    each colour), the true one is nearest in mean absolute difference of pixel values (0 to 255) and the difference is
    at most 40. The background, outside the board, is judged likewise among all backgrounds.

    Args:
        image (`PIL.Image.Image`): Resized to 64x64 if it has another size.
        scene ([`Scene`]): The truth.

    Returns:
        `list` of `bool`, length 10: the nine cells in the order of `PLACES`, then the background.
    """
    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32)
    marks = []
    for place, item in enumerate(scene.cells):
        top, left = _corner(place)
        cell = pixels[top : top + CELL, left : left + CELL]
        distances = np.abs(_all_cells(scene.background) - cell).mean(axis=(1, 2, 3))
        true = CONTENTS.index(item)
        marks.append(bool(distances.argmin() == true and distances[true] <= RIGHT_LIMIT))
    distances = np.array([np.abs(pixels[_border()] - color).mean() for color in BACKGROUNDS.values()])
    true = list(BACKGROUNDS).index(scene.background)
    marks.append(bool(distances.argmin() == true and distances[true] <= RIGHT_LIMIT))
    return marks


def read_contents(image: Image.Image) -> list[str]:
    """What a picture shows, cell by cell, without knowing what it should show.

    A cell is read on the background that the picture has, so that cells can be right where the background is not. What is
    nearest in mean absolute difference counts, if that is at most 40 of 255.

    Args:
        image (`PIL.Image.Image`): Resized to 64x64 if it has another size.

    Returns:
        `list` of `str`, length 10: the nine cells in the order of `PLACES`, `"red circle"` or `"nothing"`, then the
        background; `"unreadable"` where nothing is near.
    """
    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32)
    distances = np.array([np.abs(pixels[_border()] - color).mean() for color in BACKGROUNDS.values()])
    background = list(BACKGROUNDS)[distances.argmin()]
    seen = []
    for place in range(len(PLACES)):
        top, left = _corner(place)
        apart = np.abs(_all_cells(background) - pixels[top : top + CELL, left : left + CELL]).mean(axis=(1, 2, 3))
        seen.append(str(CONTENTS[apart.argmin()] or NOTHING) if apart.min() <= RIGHT_LIMIT else UNREADABLE)
    return [*seen, background if distances.min() <= RIGHT_LIMIT else UNREADABLE]


def contents(scene: Scene) -> list[str]:
    """A scene in the words of `read_contents`."""
    return [*(str(item or NOTHING) for item in scene.cells), scene.background]


def read_scene(image: Image.Image) -> Scene:
    """The scene that a picture shows: `read_scene(render(scene)) == scene`.

    Raises:
        ValueError: If a cell or the background is nothing that a scene has.
    """
    *cells, background = read_contents(image)
    if UNREADABLE in (*cells, background):
        raise ValueError("The picture shows no scene: a cell or the background is nothing that a scene has.")
    by_name = {str(item or NOTHING): item for item in CONTENTS}
    return Scene(tuple(by_name[name] for name in cells), background)


def _corner(place: int) -> tuple[int, int]:
    row, column = divmod(place, 3)
    return MARGIN + row * CELL, MARGIN + column * CELL


@cache
def _border() -> np.ndarray:
    """Which pixels lie outside the board, where nothing but the background is: (64, 64)."""
    border = np.ones((SIZE, SIZE), dtype=bool)
    border[MARGIN : SIZE - MARGIN, MARGIN : SIZE - MARGIN] = False
    return border


@cache
def _coverage(shape: str) -> np.ndarray:
    """How much of each pixel of a cell a shape covers: (16, 16), 0 to 1, drawn eight times finer and averaged."""
    fine = 8
    side = CELL * fine
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    low, high = fine, side - fine
    if shape == "circle":
        draw.ellipse((low, low, high - 1, high - 1), fill=255)
    elif shape == "square":
        draw.rectangle((low, low, high - 1, high - 1), fill=255)
    elif shape == "triangle":
        draw.polygon([(side / 2, low), (high, high), (low, high)], fill=255)
    else:
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2, 0.42, 1.0) * (high - low) / 2
        center = side / 2 + fine / 2
        draw.polygon([(side / 2 + r * np.cos(a), center + r * np.sin(a)) for a, r in zip(angles, radii)], fill=255)
    return np.asarray(canvas, dtype=np.float32).reshape(CELL, fine, CELL, fine).mean(axis=(1, 3)) / 255


@cache
def _cell(item: Item | None, background: str) -> np.ndarray:
    behind = np.array(BACKGROUNDS[background], dtype=np.float32)
    if item is None:
        return np.broadcast_to(behind, (CELL, CELL, 3)).astype(np.uint8)
    coverage = _coverage(item.shape)[..., None]
    return np.round(coverage * np.array(COLORS[item.color]) + (1 - coverage) * behind).astype(np.uint8)


@cache
def _all_cells(background: str) -> np.ndarray:
    return np.stack([_cell(item, background) for item in CONTENTS]).astype(np.float32)
