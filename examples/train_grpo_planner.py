"""Train the decomposition agent by GRPO: it is paid for the format, the actions and the subjects of its answers.

    accelerate launch examples/train_grpo_planner.py --config examples/recipes/scenes.yaml

Options are TRL's (`GRPOConfig`, `ModelConfig`) and, for data and rewards, those of `RewardArguments`; each can stand in
the YAML file or on the command line. The planner, the curves and a model card are in `output_dir` afterwards.
"""

from __future__ import annotations

from accelerate import PartialState
from trl import GRPOConfig, ModelConfig, TrlParser

from diffusers_r1.training.arguments import RewardArguments, as_prompts, load_rows_apart, make_rewards
from diffusers_r1.training.callbacks import LearningWatch, show_progress
from diffusers_r1.training.folders import run_folder
from diffusers_r1.training.loop import rows_a_step
from diffusers_r1.training.models import (
    load_trainable,
    lora_settings,
    restore_weights,
    start_of,
    without_control_tokens,
)
from diffusers_r1.training.picture_trainer import PictureGRPOTrainer, check_bare_member
from diffusers_r1.training.pictures import check_editor_name, load_renderers
from diffusers_r1.training.results import marks_table, outlook, push_results, save_results


def main(script: RewardArguments, training: GRPOConfig, model: ModelConfig) -> None:
    check_editor_name(script.bundle_editor)
    check_bare_member(script.picture_bare_member, training)
    start = start_of(model, training)
    rewards = make_rewards(script, training.reward_weights, start, training.output_dir, training.seed)
    with run_folder("GRPO", script, training, model) as checkpoint:
        rows, held_out = load_rows_apart(script)
        planner, processor, prompts = load_trainable(start, model, training, script.freeze_vision, script.prompts)
        with PartialState().main_process_first():  # the others find the rows in the cache of `datasets`
            rows = as_prompts(rows, processor, prompts, script.image_size)
        without_control_tokens(training, planner, processor)
        load_renderers(rewards)

        trainer = PictureGRPOTrainer(
            model=planner,
            processing_class=processor,
            args=training,
            train_dataset=rows,
            reward_funcs=rewards,
            peft_config=lora_settings(model, planner, script.freeze_vision),
            callbacks=[LearningWatch()],
            bare_member=script.picture_bare_member,
            constrained=script.constrained,
        )
        show_progress(trainer, prompts, held_out, script, training.max_completion_length)
        restore_weights(trainer, checkpoint)
        PartialState().print(outlook(training.output_dir, script.bundle_editor))
        trainer.train(resume_from_checkpoint=checkpoint)

        summary = {
            "method": f"GRPO, rewards {' + '.join(script.rewards)}",
            "start": model.model_name_or_path,
            "rows": script.dataset_name,
            "steps": trainer.state.global_step,
            "completions a step": rows_a_step(training),
            "generations a prompt": training.num_generations,
            "learning rate": training.learning_rate,
            "beta": training.beta,
            "temperature": training.temperature,
        }
        save_results(trainer, prompts, start, summary, script.bundle_editor, held_out)
        push_results(trainer)
        if held_out is not None:
            PartialState().print(marks_table(trainer.state.log_history, len(held_out)))


if __name__ == "__main__":
    main(*TrlParser((RewardArguments, GRPOConfig, ModelConfig)).parse_args_and_config())
