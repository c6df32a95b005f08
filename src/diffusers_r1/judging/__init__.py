"""What an edited picture is worth: exact on scenes, by questions answered yes or no, or by scores from 0 to 10."""

from .checklist import Checklist, Question, checklist_marks, questions_of
from .judges import ChecklistJudge, FunctionJudge, PictureJudge, ScenesJudge, VIEScoreJudge
from .marks import PictureMarks, paid
from .models import LocalModel
from .scenes import scenes_marks
from .viescore import VIEScore


__all__ = [
    "Checklist",
    "ChecklistJudge",
    "FunctionJudge",
    "LocalModel",
    "PictureJudge",
    "PictureMarks",
    "Question",
    "ScenesJudge",
    "VIEScore",
    "VIEScoreJudge",
    "checklist_marks",
    "paid",
    "questions_of",
    "scenes_marks",
]
