"""Train planner and editor together: a plan earns the mean of its pictures, and the pictures teach the editor.

    accelerate launch --num_processes 1 examples/train_grpo_joint.py --config examples/recipes/joint_scenes.yaml

`--train joint` (the default), `planner` or `editor` says who learns. Options are TRL's (`GRPOConfig`, `ModelConfig`) and
those of `JointArguments`. `output_dir` has the planner, the editor, both as one pipeline in `bundle`, curves, cards and, along
the run, contact sheets in `samples`.
"""

from __future__ import annotations

import json

from accelerate import PartialState
from trl import GRPOConfig, ModelConfig, TrlParser

from diffusers_r1.training.arguments import as_prompts, load_rows_apart, make_rewards
from diffusers_r1.training.callbacks import LearningWatch, show_progress
from diffusers_r1.training.diffusion_nft import EditorLearner
from diffusers_r1.training.folders import run_folder
from diffusers_r1.training.joint import (
    PLANNER,
    JointArguments,
    JointGRPOTrainer,
    JointReward,
    called_with,
    check_joint,
)
from diffusers_r1.training.loop import rows_a_step
from diffusers_r1.training.models import (
    load_trainable,
    lora_settings,
    restore_weights,
    start_of,
    without_control_tokens,
)
from diffusers_r1.training.picture_trainer import check_bare_member
from diffusers_r1.training.results import marks_table, outlook, push_results, save_pair, save_results


def main(script: JointArguments, training: GRPOConfig, model: ModelConfig) -> None:
    check_joint(script, training, PartialState().num_processes)
    check_bare_member(script.picture_bare_member, training)
    start = start_of(model, training)
    rewards = make_rewards(script, training.reward_weights, start, training.output_dir, training.seed)
    place = script.rewards.index("picture")
    renderer = rewards[place].renderer
    rewards[place] = JointReward(renderer, rewards[place].judge, script.pictures_per_plan, training.seed)
    with run_folder(f"GRPO, {script.train}", script, training, model) as checkpoint:
        rows, held_out = load_rows_apart(script)
        planner, processor, prompts = load_trainable(start, model, training, script.freeze_vision, script.prompts)
        rows = as_prompts(rows, processor, prompts, script.image_size)
        without_control_tokens(training, planner, processor)

        renderer.load()
        renderer.arguments = called_with(renderer)
        learner = None
        if script.train != PLANNER:
            learner = EditorLearner(
                renderer.pipeline.editor,
                script.nft_settings(),
                script.editor_learning_rate,
                script.editor_lora_r,
                renderer.arguments,
                training.seed,
            )
            if script.editor_gradient_checkpointing:
                learner.denoiser.enable_gradient_checkpointing()

        trainer = JointGRPOTrainer(
            train=script.train,
            learner=learner,
            editor_learning_rate=script.editor_learning_rate,
            samples_every=script.samples_every,
            max_pictures=script.max_pictures,
            bare_member=script.picture_bare_member,
            constrained=script.constrained,
            model=planner,
            processing_class=processor,
            args=training,
            train_dataset=rows,
            reward_funcs=rewards,
            peft_config=lora_settings(model, planner, script.freeze_vision),
            callbacks=[LearningWatch()],
        )
        show_progress(trainer, prompts, held_out, script, training.max_completion_length)
        restore_weights(trainer, checkpoint)
        PartialState().print(outlook(training.output_dir, script.picture_editor))
        trainer.train(resume_from_checkpoint=checkpoint)

        summary = {
            "method": f"GRPO, rewards {' + '.join(script.rewards)}; who learns: {script.train}",
            "start": model.model_name_or_path,
            "editor": script.picture_editor,
            "rows": script.dataset_name,
            "steps": trainer.state.global_step,
            "completions a step": rows_a_step(training),
            "generations a prompt": training.num_generations,
            "pictures a plan": script.pictures_per_plan,
            "pictures in all": rewards[place].rendered,
            "editor called with": json.dumps(renderer.arguments),
            "learning rate": training.learning_rate,
            "beta": training.beta,
            "temperature": training.temperature,
        }
        if learner is not None:
            summary |= {
                "editor's learning rate": script.editor_learning_rate,
                "editor's weights": f"LoRA of rank {script.editor_lora_r}" if learner.is_lora else "all",
                **{f"DiffusionNFT, {name}": value for name, value in vars(script.nft_settings()).items()},
            }
        save_results(trainer, prompts, start, summary, held_out=held_out)
        save_pair(trainer, renderer, learner)
        push_results(trainer)
        if held_out is not None:
            PartialState().print(marks_table(trainer.state.log_history, len(held_out)))


if __name__ == "__main__":
    main(*TrlParser((JointArguments, GRPOConfig, ModelConfig)).parse_args_and_config())
