"""What a photo of 24 megapixels takes on the command line with the shipped bundle: start, reading, a plan, an edit, writing.

python benchmarks/large_photo.py

The time on a clock is bound by the imports of torch and diffusers and by LittleCMS, which takes all pixels to sRGB; the
seconds of the processor (user and system) hold on a busy machine as well. Both of the whole process, from its start.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image, ImageCms
from report import print_table


COMMAND = "import sys; from diffusers_r1.commands import main; sys.exit(main())"
WARNING = "was made for pictures of coloured shapes"


def photo(width: int, height: int) -> Image.Image:
    """Gradients with noise, which is what makes a JPEG long."""
    noise = np.random.default_rng(0)
    across, down = np.linspace(0, 200, width), np.linspace(0, 200, height)[:, None]
    smooth = np.stack(np.broadcast_arrays(across, down, (across + down) / 2), axis=-1).astype(np.uint8)
    return Image.fromarray(smooth + noise.integers(0, 50, smooth.shape, dtype=np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs=2, type=int, default=[6000, 4000], help="width and height")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, edited = Path(folder) / "photo.jpg", Path(folder) / "edited.jpg"
        exif = Image.Exif()
        exif[0x0112], exif[0x013B] = 6, "Ann Other"  # on its side, and whose it is
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        photo(*args.size).save(source, quality=92, dpi=(300, 300), icc_profile=profile, exif=exif)

        words = ["edit", source, "make the background teal", "--output", edited]
        start = time.monotonic()
        process = psutil.Popen(
            [sys.executable, "-c", COMMAND, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        warned = next(time.monotonic() - start for line in process.stderr if WARNING in line)
        process.stderr.read()
        wall, code = time.monotonic() - start, process.wait()
        used = psutil.Process().cpu_times()
        assert code == 0
        with Image.open(edited, formats=["JPEG"]) as picture:
            assert picture.size == (args.size[1], args.size[0]) and picture.info["dpi"] == (300, 300)
            assert picture.info["icc_profile"] and picture.getexif()[0x013B] == "Ann Other"
    print_table(
        [
            {
                "megapixels": args.size[0] * args.size[1] / 1e6,
                "seconds of the processor": used.children_user + used.children_system,
                "seconds": wall,
                "seconds to the warning": warned,
            }
        ]
    )


if __name__ == "__main__":
    main()
