"""What an edited picture is worth, and what is wrong with it: exact on scenes, by questions answered yes or no, or by scores from 0 to 10."""

from .checklist import Checklist
from .critics import ChecklistCritic, Critic, Criticism, ScenesCritic, edits_by_request, find_critic
from .judges import ChecklistJudge, FunctionJudge, PictureJudge, ScenesJudge, VIEScoreJudge
from .marks import PictureMarks, paid
from .models import LocalModel
from .scenes import scenes_marks
from .viescore import VIEScore


__all__ = [
    "Checklist",
    "ChecklistCritic",
    "ChecklistJudge",
    "Critic",
    "Criticism",
    "FunctionJudge",
    "LocalModel",
    "PictureJudge",
    "PictureMarks",
    "ScenesCritic",
    "ScenesJudge",
    "VIEScore",
    "VIEScoreJudge",
    "edits_by_request",
    "find_critic",
    "paid",
    "scenes_marks",
]
