"""Saving a pipeline with the pipelines in it, and pushing it: each weight once, base and adapter apart, and a card."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from diffusers import DiffusionPipeline, ModularPipeline
from huggingface_hub import create_repo, upload_folder
from transformers import PreTrainedModel

from ... import records
from ...bundles import cards
from ...bundles.planners import ADAPTER_FOLDER
from ...plan import EditPlan
from ...planners.adapters import adapter_layers, check_adapter_name, save_adapter_state
from ...planners.int8 import Int8Linear
from .adapters import adapted_models, adapters_taken_out, check_base_stays, check_layers_alone, save_adapters
from .modular import check_class, name_source, save_modular_part
from .parts import SHARED, Mixin, nested_pipelines, shared_parts, write_index
from .plain import NestedPipeline
from .remote import is_remote, save_remote
from .replacing import bring_results, files_in, keep_other_variants, left_behind


_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def check_agents_to_save(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Refuse agents that `folder` would not give back.

    Raises:
        ValueError: If diffusers would leave one out, it has weights of 8 bits, several adapters or one that is called as a layer
            is, or its adapter's base lies in `folder` and is not saved there with it, as that of a part of the editor is.
    """
    shared = shared_parts(pipeline)
    for name in ("planner", "sequencer"):
        agent = pipeline.components.get(name)
        if agent is None or is_remote(agent):
            continue
        if not isinstance(agent, PreTrainedModel):
            raise ValueError(
                f"The {name} is a {type(agent).__name__}, which a bundle does not hold; a PEFT model's adapter is loaded onto a"
                " model of transformers by `model.load_adapter(folder)`."
            )
        if any(isinstance(module, Int8Linear) for module in agent.modules()):
            raise ValueError(f"The {name} has weights of 8 bits (`to_int8`), which are not saved; save it before.")
        check_adapter_name(agent)
        adapters = list(getattr(agent, "peft_config", {}))
        if len(adapters) > 1:
            raise ValueError(
                f"The {name} has {len(adapters)} adapters ({', '.join(adapters)}), of which a bundle keeps one:"
                " `delete_adapter` takes one off."
            )
        if name in shared:
            if adapters:
                check_layers_alone(agent, name)
                config = agent.peft_config[adapters[0]]
                check_base_stays(
                    getattr(config, "init_lora_weights", True), f"The adapter on `{name}`, a part of the editor,"
                )
            continue
        bases = {config.base_model_name_or_path for config in getattr(agent, "peft_config", {}).values()}
        for base in {*bases, agent.name_or_path} if adapter_layers(agent) else ():
            place = Path(base or folder.parent).resolve()
            if place.is_relative_to(folder.resolve()) and any(file for kind in _WEIGHTS for file in place.glob(kind)):
                raise ValueError(
                    f"The {name} has an adapter of the model in {base}, whose place it would take: save elsewhere."
                )


def _check_loadable(folder: Path) -> None:
    """Refuse weights that were pickled in shards, of which diffusers says that there are none."""
    if shards := next(folder.rglob("*.bin.index*.json"), None):
        raise ValueError(
            f"The weights of {shards.parent.relative_to(folder)} would be pickled in shards, which diffusers does not load: leave"
            " `safe_serialization` on, or give a larger `max_shard_size`."
        )


class SavingMixin(Mixin):
    """`save_pretrained` and `push_to_hub` for a pipeline that has pipelines as components."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        plan: EditPlan | None = None,
        scores: str | os.PathLike | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the pipeline with the pipelines in it, a model card, and what plain `DiffusionPipeline` loads it by.

        A model that is a part of a nested pipeline is saved there, once; a sequencer that is the planner itself is saved, and
        loaded, as a model of its own. Adapters on a nested pipeline's models are saved
        apart from them, in folders `adapter-0`, ... of that pipeline, and are there again, active, after loading.

        Takes what `DiffusionPipeline.save_pretrained` takes, and for the model card:

        Args:
            plan ([`EditPlan`], *optional*):
                An example of what the agents make of an instruction.
            scores (`str`, `os.PathLike` or `Mapping`, *optional*):
                An evaluation's report of this very pipeline, as [`Scores.read`] takes it. It is not kept for the next
                save: a pipeline that is changed has other scores.

        Raises:
            ValueError: If a nested pipeline has an adapter that is fused or of a kind that is not kept, or a class or blocks
                that are not diffusers' own; if an agent is no model of transformers, or has weights of 8 bits, several
                adapters or one that is called as a layer is; if an adapter's base lies where this would be saved; or if weights
                would be pickled in shards. What is in
                the folder stays as it is then, and whenever saving fails.
        """
        nested, shared = nested_pipelines(self), shared_parts(self)
        for name, part in nested.items():
            check_class(part, name)
        modular = {name: part for name, part in nested.items() if isinstance(part, ModularPipeline)}
        for_card = {"plan": plan, "scores": None if scores is None else cards.Scores.read(scores)}
        planner = self.planner if "planner" in shared else None
        adapted = [model for part in nested.values() for model in adapted_models(part, but=planner).values()]
        folder = Path(save_directory)
        check_agents_to_save(self, folder)
        bases = cards.base_models(self)
        cards.keep_base_models(self.components, bases)
        self.register_to_config(_base_models=bases)

        with records.written_whole(folder, [*self.components, ADAPTER_FOLDER]) as new:
            # 1. The adapter of a planner that is a part of the editor; transformers saves nothing else of a model with one
            if planner is not None and adapter_layers(planner):
                planner.save_pretrained(new / ADAPTER_FOLDER)
                self.prompts.save(new / ADAPTER_FOLDER)
                save_adapter_state(planner, new / ADAPTER_FOLDER, is_in_editor=True)
                adapted.append(planner)

            # 2. The weights, as diffusers saves them, each once; of a model with an adapter transformers saves the adapter alone
            remote = {name: part for name, part in self.components.items() if is_remote(part)}
            entries = {name: self.config[name] for name in (*shared, *remote, *modular)}
            self.register_to_config(**dict.fromkeys(entries, (None, None)))
            try:
                with ExitStack() as stack:
                    stack.enter_context(adapters_taken_out(*adapted))
                    super().save_pretrained(
                        str(new), safe_serialization, variant, max_shard_size, use_flashpack=use_flashpack
                    )
                    for name, part in modular.items():
                        saving = {"safe_serialization": safe_serialization, "variant": variant}
                        save_modular_part(part, new / name, folder / name, **saving, max_shard_size=max_shard_size)
            finally:
                self.register_to_config(**entries)

            # 3. What diffusers does not save, the index, and the card
            for name in ("planner", "sequencer"):
                if name not in shared:
                    save_adapter_state(self.components[name], new / name)
            for name, part in remote.items():
                save_remote(part, new / name)
            for name, part in nested.items():
                save_adapters(part, new / name, but=planner)
            self._complete_index(new, shared, remote)
            _check_loadable(new)
            keep_other_variants(folder, new)
        cards.write_card(self, folder, **for_card)
        cards.write_eval_results(folder, for_card["scores"])
        if push_to_hub:
            self._push(folder, kwargs.pop("repo_id", folder.name), for_card, **kwargs)

    def _complete_index(self, folder: Path, shared: dict[str, str], remote: Mapping[str, Any]) -> None:
        """Write what diffusers knows nothing of into the index, and the file by which plain `DiffusionPipeline` loads.

        The class name is a pair, as diffusers has it for code that comes with the weights: plain `DiffusionPipeline`
        refuses without `trust_remote_code=True`, where otherwise it fails with "module diffusers has no attribute ...".
        The refusal quotes nothing of ours but the file's name, so the name says what to do. The nested pipelines are
        named likewise: see [`NestedPipeline`].
        """
        index = json.loads((folder / self.config_name).read_text(encoding="utf-8"))
        index["_class_name"] = [cards.PIPELINE_MODULE, type(self).__name__]
        index[SHARED] = shared
        of_ours = {name: NestedPipeline.__name__ for name in nested_pipelines(self)}
        of_ours.update({name: type(part).__name__ for name, part in remote.items()})
        index.update({name: [cards.PIPELINE_MODULE, kind] for name, kind in of_ours.items()})
        # Of a planner with an adapter nothing but the adapter is saved, so that its config cannot keep these.
        if self.planner is not None and adapter_layers(self.planner):
            index["prompts"] = self.prompts.to_dict()
            index["sequence_without_adapter"] = self.sequence_without_adapter
        write_index(folder, index)
        code = cards.pipeline_file(type(self))
        for place in (folder, *(folder / name for name in of_ours)):
            (place / f"{cards.PIPELINE_MODULE}.py").write_text(code, encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
        plan: EditPlan | None = None,
        scores: str | os.PathLike | Mapping[str, Any] | None = None,
    ) -> Any:
        """Save and upload the whole bundle, in place of one that is there. diffusers would put an empty card over ours.

        Takes what `DiffusionPipeline.push_to_hub` takes, and `plan` and `scores` for the model card, as `save_pretrained`.
        """
        for_card = {"plan": plan, "scores": None if scores is None else cards.Scores.read(scores)}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, safe_serialization=safe_serialization, variant=variant)
            return self._push(Path(folder), repo_id, for_card, commit_message, private, token, create_pr, subfolder)

    def _push(
        self,
        folder: Path,
        repo_id: str,
        for_card: dict[str, Any],
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        subfolder: str | None = None,
    ) -> Any:
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        before = files_in(repo_id, token, subfolder)
        bring_results(folder, repo_id, before, token)
        for name, part in nested_pipelines(self).items():
            if isinstance(part, ModularPipeline):
                name_source(folder / name, str(folder / name), repo_id, str(PurePosixPath(subfolder or "", name)))
        cards.write_card(self, folder, repo_id, token, subfolder, **for_card)
        cards.write_eval_results(folder, for_card["scores"])
        return upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=subfolder,
            token=token,
            commit_message=commit_message or f"Upload {type(self).__name__}",
            create_pr=create_pr,
            delete_patterns=left_behind(folder, self.components, repo_id, before, token),
        )
