"""What the training scripts ask of their user beside TRL's own options, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_type_hints

from accelerate import PartialState
from transformers import ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .. import schema
from ..data import check_apart, is_made, load_rows, to_prompts
from ..data.sources import rows_of_file
from ..endpoints import Endpoint
from ..judging import (
    Checklist,
    ChecklistJudge,
    FunctionJudge,
    LocalModel,
    PictureJudge,
    ScenesJudge,
    VIEScore,
    VIEScoreJudge,
)
from ..planners.control_tokens import control_tokens
from ..planners.templates import check_trainable, fitting_prompts
from ..prompts import FILE_NAME, Prompts
from ..rewards import ActionReward, FormatReward, GoalReward, SubjectReward
from .folders import QUESTIONS
from .models import Start
from .pictures import FEW_RETRIES, PictureReward, Renderer


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


REWARDS = ("format", "action", "subject", "subject_soft", "goal", "goal_soft", "goal_similarity", "picture")
WITHOUT_LABELS = ("format", "picture")  # rewards that need no true edits


@dataclass
class DataArguments:
    """Which rows a planner is trained and measured on, and where it goes afterwards. Both training scripts take these."""

    dataset_name: str = field(
        default="",
        metadata={
            "help": "psr, realedit, ultraedit, magicbrush, a Hub name, a folder, scenes[:kind=share,...] or sentences[:...]"
        },
    )
    dataset_path: str | None = field(default=None, metadata={"help": "where the data set is, if not at its own place"})
    dataset_train_split: str | None = field(default=None, metadata={"help": "the data set's own by default"})
    dataset_test_split: str | None = field(
        default=None,
        metadata={
            "help": "held-out rows for validation; `validation` for scenes and sentences, none by default for others"
        },
    )
    dataset_columns: str | None = field(
        default=None, metadata={"help": """what the data set calls our columns: '{"instruction": "edit_prompt"}'"""}
    )
    dataset_limit: int | None = field(
        default=None, metadata={"help": "the most rows; scenes and sentences have no end without it"}
    )
    dataset_seed: int | None = field(
        default=None, metadata={"help": "order of the rows; the first task of scenes and sentences"}
    )
    on_bad_row: Literal["error", "skip"] = field(default="error", metadata={"help": "error or skip"})
    image_size: int | None = field(
        default=None, metadata={"help": "pixels a side that all pictures are fitted to; as they are by default"}
    )
    validation_rows: int = field(default=200, metadata={"help": "how many rows of the test split are decomposed"})
    validation_steps: int = field(default=20, metadata={"help": "after how many steps, again and again"})
    freeze_vision: bool = field(default=True, metadata={"help": "leave the vision tower as it is"})
    prompts: str | None = field(
        default=None, metadata={"help": "a folder whose prompts.json the planner is asked with; its own by default"}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "start afresh where another run has been: what it left in output_dir goes"}
    )
    allow_changes: bool = field(
        default=False, metadata={"help": "go on from a checkpoint though settings, rows or base have changed"}
    )
    bundle_editor: str | None = field(
        default=None, metadata={"help": "write a whole ImageEditR1Pipeline with this editor: a Hub name or a folder"}
    )

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():  # a YAML file gets past types and `choices`
            schema.read(kind, getattr(self, name), f"`{name}`")
        if not self.dataset_name:
            raise ValueError("Name the rows to train on: --dataset_name.")
        check_least(self, 1, "validation_rows", "validation_steps", "dataset_limit", "image_size")
        check_least(self, 0, "dataset_seed")
        if self.prompts is not None:
            if not (Path(self.prompts) / FILE_NAME).exists():
                raise ValueError(f"`prompts` is a folder with a {FILE_NAME}, and {self.prompts} has none.")
            Prompts.load(self.prompts)  # raises where it cannot be read
        _ = self.columns
        if self.dataset_test_split is None and is_made(self.dataset_name):
            self.dataset_test_split = "validation"

    @property
    def needs_truth(self) -> bool:
        """Whether rows without true edits are of no use."""
        return True

    @property
    def needs_goals(self) -> bool:
        """Whether edits whose goal nobody knows are of no use."""
        return True

    @property
    def columns(self) -> dict[str, str]:
        """`dataset_columns`, read."""
        given = schema.read_json(self.dataset_columns or "{}", "`dataset_columns`")
        return schema.read(dict[str, str], given, "`dataset_columns`")


@dataclass
class RewardArguments(DataArguments):
    """What the GRPO script asks for as well."""

    rewards: list[str] = field(
        default_factory=lambda: ["format", "action", "subject"],
        metadata={
            "help": f"any of {', '.join(REWARDS)}; --reward_weights has one number for each",
            "choices": REWARDS,
        },
    )
    constrained: bool = field(
        default=False,
        metadata={"help": "let the planner write nothing but the declared format while it trains; needs llguidance"},
    )
    action_synonyms: str | None = field(
        default=None, metadata={"help": 'a JSON file of further names of actions: {"zap": "remove"}'}
    )
    goal_similarity_model: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "sentence encoder of goal_similarity"}
    )
    picture_editor: str | None = field(
        default=None,
        metadata={"help": "of the reward picture: a bundle, a pipeline of diffusers, or an address (http://...)"},
    )
    picture_editor_model: str | None = field(
        default=None, metadata={"help": "of an editor's address: the model there"}
    )
    picture_editor_arguments: str | None = field(
        default=None, metadata={"help": """the editor's own, as JSON: '{"num_inference_steps": 20}'"""}
    )
    picture_editor_dtype: Literal["float32", "float16", "bfloat16"] = field(
        default="float32", metadata={"help": "of its weights"}
    )
    picture_batch_size: int = field(default=32, metadata={"help": "pictures in one call of the editor"})
    picture_judge: str | None = field(
        default=None, metadata={"help": "scenes, checklist, viescore, or a function of yours as module:function"}
    )
    picture_judge_url: str | None = field(
        default=None, metadata={"help": "of checklist and viescore: an OpenAI-compatible server, up to /v1"}
    )
    picture_judge_model: str | None = field(
        default=None, metadata={"help": "a model there; without an address, one to be loaded here"}
    )
    picture_bare_member: bool = field(
        default=False,
        metadata={"help": "count the bare instruction, edited without a plan, as one more member of each group"},
    )
    picture_judge_concurrency: int = field(default=8, metadata={"help": "requests to the judge's server at once"})

    def __post_init__(self):
        super().__post_init__()
        unknown = sorted(set(self.rewards) - set(REWARDS))
        if unknown or not self.rewards:
            raise ValueError(f"`rewards` are any of {', '.join(REWARDS)}, not {', '.join(unknown) or 'none'}.")
        if self.picture_bare_member and set(self.rewards) != set(WITHOUT_LABELS):
            raise ValueError(
                "`picture_bare_member` goes with the rewards format and picture: an instruction has no others."
            )
        _ = self.synonyms, self.editor_arguments
        if "picture" in self.rewards:
            self._check_picture()

    @property
    def needs_truth(self) -> bool:
        return not set(self.rewards) <= set(WITHOUT_LABELS) or self.picture_judge == "scenes"

    @property
    def needs_goals(self) -> bool:
        return any(name.startswith("goal") for name in self.rewards)

    @property
    def synonyms(self) -> dict[str, str] | None:
        """What the file `action_synonyms` holds."""
        return schema.read_file(self.action_synonyms, dict[str, str]) if self.action_synonyms else None

    @property
    def editor_arguments(self) -> dict[str, Any]:
        """`picture_editor_arguments`, read."""
        given = schema.read_json(self.picture_editor_arguments or "{}", "`picture_editor_arguments`")
        return schema.read(dict[str, Any], given, "`picture_editor_arguments`")

    def _check_picture(self) -> None:
        if self.picture_editor is None or self.picture_judge is None:
            raise ValueError("The reward `picture` needs an editor and a judge: --picture_editor, --picture_judge.")
        check_least(self, 1, "picture_batch_size", "picture_judge_concurrency")
        asks = self.picture_judge in ("checklist", "viescore")
        if asks != (self.picture_judge_model is not None) or (self.picture_judge_url is not None and not asks):
            raise ValueError(
                "The judges `checklist` and `viescore` ask a model, and no others do: --picture_judge_model, and "
                "--picture_judge_url where it is behind an address."
            )


def check_least(arguments: DataArguments, least: int, *names: str) -> None:
    """Refuse numbers below `least`, where they are given."""
    for name in names:
        if (number := getattr(arguments, name)) is not None and number < least:
            raise ValueError(f"`{name}` is at least {least}, not {number}.")


def load_rows_apart(arguments: DataArguments) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """The rows to learn from and the held-out ones, of which none is among them; the main process looks for them first.

    Raises:
        ValueError: As `load_training_rows` does; if a held-out row is among those to learn from.
    """
    with PartialState().main_process_first():  # the others find the rows in the cache of `datasets`
        rows, held_out = load_training_rows(arguments), load_validation_rows(arguments)
        check_apart(rows, held_out)
    return rows, held_out


def load_training_rows(arguments: DataArguments) -> Dataset | IterableDataset:
    """The rows to learn from.

    Raises:
        ValueError: If a row cannot be used, see [`load_rows`], or does not say what the true edits or their goals are and has
            to; if rows have `references` and the reward `picture` is asked for.
    """
    if arguments.needs_goals and is_made(arguments.dataset_name) and arguments.dataset_path is not None:
        _check_goals(arguments.dataset_path)
    split, limit, seed = arguments.dataset_train_split, arguments.dataset_limit, arguments.dataset_seed
    rows = _load(arguments, split, limit, seed, arguments.needs_truth)
    if "picture" in getattr(arguments, "rewards", ()) and "references" in (rows.column_names or ()):
        raise ValueError("The reward `picture` edits one picture, and these rows have further ones: `references`.")
    return rows


def _check_goals(path: str) -> None:
    """Refuse a file of sentences, the only rows in which a goal may be unknown, where one is."""
    for number, row in enumerate(rows_of_file(path)):
        if not all(map(str.strip, row["goals"])):
            raise ValueError(
                f"Row {number} of {path} has an edit without a goal. Supervised training and the rewards for goals need them "
                "all: leave the row out, or train by reward without these (--rewards format action subject)."
            )


def load_validation_rows(arguments: DataArguments) -> Dataset | None:
    """The held-out rows, or `None` where no test split is named."""
    if arguments.dataset_test_split is None:
        return None
    rows = _load(arguments, arguments.dataset_test_split, arguments.validation_rows, None, needs_truth=True)
    return cast("Dataset", rows)  # without an end are only scenes without a limit


def as_prompts(
    rows: Dataset | IterableDataset,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    prompts: Prompts,
    image_size: int | None,
    answered: bool = False,
) -> Dataset | IterableDataset:
    """Rows as this planner is asked about them, see [`to_prompts`]. Sets the side on which TRL expects padding."""
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    sees = hasattr(processor, "image_processor")
    check_trainable(processor)
    prompts = fitting_prompts(prompts, processor)
    return to_prompts(rows, prompts, image_size, sees, control_tokens(processor), answered)


def make_rewards(
    arguments: RewardArguments,
    weights: Sequence[float] | None = None,
    base: Start | str = "",
    folder: str | Path = ".",
    seed: int = 0,
) -> list[Callable[..., list[float | None]]]:
    """The reward functions that were asked for, in that order. No model is loaded for `picture` yet, see [`Renderer`].

    Args:
        weights (sequence of `float`, *optional*): One for each.
        base ([`Start`] or `str`): The planner that training starts from, or its name; for `picture`.
        folder (`str` or `Path`): Of the run; for `picture`, whose judge `checklist` keeps its questions there.
        seed (`int`, defaults to 0): Of the noise of pictures.

    Raises:
        ValueError: If there are `weights`, but not one for each; if there is no such judge.
        OSError: If there is no such editor.
    """
    if weights is not None and len(weights) != len(arguments.rewards):
        raise ValueError(f"There are {len(weights)} `reward_weights` for {len(arguments.rewards)} `rewards`.")
    makers = {
        "format": FormatReward,
        "action": lambda: ActionReward(arguments.synonyms),
        "subject": SubjectReward,
        "subject_soft": lambda: SubjectReward(soft=True),
        "goal": GoalReward,
        "goal_soft": lambda: GoalReward(soft=True),
        "goal_similarity": lambda: GoalReward(similarity=SentenceSimilarity(arguments.goal_similarity_model)),
        "picture": lambda: PictureReward(_renderer(arguments, base), _judge(arguments, folder), seed),
    }
    return [makers[name]() for name in arguments.rewards]


def _renderer(arguments: RewardArguments, base: Start | str) -> Renderer:
    return Renderer(
        str(arguments.picture_editor),
        base,
        arguments.picture_editor_model,
        arguments.prompts,
        batch_size=arguments.picture_batch_size,
        dtype=arguments.picture_editor_dtype,
        arguments=arguments.editor_arguments,
    )


def _judge(arguments: RewardArguments, folder: str | Path) -> PictureJudge:
    name = str(arguments.picture_judge)
    if name == "scenes":
        if arguments.dataset_name.partition(":")[0] != "scenes":
            raise ValueError("The judge `scenes` knows what is right of scenes only; --dataset_name names other rows.")
        return ScenesJudge()
    if ":" in name:
        return FunctionJudge(name)
    if name in ("checklist", "viescore"):
        asked = str(arguments.picture_judge_model)
        url, at_once = arguments.picture_judge_url, arguments.picture_judge_concurrency
        if url is None:
            model = LocalModel(asked)
        else:
            model = Endpoint(url, asked, concurrency=at_once, max_retries=FEW_RETRIES)
        if name == "viescore":
            return VIEScoreJudge(VIEScore(model, at_once))
        # A picture's questions are asked one by one, so that what is under way is what was allowed.
        kept = Path(folder) / QUESTIONS if PartialState().is_main_process else None
        return ChecklistJudge(Checklist(model, concurrency=1), kept, at_once)
    raise ValueError(f"`picture_judge` is scenes, checklist, viescore or module:function, not {name!r}.")


class SentenceSimilarity:
    """How alike texts are in meaning: cosines of their sentence embeddings.

    Args:
        name (`str`): A model of `sentence-transformers`, which has to be installed.
    """

    def __init__(self, name: str):
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports] # optional

        self.model = SentenceTransformer(name)

    def __call__(self, one: list[str], other: list[str]) -> Any:
        """An array (n, m) of cosines, -1 to 1."""
        embedded = [self.model.encode(texts, normalize_embeddings=True) for texts in (one, other)]
        return embedded[0] @ embedded[1].T


def _load(
    arguments: DataArguments, split: str | None, limit: int | None, seed: int | None, needs_truth: bool
) -> Dataset | IterableDataset:
    from datasets import Dataset

    name = arguments.dataset_name
    rows = load_rows(
        name,
        split,
        on_bad_row=arguments.on_bad_row,
        limit=limit,
        seed=seed,
        columns=arguments.columns,
        path=arguments.dataset_path,
    )
    # Scenes, the only rows without end, all have their truth.
    unknown = (
        [index for index, actions in enumerate(rows["actions"]) if actions is None]
        if needs_truth and isinstance(rows, Dataset)
        else []
    )
    if unknown:
        raise ValueError(
            f"{name} does not say what the true edits are of {len(unknown)} of its rows (the first is row {unknown[0]}). "
            "Have a teacher annotate it first: examples/annotate_plans.py."
        )
    return rows
