"""What an edited picture is worth: exact on scenes, by questions answered yes or no, or by scores from 0 to 10."""

from .judges import FunctionJudge, PictureJudge, ScenesJudge
from .marks import PictureMarks, paid
from .scenes import scenes_marks


__all__ = ["FunctionJudge", "PictureJudge", "PictureMarks", "ScenesJudge", "paid", "scenes_marks"]
