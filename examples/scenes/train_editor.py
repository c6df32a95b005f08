"""Train the editor of the shipped bundle: a small InstructPix2Pix that obeys explicit requests about scenes.

    python examples/scenes/train_editor.py --output_dir runs/scenes-editor

Three parts, one after the other: an autoencoder for the pictures, its decoder a while longer than its encoder; a text
encoder that has to say, at the last word of each request, what is asked of what; and the UNet, for which both are frozen.
Left to the UNet's loss alone, the text encoder did not learn in 2,400 steps which words belong together. Each part writes
its loss to a CSV file and goes on where it stopped when the script is started again with the same folder.
`output_dir/pipeline` is then a `StableDiffusionInstructPix2PixPipeline`. About 100 minutes on one CPU core.

The true picture after an explicit request is known exactly, so guidance has nothing to sharpen: the pipeline is meant to
be called with `guidance_scale=1, image_guidance_scale=1` and one or few steps. Most rows start from pure noise, where the
model has to decide what changes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusers_r1.plan import Edit, EditPlan
from diffusers_r1.scenes import (
    ACTIONS,
    BACKGROUNDS,
    COLORS,
    CONTENTS,
    PLACES,
    SHAPES,
    Scene,
    Task,
    render,
    sample_scene,
    sample_tasks,
)
from diffusers_r1.training.runs import load_checkpoint, log_row, save_checkpoint, warmup_stable_decay


EXPLICIT_KINDS = {"simple": 0.25, "chained": 0.75}
CANONICAL_SHARE = 0.5  # of the prompts in the words of the sequencing agent; the rest as users word explicit requests
NO_PROMPT_SHARE = 0.05  # so that guidance above 1 still means something
NOISE_SHARE = 0.7  # of the rows from pure noise, where everything about an edit is decided
TOKENS = 77


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--vae_steps", type=int, default=2200)
    parser.add_argument("--decoder_steps", type=int, default=1200, help="of the decoder alone, on noisy latents")
    parser.add_argument("--words_steps", type=int, default=400, help="of the text encoder")
    parser.add_argument("--steps", type=int, default=4000, help="of the UNet")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=6e-4)
    parser.add_argument("--width", type=int, default=160, help="channels of the UNet")
    parser.add_argument("--save_every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def to_pixels(images: list) -> torch.Tensor:
    """PIL pictures to (batch, 3, 64, 64), -1 to 1."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float()
    return pixels.permute(0, 3, 1, 2) / 127.5 - 1


def crowded_scene(random: np.random.Generator) -> Scene:
    """A scene with anything in any cell: the autoencoder has to draw pictures that edits lead to as well."""
    scene = sample_scene(random)
    return Scene(tuple(CONTENTS[random.integers(len(CONTENTS))] for _ in range(9)), scene.background)


def train_autoencoder(args: argparse.Namespace) -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    folder, start = args.output_dir / "vae_training", 0
    if state := load_checkpoint(folder):
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step in range(start, args.vae_steps):
        random = np.random.default_rng([args.seed, step, 1])
        scenes = [sample_scene(random) if i % 2 else crowded_scene(random) for i in range(16)]
        pixels = to_pixels([render(scene) for scene in scenes]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        error = F.mse_loss(decoded, pixels)
        loss = F.l1_loss(decoded, pixels) + error + 1e-5 * posterior.kl().float().mean() / 64
        optimizer.param_groups[0]["lr"] = 2e-3 * warmup_stable_decay(step, args.vae_steps, warmup=100, decay=0.5)
        take_step(loss, optimizer, vae)
        if (step + 1) % 50 == 0:
            psnr = 10 * float(torch.log10(4 / error.detach()))
            log_row(args.output_dir / "vae.csv", step=step + 1, loss=loss.item(), psnr=psnr)
        if (step + 1) % args.save_every == 0 or step + 1 == args.vae_steps:
            save_checkpoint(folder, vae=vae.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)
    with torch.no_grad():
        scenes = [sample_scene(np.random.default_rng([args.seed, i, 2])) for i in range(512)]
        latents = vae.encode(to_pixels([render(scene) for scene in scenes])).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return vae.eval().requires_grad_(False)


def harden_decoder(vae: AutoencoderKL, args: argparse.Namespace) -> None:
    """Teach the decoder alone to draw clean pictures from latents that are a little off, as the UNet's will be."""
    decoder = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv]).requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, weight_decay=1e-4)
    folder, start = args.output_dir / "decoder_training", 0
    if state := load_checkpoint(folder):
        decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step in range(start, args.decoder_steps):
        random = np.random.default_rng([args.seed, step, 5])
        generator = torch.Generator().manual_seed(step)
        scenes = [sample_scene(random) if i % 2 else crowded_scene(random) for i in range(16)]
        pixels = to_pixels([render(scene) for scene in scenes]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.mode().float()
            amount = 0.5 * torch.rand(16, 1, 1, 1, generator=generator) / vae.config.scaling_factor
            latents = latents + amount * torch.randn(latents.shape, generator=generator)
            decoded = vae.decode(latents).sample.float()
        loss = F.l1_loss(decoded, pixels) + F.mse_loss(decoded, pixels)
        optimizer.param_groups[0]["lr"] = 1e-3 * warmup_stable_decay(step, args.decoder_steps, warmup=50, decay=0.6)
        take_step(loss, optimizer, decoder)
        if (step + 1) % 50 == 0:
            log_row(args.output_dir / "decoder.csv", step=step + 1, loss=loss.item())
        if (step + 1) % args.save_every == 0 or step + 1 == args.decoder_steps:
            save_checkpoint(folder, decoder=decoder.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)
    decoder.requires_grad_(False)


def make_tokenizer(folder: Path, seed: int) -> CLIPTokenizer:
    """A byte-level BPE in which every word of the scenes world is one token and every other text can be spelt."""
    words = Counter()
    for task in islice(sample_tasks(seed), 4000):
        words.update(f"{task.instruction} {'. '.join(task.sub_requests)}".replace("-", " - ").split())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words.elements(), trainer)
    tokenizer.model.save(str(folder))
    learnt = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    vocabulary = [letter + end for letter in sorted(pre_tokenizers.ByteLevel.alphabet()) for end in ("", "</w>")]
    vocabulary += [token for token in sorted(learnt[0], key=learnt[0].get) if token not in set(vocabulary)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=learnt[1], model_max_length=TOKENS
    )


def make_pipeline(vae: AutoencoderKL, tokenizer: CLIPTokenizer, width: int) -> StableDiffusionInstructPix2PixPipeline:
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=8,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(width,),
        layers_per_block=2,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return StableDiffusionInstructPix2PixPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def sample_prompt(task: Task, random: np.random.Generator) -> tuple[str, list[str]]:
    """A wording of a task's explicit edits, and for each edit the words up to the end of its request."""
    if random.random() < CANONICAL_SHARE:
        requests = task.sub_requests
        prompt = EditPlan(task.instruction, task.edits, requests).prompts("single")[0]
    else:
        requests = [part.text for part in task.parts]
        prompt = task.instruction
    heads, end = [], 0
    for request in requests:
        end = prompt.index(request, end) + len(request)
        heads.append(prompt[:end])
    return prompt, heads


def slots(edit: Edit) -> tuple[int, int, int, int]:
    """An edit as four classes: action, the two words of its subject, goal."""
    color, _, shape = edit.subject.rpartition(" ")
    goals = [*COLORS, *SHAPES, *PLACES, *BACKGROUNDS, "nothing"]
    return (
        ACTIONS.index(edit.action),
        ["", *COLORS].index(color),
        [*SHAPES, "background"].index(shape),
        goals.index(edit.goal),
    )


def train_text_encoder(pipeline: StableDiffusionInstructPix2PixPipeline, args: argparse.Namespace) -> None:
    """Teach the text encoder to know, at the last word of a request, the whole request: four linear heads read it."""
    text_encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    heads = torch.nn.ModuleList([torch.nn.Linear(128, classes) for classes in (5, 9, 5, 27)])
    trained = torch.nn.ModuleList([text_encoder, heads])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3, weight_decay=1e-3)
    folder, start = args.output_dir / "words_training", 0
    if state := load_checkpoint(folder):
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step in range(start, args.words_steps):
        random = np.random.default_rng([args.seed, step, 4])
        tasks = list(islice(sample_tasks(args.seed * 100_000_000 + step * 64, EXPLICIT_KINDS), 64))
        prompts, ends, truths = [], [], []
        for row, task in enumerate(tasks):
            prompt, beginnings = sample_prompt(task, random)
            prompts.append(prompt)
            ends += [(row, len(tokenizer.tokenize(beginning))) for beginning in beginnings]
            truths += [slots(edit) for edit in task.edits]
        tokens = tokenizer(prompts, padding=True, return_tensors="pt")
        rows, positions = torch.tensor(ends).T
        words = text_encoder(tokens.input_ids).last_hidden_state[rows, positions]
        logits = [head(words) for head in heads]
        truth = torch.tensor(truths).T
        loss = sum(F.cross_entropy(*pair) for pair in zip(logits, truth))
        optimizer.param_groups[0]["lr"] = 1e-3 * warmup_stable_decay(step, args.words_steps, warmup=100)
        take_step(loss, optimizer, trained)
        if (step + 1) % 50 == 0:
            right = torch.stack([one.argmax(1) == true for one, true in zip(logits, truth)]).all(0).float().mean()
            log_row(args.output_dir / "words.csv", step=step + 1, loss=loss.item(), edits_right=right.item())
        if (step + 1) % args.save_every == 0 or step + 1 == args.words_steps:
            state = {"trained": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            save_checkpoint(folder, **state)
    text_encoder.eval().requires_grad_(False)


def sample_batch(tasks, size: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Pictures before and after, each (batch, 3, 64, 64), and what is asked for."""
    before, after, prompts = [], [], []
    for task in islice(tasks, size):
        before.append(task.image)
        after.append(task.target_image)
        if random.random() < NO_PROMPT_SHARE:
            prompts.append("")
        else:
            prompts.append(sample_prompt(task, random)[0])
    return to_pixels(before), to_pixels(after), prompts


def train_unet(pipeline: StableDiffusionInstructPix2PixPipeline, args: argparse.Namespace) -> None:
    vae, unet, text_encoder = pipeline.vae, pipeline.unet, pipeline.text_encoder
    optimizer = torch.optim.AdamW(unet.parameters(), lr=args.learning_rate, weight_decay=1e-3)
    ema = EMAModel(unet.parameters(), decay=0.998, use_ema_warmup=True, power=0.75)
    folder, start = args.output_dir / "unet_training", 0
    if state := load_checkpoint(folder):
        unet.load_state_dict(state["unet"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        start = state["step"]
    losses = []
    for step in range(start, args.steps):
        random = np.random.default_rng([args.seed, step, 3])
        generator = torch.Generator().manual_seed(args.seed * args.steps + step)
        tasks = sample_tasks(args.seed * 100_000_000 + step * args.batch_size, EXPLICIT_KINDS)
        before, after, prompts = sample_batch(tasks, args.batch_size, random)
        tokens = pipeline.tokenizer(
            prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                encoded = vae.encode(torch.cat([before, after])).latent_dist.mode().float()
                words = text_encoder(tokens.input_ids).last_hidden_state
            condition, clean = encoded[: args.batch_size], encoded[args.batch_size :] * vae.config.scaling_factor
            noise = torch.randn(clean.shape, generator=generator)
            steps = pipeline.scheduler.config.num_train_timesteps
            timesteps = torch.randint(steps, (len(clean),), generator=generator)
            timesteps[torch.rand(len(clean), generator=generator) < NOISE_SHARE] = steps - 1
            noisy = pipeline.scheduler.add_noise(clean, noise, timesteps)
            target = pipeline.scheduler.get_velocity(clean, noise, timesteps)
            predicted = unet(torch.cat([noisy, condition], dim=1), timesteps, words).sample.float()
        loss = F.mse_loss(predicted, target)
        optimizer.param_groups[0]["lr"] = args.learning_rate * warmup_stable_decay(step, args.steps)
        take_step(loss, optimizer, unet)
        ema.step(unet.parameters())
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            log_row(args.output_dir / "unet.csv", step=step + 1, loss=float(np.mean(losses)))
            losses.clear()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            save_checkpoint(
                folder,
                unet=unet.state_dict(),
                optimizer=optimizer.state_dict(),
                ema=ema.state_dict(),
                step=step + 1,
            )
    ema.copy_to(unet.parameters())


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def main() -> None:
    args = parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    vae = train_autoencoder(args)
    harden_decoder(vae, args)
    pipeline = make_pipeline(vae, make_tokenizer(args.output_dir, args.seed), args.width)
    train_text_encoder(pipeline, args)
    train_unet(pipeline, args)
    pipeline.save_pretrained(args.output_dir / "pipeline")


if __name__ == "__main__":
    main()
