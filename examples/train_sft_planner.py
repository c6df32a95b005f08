"""Train the decomposition agent on true answers: the supervised start that GRPO goes on from.

    accelerate launch examples/train_sft_planner.py --config examples/recipes/scenes_sft.yaml

Options are TRL's (`SFTConfig`, `ModelConfig`) and, for the data, those of `DataArguments`; each can stand in the YAML
file or on the command line. An answer is the row's reasoning, if it has one, and its edits in the declared format. The
planner, the curves and a model card are in `output_dir` afterwards.
"""

from __future__ import annotations

from accelerate import PartialState
from trl import ModelConfig, SFTConfig, TrlParser

from diffusers_r1.training.arguments import DataArguments, as_prompts, load_rows_apart
from diffusers_r1.training.callbacks import show_progress
from diffusers_r1.training.folders import run_folder
from diffusers_r1.training.grouped_sft import GroupedSFTTrainer
from diffusers_r1.training.loop import rows_a_step
from diffusers_r1.training.models import load_trainable, lora_settings, restore_weights, start_of
from diffusers_r1.training.pictures import check_editor_name
from diffusers_r1.training.results import marks_table, outlook, push_results, save_results


ANSWER_TOKENS = 512


def main(script: DataArguments, training: SFTConfig, model: ModelConfig) -> None:
    check_editor_name(script.bundle_editor)
    start = start_of(model, training)
    with run_folder("supervised", script, training, model) as checkpoint:
        rows, held_out = load_rows_apart(script)
        planner, processor, prompts = load_trainable(start, model, training, script.freeze_vision, script.prompts)
        with PartialState().main_process_first():  # the others find the rows in the cache of `datasets`
            rows = as_prompts(rows, processor, prompts, script.image_size, answered=True)

        trainer = GroupedSFTTrainer(
            model=planner,
            processing_class=processor,
            args=training,
            train_dataset=rows,
            peft_config=lora_settings(model, planner, script.freeze_vision),
        )
        show_progress(trainer, prompts, held_out, script, ANSWER_TOKENS)
        restore_weights(trainer, checkpoint)
        PartialState().print(outlook(training.output_dir, script.bundle_editor))
        trainer.train(resume_from_checkpoint=checkpoint)

        summary = {
            "method": "supervised",
            "start": model.model_name_or_path,
            "rows": script.dataset_name,
            "steps": trainer.state.global_step,
            "rows a step": rows_a_step(training),
            "learning rate": training.learning_rate,
        }
        save_results(trainer, prompts, start, summary, script.bundle_editor, held_out)
        push_results(trainer)
        if held_out is not None:
            PartialState().print(marks_table(trainer.state.log_history, len(held_out)))


if __name__ == "__main__":
    parser = TrlParser((DataArguments, SFTConfig, ModelConfig))
    parser.set_defaults(max_length=None)  # TRL's 1,024 tokens would cut off the ends of answers behind a photo
    main(*parser.parse_args_and_config())
