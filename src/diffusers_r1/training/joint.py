"""Planner and editor in one loop: plans of a prompt, pictures of a plan, two groupings, two losses, two optimizers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import schema
from ..editors import as_large_as
from ..endpoints import map_in_order
from ..images import resized, to_png
from ..judging import PictureJudge, PictureMarks
from ..names import is_address, only_configs, resolve
from ..pipelines.nested.parts import read_index
from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
from ..plan import EditPlan
from ..records import write_whole
from ..remote_editor import RemoteEditor
from .arguments import RewardArguments, check_least
from .diffusion_nft import EditorLearner, JudgedPicture, NFTSettings
from .editor_families import FAMILIES
from .picture_trainer import PictureGRPOTrainer
from .pictures import PictureReward, Renderer, as_marks, picture_keys, print_of


if TYPE_CHECKING:
    from trl import GRPOConfig

JOINT, PLANNER, EDITOR = "joint", "planner", "editor"
EDITOR_STATE = "editor.pt"  # in a checkpoint
PICTURE_COUNT = "pictures.json"  # there as well: how many have been made
SAMPLES = "samples"
SHEET_ROWS = 8
SHEET_SIDE = 128


@dataclass
class JointArguments(RewardArguments):
    """What the joint script asks for as well. Without `rewards`, they are `format` and `picture`."""

    rewards: list[str] = field(
        default_factory=lambda: ["format", "picture"],
        metadata={"help": "of the planner; picture is among them. The editor's is picture alone"},
    )
    train: Literal["joint", "planner", "editor"] = field(
        default=JOINT, metadata={"help": "who learns; the other one is as it was"}
    )
    pictures_per_plan: int = field(
        default=4, metadata={"help": "pictures of each different plan: a group of the editor"}
    )
    max_pictures: int | None = field(
        default=None,
        metadata={
            "help": "stop after the step in which so many have been made in all: runs that learn different things differ in "
            "pictures a step"
        },
    )
    editor_learning_rate: float = field(
        default=1e-4, metadata={"help": "of the editor, times what the schedule makes of the planner's"}
    )
    editor_lora_r: int | None = field(
        default=None, metadata={"help": "rank of an adapter of the editor; all its weights without"}
    )
    editor_batch_size: int = field(default=8, metadata={"help": "pictures in one call of the denoiser, to learn"})
    editor_gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory, more time"})
    nft_beta: float = field(default=1.0, metadata={"help": "how far the implicit policies lie from the old one"})
    nft_clip: float = field(default=5.0, metadata={"help": "of advantages, in standard deviations"})
    nft_penalty: float = field(default=1e-4, metadata={"help": "on the distance from the start's velocity"})
    nft_decay: float = field(default=0.5, metadata={"help": "the most that the old policy keeps of itself a step"})
    nft_ramp: float = field(default=0.001, metadata={"help": "by how much of it that rises a step, from 0"})
    nft_levels: int = field(default=4, metadata={"help": "noise levels of a picture a step"})
    samples_every: int = field(default=10, metadata={"help": "steps between two contact sheets"})

    def __post_init__(self):
        super().__post_init__()
        if "picture" not in self.rewards:
            raise ValueError("The pictures pay: `picture` is among the `rewards`.")
        check_least(self, 1, "pictures_per_plan", "samples_every", "max_pictures", "editor_lora_r")
        if self.train != PLANNER and self.pictures_per_plan < 2:
            raise ValueError("An editor learns from what differs: `pictures_per_plan` is at least 2.")
        if self.train != PLANNER and self.editor_lora_r is None and self.picture_editor_dtype != "float32":
            raise ValueError(
                "All weights of an editor are trained in single precision: --picture_editor_dtype float32."
            )
        if self.editor_learning_rate <= 0:
            raise ValueError("`editor_learning_rate` is above 0.")
        if self.bundle_editor is not None:
            raise ValueError("The bundle has the editor that was trained; leave out `bundle_editor`.")
        self.nft_settings()

    def nft_settings(self) -> NFTSettings:
        """Those of the loss. Raises as they do."""
        return NFTSettings(
            beta=self.nft_beta,
            clip=self.nft_clip,
            penalty=self.nft_penalty,
            decay=self.nft_decay,
            ramp=self.nft_ramp,
            levels=self.nft_levels,
            batch_size=self.editor_batch_size,
        )


def check_joint(arguments: JointArguments, training: GRPOConfig, processes: int = 1) -> None:
    """Refuse what cannot be trained, before a model is loaded. Only the editor's index is read.

    Raises:
        ValueError: If the editor lies behind an address, its class is none that can be trained, or it is sampled with
            guidance; if there are several processes; if checkpoints would lack the editor, or its learning rate has no schedule
            to follow.
        OSError: If no pipeline has that name.
    """
    name = str(arguments.picture_editor)
    behind_address = "An editor behind an address cannot be trained: name a folder, a bundle or a Hub pipeline."
    if is_address(name):
        raise ValueError(behind_address)
    if training.save_only_model:
        raise ValueError("The editor is saved with the state of the optimizer: leave out --save_only_model.")
    if training.learning_rate <= 0:
        raise ValueError(
            "The editor follows the planner's --learning_rate, which is above 0; --train says who learns."
        )
    if processes > 1:
        raise ValueError("Planner and editor are trained in one process; `accelerate launch` with --num_processes 1.")
    folder = resolve(name, only_configs)
    index = read_index(folder)
    if index["_class_name"][-1] == ImageEditR1Pipeline.__name__:
        if index["editor"][-1] == RemoteEditor.__name__:
            raise ValueError(behind_address)
        index = read_index(Path(folder) / "editor")
    names = index["_class_name"]
    class_name = names if isinstance(names, str) else names[-1]
    if arguments.train != PLANNER:
        if class_name not in FAMILIES:
            raise ValueError(f"{class_name} cannot be trained; these classes can: {', '.join(FAMILIES)}.")
        FAMILIES[class_name].unguided(arguments.editor_arguments)


def called_with(renderer: Renderer) -> dict[str, Any]:
    """With what the editor is called, whoever learns: without guidance where its class can be trained, so that runs compare."""
    editor = type(renderer.pipeline.editor).__name__
    unguided = FAMILIES[editor].without_guidance if editor in FAMILIES else {}
    return {**unguided, **renderer.pipeline.editor_defaults, **renderer.arguments}


class JointReward(PictureReward):
    """A plan earns the mean of what its pictures earn, and the pictures are kept for the editor to learn from.

    | grouping | of | learns |
    |---|---|---|
    | plans of one prompt | what a plan earns: the mean of its pictures | the planner, by GRPO |
    | pictures of one plan | what each picture earns | the editor, by DiffusionNFT |

    Plans of a prompt in the same words have the same pictures. Picture m of every plan of a prompt has the same noise, which
    is another one at each step. Pictures that nobody could judge are left out of both groupings; a plan without any is
    worth `None`.

    Logged with each step, besides what [`PictureReward`] logs: `picture/spread`, the mean standard deviation within a plan.

    Args:
        renderer ([`Renderer`]): Its editor makes the pictures.
        judge ([`~judging.PictureJudge`]): Looks at them.
        pictures_per_plan (`int`): How many there are of each.
        seed (`int`, defaults to 0): Of the noise, together with step, prompt and number.
    """

    def __init__(self, renderer: Renderer, judge: PictureJudge, pictures_per_plan: int, seed: int = 0):
        super().__init__(renderer, judge, seed)
        self.pictures_per_plan = pictures_per_plan
        self.step = self.rendered = 0
        self.learner: EditorLearner | None = None
        self.judged: list[JudgedPicture] = []

    def marks_of(
        self,
        rows: Sequence[Mapping[str, Any]],
        plans: Sequence[EditPlan | Exception],
        log_metric: Callable[[str, float], None] | None,
    ) -> list[PictureMarks | None]:
        """Marks of each plan, the means over its pictures; `judged` has the pictures afterwards."""
        keys = picture_keys(rows, plans)
        first: dict[tuple, int] = {}
        for place, key in enumerate(keys):
            if key is not None:
                first.setdefault(key, place)
        many = self.pictures_per_plan
        repeated = [place for place in first.values() for _ in range(many)]
        seeds = [self._seed(rows[place], number % many) for number, place in enumerate(repeated)]
        pictures = self._made(
            [rows[place]["image"] for place in repeated], [plans[place] for place in repeated], seeds
        )
        self.rendered += len(pictures)

        def look(number: int) -> Any:
            source = rows[repeated[number]]["image"]
            edited = as_large_as(source.convert("RGB"), pictures[number].edited)
            return self.judge(source, edited, rows[repeated[number]])

        said = [as_marks(one) for one in map_in_order(look, range(len(pictures)), self.judge.concurrency)]
        self.warn("editor", [plan for plan in plans if isinstance(plan, Exception)])
        self.warn("judge", [one for one in said if not isinstance(one, PictureMarks)])
        by_key: dict[tuple, PictureMarks] = {}
        self.judged, spreads = [], []
        for group, key in enumerate(first):
            members = range(group * many, (group + 1) * many)
            known = [(pictures[number], one) for number in members if isinstance(one := said[number], PictureMarks)]
            if known:
                by_key[key] = _mean_marks([marks for _, marks in known])
                spreads.append(float(np.std([marks.reward for _, marks in known])))
            self.judged += [
                JudgedPicture(made.source, made.prompt, made.edited, marks.reward, group) for made, marks in known
            ]
        if log_metric is not None:
            log_metric("picture/rendered", float(len(pictures)))
            log_metric("picture/editor_failed", float(keys.count(None)))
            log_metric("picture/judge_failed", float(len(pictures) - len(self.judged)))
            if spreads:
                log_metric("picture/spread", float(np.mean(spreads)))
                log_metric("picture/reward_a_picture", float(np.mean([one.reward for one in self.judged])))
        return [None if key is None else by_key.get(key) for key in keys]

    def of_instructions(self, rows: Sequence[Mapping[str, Any]]) -> list[PictureMarks | None]:
        """As [`PictureReward`] has it. The editor does not learn from these pictures, which are of no plan."""
        judged = self.judged
        marks = super().of_instructions(rows)
        self.judged = judged
        return marks

    def _made(self, sources: Sequence[Image.Image], plans: Sequence[Any], seeds: Sequence[int]) -> list[JudgedPicture]:
        """The pictures, not judged yet, each with what the editor was given."""
        if not plans:
            return []
        pipe = self.renderer.pipeline
        sources = [source.convert("RGB") for source in sources]
        with self.learner.sampling() if self.learner is not None else nullcontext():
            turns = pipe.edit(
                sources,
                plans,
                "single",
                [torch.Generator().manual_seed(seed) for seed in seeds],
                max_batch=self.renderer.batch_size,
                **self.renderer.arguments,
            )
        return [
            JudgedPicture(resized(source, turn.size_given), turn.prompt, turn.image, 0.0, 0)
            for source, (turn,) in zip(sources, turns)
        ]

    def _seed(self, row: Mapping[str, Any], number: int) -> int:
        drawn = np.random.SeedSequence([self.seed, self.step, int.from_bytes(print_of(row)[:4], "big"), number])
        return int(drawn.generate_state(1)[0])


class JointGRPOTrainer(PictureGRPOTrainer):
    """[`PictureGRPOTrainer`] whose pictures also teach the editor that made them.

    The editor takes a step after each batch of completions is judged, before the planner's. Its learning rate follows the
    planner's schedule. Its state is `editor.pt` in each checkpoint, and `pictures.json` says how many pictures were made.

    Logged with each step: what [`EditorLearner.learn`] tells, under `editor/`.

    Args:
        train (`str`): `"joint"`, `"planner"` or `"editor"`.
        learner ([`EditorLearner`], *optional*): Of the editor; not with `"planner"`.
        editor_learning_rate (`float`): Before the schedule.
        samples_every (`int`): Steps between two contact sheets in `samples/`.
        max_pictures (`int`, *optional*): Training ends with the step in which so many pictures have been made in all.
    """

    lr_scheduler: Any  # once training has begun

    def __init__(
        self,
        *args: Any,
        train: str = JOINT,
        learner: EditorLearner | None = None,
        editor_learning_rate: float = 1e-4,
        samples_every: int = 10,
        max_pictures: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.max_pictures = max_pictures
        self.train_what, self.learner = train, learner
        self.editor_learning_rate, self.samples_every = editor_learning_rate, samples_every
        self.pictures = next(reward for reward in self.reward_funcs if isinstance(reward, JointReward))
        self.pictures.learner = learner

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self.pictures.step = step = self.state.global_step
        scored = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return scored
        if self.max_pictures is not None and self.pictures.rendered >= self.max_pictures:
            self.control.should_training_stop = True
        if step % self.samples_every == 0:
            folder = Path(self.args.output_dir) / SAMPLES
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"step-{step:05d}.png", contact_sheet(self.pictures.judged))
        if self.learner is not None:
            factor = self.lr_scheduler.get_last_lr()[0] / self.args.learning_rate
            for name, value in self.learner.learn(self.pictures.judged, self.editor_learning_rate * factor).items():
                self._metrics["train"][f"editor/{name}"].append(value)
        return scored

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if self.train_what != EDITOR:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        self._prepare_inputs(inputs)
        self._step += 1
        return torch.zeros((), device=self.accelerator.device)  # the planner has no gradient, and stays

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        write_whole(Path(output_dir) / PICTURE_COUNT, json.dumps(self.pictures.rendered))
        if self.learner is not None:
            torch.save(self.learner.state_dict(), os.path.join(output_dir, EDITOR_STATE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.pictures.rendered = schema.read_file(Path(checkpoint) / PICTURE_COUNT, int)
        if self.learner is not None:
            path = os.path.join(checkpoint, EDITOR_STATE)
            self.learner.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))


def contact_sheet(pictures: Sequence[JudgedPicture]) -> bytes:
    """A PNG of what was made: a row for each of the first groups, first the source, then its pictures, each under its reward.

    Args:
        pictures (sequence of [`JudgedPicture`]): Groups one after the other.
    """
    groups: dict[int, list[JudgedPicture]] = {}
    for picture in pictures:
        groups.setdefault(picture.group, []).append(picture)
    rows = list(groups.values())[:SHEET_ROWS]
    line, gap = 14, 4
    columns = 1 + max((len(row) for row in rows), default=0)
    side = min(SHEET_SIDE, max((max(picture.source.size) for picture in pictures), default=1))
    sheet = Image.new("RGB", (columns * (side + gap), max(1, len(rows)) * (side + 2 * line + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = number * (side + 2 * line + gap)
        draw.text((2, top), row[0].prompt.encode("ascii", "replace").decode(), fill="black")
        captions = ["source", *(f"{picture.reward:.2f}" for picture in row)]
        for column, (shown, caption) in enumerate(
            zip([row[0].source, *(picture.edited for picture in row)], captions)
        ):
            left = column * (side + gap)
            small = shown.convert("RGB")
            small.thumbnail((side, side))
            draw.text((left + 2, top + line), caption, fill="black")
            sheet.paste(small, (left, top + 2 * line))
    return to_png(sheet)


def _mean_marks(marks: Sequence[PictureMarks]) -> PictureMarks:
    names = dict.fromkeys(name for one in marks for name in one.parts)
    parts = {name: float(np.mean([one.parts[name] for one in marks if name in one.parts])) for name in names}
    return PictureMarks(float(np.mean([one.reward for one in marks])), parts)
