"""Small data sets with the layout of those on the Hub, written as the Hub keeps them."""

from pathlib import Path

import datasets
from PIL import Image


PSR = {
    **dict.fromkeys(("post_id", "instruction", "simplified_instruction", "model", "comment_id"), "string"),
    **dict.fromkeys(("source_image", "ai_edited_image", "human_edited_image"), "image"),
}
REALEDIT = {"input_image": "image", "instruction": "string", "output_image": "image"}
ULTRAEDIT = {
    "clip_sim_source": "float64",
    "source_caption": "string",
    "idx": "int64",
    "edit_prompt": "string",
    "source_image": "image",
    "edited_image": "image",
}
MAGICBRUSH = {
    "img_id": "string",
    "turn_index": "int32",
    "instruction": "string",
    **dict.fromkeys(("source_img", "mask_img", "target_img"), "image"),
}
GEDIT = {
    **dict.fromkeys(("key", "task_type", "instruction", "instruction_language"), "string"),
    **dict.fromkeys(("input_image", "input_image_raw"), "image"),
    "Intersection_exist": "bool",
}
LAYOUTS = {
    "psr": ("test", PSR),
    "realedit": ("test", REALEDIT),
    "ultraedit": ("FreeForm_0", ULTRAEDIT),
    "magicbrush": ("dev", MAGICBRUSH),
    "gedit": ("train", GEDIT),
}


def picture(index: int, size=(12, 9)) -> Image.Image:
    return Image.new("RGB", size, (index, 100, 200))


def write_parquet(folder, split, kinds, columns):
    """A data set as the Hub keeps it: `data/<split>-*.parquet` with the features in the files' metadata."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {n: datasets.Image() if k == "image" else datasets.Value(k) for n, k in kinds.items()}
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(
        folder / "data" / f"{split}-00000-of-00001.parquet"
    )
    return folder


def complex_edit(folder, *counts):
    """Complex-Edit's layout: `edit` holds the single edits, and instructions that take in more and more of them."""
    text, step = (
        datasets.Value("string"),
        {"operation": datasets.Value("string"), "instruction": datasets.Value("string")},
    )
    compound = {"reasoning": text, "compound_instruction": text}
    features = {
        "image": datasets.Image(),
        "edit": {"sequence": datasets.List(step), "compound": datasets.List(compound)},
    }
    edits = [
        {
            "sequence": [{"operation": "Add", "instruction": f"edit {i}"} for i in range(count)],
            "compound": [{"reasoning": "", "compound_instruction": f"{i + 1} at once"} for i in range(count)],
        }
        for count in counts
    ]
    (folder / "data").mkdir(parents=True)
    columns = {"image": [picture(i) for i in range(len(counts))], "edit": edits}
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(
        folder / "data" / "test_real-00000-of-00001.parquet"
    )
    return folder


def write_data_set(name: str, folder: Path, count: int, size=(24, 16)) -> Path:
    """A benchmark of `count` rows; each row's texts say its place, and its pictures are of the colour `picture` gives it."""
    if name == "complexedit":
        return complex_edit(folder, *[8] * count)
    split, kinds = LAYOUTS[name]
    made = {
        "string": lambda column, i: "en" if column == "instruction_language" else f"{column} {i}",
        "image": lambda column, i: picture(i, size),
        "float64": lambda column, i: 0.5,
        "int64": lambda column, i: i,
        "int32": lambda column, i: 1,
        "bool": lambda column, i: True,
    }
    columns = {column: [made[kind](column, i) for i in range(count)] for column, kind in kinds.items()}
    return write_parquet(folder, split, kinds, columns)
