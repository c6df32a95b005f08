"""Train the editor of the shipped bundle: a small InstructPix2Pix that obeys explicit requests about scenes.

    python examples/scenes/train_editor.py --output_dir runs/scenes-editor

Three parts, one after the other: an autoencoder for the pictures; a text encoder that has to say, at the last word of each
request, what is asked of what; and the UNet, for which both are frozen. Each part has linear heads beside its own loss,
thrown away afterwards, that read from its features what a scene or a request means. By the pixels alone every part
stalled: the text encoder did not learn in 2,400 steps which words belong together, and the UNet not where a cell lies.
Each part writes its loss to a CSV file and goes on where it stopped when the script is started again with the same folder.
`output_dir/pipeline` is then a `StableDiffusionInstructPix2PixPipeline`. About two hours on one CPU core.

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

from diffusers_r1 import ImageEditR1Pipeline
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
from diffusers_r1.training.loop import log_row, resumable, take_step, warmup_stable_decay


EXPLICIT_KINDS = {"simple": 0.25, "chained": 0.75}
CANONICAL_SHARE = 0.5  # of the prompts in the words of the sequencing agent; the rest as users word explicit requests
NO_PROMPT_SHARE = 0.05  # so that guidance above 1 still means something
NOISE_SHARE = 0.8  # of the rows from pure noise, where everything about an edit is decided
LATENT_NOISE = 0.4  # at most, of the latents' standard deviation, while the autoencoder learns
READING_WEIGHT = 0.3  # of what the heads on the UNet read, beside its own loss
SCENE_CLASSES = (1 + len(COLORS), 1 + len(SHAPES), len(BACKGROUNDS))  # colour and shape or nothing; background
GOALS = (*COLORS, *SHAPES, *PLACES, *BACKGROUNDS, "nothing")
TOKENS = 77


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--vae_steps", type=int, default=2400)
    parser.add_argument("--words_steps", type=int, default=400, help="of the text encoder")
    parser.add_argument("--steps", type=int, default=3000, help="of the UNet")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=128, help="channels of the UNet")
    parser.add_argument(
        "--parts_of", help="a bundle whose autoencoder and text encoder are taken: only the UNet is trained"
    )
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


def content_classes(scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colour (0 to 8) and shape (0 to 4) in every cell, 0 for nothing, and the background: each (batch, 9)."""
    colors = [[1 + list(COLORS).index(item.color) if item else 0 for item in scene.cells] for scene in scenes]
    shapes = [[1 + SHAPES.index(item.shape) if item else 0 for item in scene.cells] for scene in scenes]
    backgrounds = [[list(BACKGROUNDS).index(scene.background)] * 9 for scene in scenes]
    return torch.tensor(colors), torch.tensor(shapes), torch.tensor(backgrounds)


def linear_heads(width: int, *classes: int) -> torch.nn.ModuleList:
    return torch.nn.ModuleList([torch.nn.Linear(width, count) for count in classes])


def reading_loss(logits: list[torch.Tensor], truths: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The sum of the heads' cross entropies; classes are the last dimension of the logits."""
    return sum(F.cross_entropy(one.flatten(0, -2), truth.flatten()) for one, truth in zip(logits, truths))


def train_autoencoder(args: argparse.Namespace) -> AutoencoderKL:
    """Teach the autoencoder to draw, from latents that are a little off as the UNet's will be, the picture they mean.

    The latents of a cell, 2x2 pixels of 8 channels, are read by linear heads: what lies there must be plain to see in them.
    Noise is in proportion to their spread, which is held near 1: InstructPix2Pix does not scale what the UNet sees.
    """
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
    heads = linear_heads(32, *SCENE_CLASSES)
    trained = torch.nn.ModuleList([vae, heads])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=2e-3, weight_decay=1e-4)
    folder = args.output_dir / "vae_training"
    for step in resumable(folder, args.vae_steps, args.save_every, trained=trained, optimizer=optimizer):
        random = np.random.default_rng([args.seed, step, 1])
        generator = torch.Generator().manual_seed(step)
        scenes = [sample_scene(random) if i % 2 else crowded_scene(random) for i in range(16)]
        pixels = to_pixels([render(scene) for scene in scenes]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(pixels).latent_dist.mode().float()
            amount = LATENT_NOISE * torch.rand(16, 1, 1, 1, generator=generator) * latents.detach().std()
            latents = latents + amount * torch.randn(latents.shape, generator=generator)
            decoded = vae.decode(latents).sample.float()
        cells = latents[:, :, 1:7, 1:7].unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(16, 9, 32)
        reading = reading_loss([head(cells) for head in heads], content_classes(scenes))
        error = F.mse_loss(decoded, pixels)
        loss = F.l1_loss(decoded, pixels) + error + 0.1 * reading + 0.1 * (latents.std() - 1).square()
        optimizer.param_groups[0]["lr"] = 2e-3 * warmup_stable_decay(step, args.vae_steps, warmup=100, decay=0.5)
        take_step(loss, optimizer, trained)
        if (step + 1) % 50 == 0:
            psnr = 10 * float(torch.log10(4 / error.detach()))
            log_row(args.output_dir / "vae.csv", step=step + 1, loss=loss.item(), psnr=psnr, reading=reading.item())
    with torch.no_grad():
        scenes = [sample_scene(np.random.default_rng([args.seed, i, 2])) for i in range(512)]
        latents = vae.encode(to_pixels([render(scene) for scene in scenes])).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return vae.eval().requires_grad_(False)


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
        layers_per_block=1,
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
    return (
        ACTIONS.index(edit.action),
        ["", *COLORS].index(color),
        [*SHAPES, "background"].index(shape),
        GOALS.index(edit.goal),
    )


def train_text_encoder(pipeline: StableDiffusionInstructPix2PixPipeline, args: argparse.Namespace) -> None:
    """Teach the text encoder to know, at the last word of a request, the whole request: four linear heads read it."""
    text_encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    heads = linear_heads(128, len(ACTIONS), 1 + len(COLORS), 1 + len(SHAPES), len(GOALS))
    trained = torch.nn.ModuleList([text_encoder, heads])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3, weight_decay=1e-3)
    folder = args.output_dir / "words_training"
    for step in resumable(folder, args.words_steps, args.save_every, trained=trained, optimizer=optimizer):
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
        loss = reading_loss(logits, truth)
        optimizer.param_groups[0]["lr"] = 1e-3 * warmup_stable_decay(step, args.words_steps, warmup=100)
        take_step(loss, optimizer, trained)
        if (step + 1) % 50 == 0:
            right = torch.stack([one.argmax(1) == true for one, true in zip(logits, truth)]).all(0).float().mean()
            log_row(args.output_dir / "words.csv", step=step + 1, loss=loss.item(), edits_right=right.item())
    text_encoder.eval().requires_grad_(False)


def on_board(cells: torch.Tensor, margin: int) -> torch.Tensor:
    """Classes of the nine cells, (batch, 9), as classes of the latents' pixels, (batch, 8, 8): 2x2 a cell, and a margin."""
    board = cells.view(-1, 3, 3).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    return F.pad(board, (1, 1, 1, 1), value=margin)


def scene_truth(scenes: list[Scene]) -> list[torch.Tensor]:
    """What each pixel of the latents shows, each (batch, 8, 8): colour, shape, background."""
    colors, shapes, backgrounds = content_classes(scenes)
    behind = backgrounds[:, :1, None].expand(-1, 8, 8)
    return [on_board(colors, 0), on_board(shapes, 0), behind]


def edit_truth(tasks: list[Task]) -> list[torch.Tensor]:
    """What is asked of each pixel of the latents, each (batch, 8, 8): the action (0: none), and its goal.

    The goal of an addition is the colour of what is added: its place is where the pixel lies. The background, which is
    everywhere, is left to the truth about the outcome.
    """
    actions, goals = torch.zeros(len(tasks), 9).long(), torch.full((len(tasks), 9), GOALS.index("nothing"))
    for row, task in enumerate(tasks):
        names = [str(item) for item in task.scene.cells]
        for edit in task.edits:
            if edit.action == "background":
                continue
            cell = PLACES.index(edit.goal) if edit.action == "add" else names.index(edit.subject)
            actions[row, cell] = 1 + ACTIONS.index(edit.action)
            goals[row, cell] = GOALS.index(edit.subject.split()[0] if edit.action == "add" else edit.goal)
    return [on_board(actions, 0), on_board(goals, GOALS.index("nothing"))]


class Readers(torch.nn.Module):
    """Linear heads on three depths of the UNet, one for each step of an edit, at every pixel of the latents.

    After the way down: what lies here before, and at which place this is. In the middle: what is asked of it. After the
    way up: what lies here afterwards.
    """

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        width = unet.config.block_out_channels[0]
        self.before = linear_heads(width, *SCENE_CLASSES, 1 + len(PLACES))
        self.asked = linear_heads(width, 1 + len(ACTIONS), len(GOALS))
        self.after = linear_heads(width, *SCENE_CLASSES)
        self.features = {}
        unet.down_blocks[0].register_forward_hook(lambda _, __, out: self.features.update(before=out[0]))
        unet.mid_block.register_forward_hook(lambda _, __, out: self.features.update(asked=out))
        unet.up_blocks[0].register_forward_hook(lambda _, __, out: self.features.update(after=out))

    def forward(self, name: str) -> list[torch.Tensor]:
        """The logits of one depth in the UNet's last call, each (batch, 8, 8, classes)."""
        features = self.features[name].float().permute(0, 2, 3, 1)
        return [head(features) for head in getattr(self, name)]

    def judge(self, tasks: list[Task]) -> tuple[torch.Tensor, float]:
        """The heads' loss, and in how many of the cells that an edit changes colour and shape afterwards are read right."""
        place = on_board(torch.arange(9).expand(len(tasks), 9), len(PLACES))
        before = [*scene_truth([task.scene for task in tasks]), place]
        asked = edit_truth(tasks)
        after, read = scene_truth([task.target_scene for task in tasks]), self("after")
        loss = reading_loss(self("before"), before) + reading_loss(self("asked"), asked) + reading_loss(read, after)
        color, shape = (logits.argmax(-1) == truth for logits, truth in zip(read[:2], after))
        return loss, (color & shape)[asked[0] > 0].float().mean().item()


def train_unet(pipeline: StableDiffusionInstructPix2PixPipeline, args: argparse.Namespace) -> None:
    """Teach the UNet to edit, with [`Readers`] beside it.

    From the pixels' loss alone it found after 2,400 steps where "top-left" is in 4% of the cases; with readers after 400.
    """
    vae, text_encoder = pipeline.vae, pipeline.text_encoder
    unet = pipeline.unet.to(memory_format=torch.channels_last)
    readers = Readers(unet)
    trained = torch.nn.ModuleList([unet, readers])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=args.learning_rate, weight_decay=1e-3)
    ema = EMAModel(unet.parameters(), decay=0.998, use_ema_warmup=True, power=0.75)
    folder = args.output_dir / "unet_training"
    last = pipeline.scheduler.config.num_train_timesteps - 1
    losses, right = [], []
    for step in resumable(folder, args.steps, args.save_every, trained=trained, optimizer=optimizer, ema=ema):
        random = np.random.default_rng([args.seed, step, 3])
        generator = torch.Generator().manual_seed(args.seed * args.steps + step)
        first_seed = args.seed * 100_000_000 + step * args.batch_size
        tasks = list(islice(sample_tasks(first_seed, EXPLICIT_KINDS), args.batch_size))
        prompts = ["" if random.random() < NO_PROMPT_SHARE else sample_prompt(task, random)[0] for task in tasks]
        tokens = pipeline.tokenizer(
            prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        pixels = to_pixels([task.image for task in tasks] + [task.target_image for task in tasks])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                condition, clean = vae.encode(pixels).latent_dist.mode().float().chunk(2)
                words = text_encoder(tokens.input_ids).last_hidden_state
            clean = clean * vae.config.scaling_factor
            noise = torch.randn(clean.shape, generator=generator)
            timesteps = torch.randint(last + 1, (len(tasks),), generator=generator)
            timesteps[torch.rand(len(tasks), generator=generator) < NOISE_SHARE] = last
            noisy = pipeline.scheduler.add_noise(clean, noise, timesteps)
            target = pipeline.scheduler.get_velocity(clean, noise, timesteps)
            inputs = torch.cat([noisy, condition], dim=1).to(memory_format=torch.channels_last)
            predicted = unet(inputs, timesteps, words).sample.float()
        error = F.mse_loss(predicted, target)
        reading, cells_right = readers.judge(tasks)
        loss = error + READING_WEIGHT * reading
        optimizer.param_groups[0]["lr"] = args.learning_rate * warmup_stable_decay(step, args.steps, decay=0.4)
        take_step(loss, optimizer, trained)
        ema.step(unet.parameters())
        losses.append(error.item())
        right.append(cells_right)
        if (step + 1) % 50 == 0:
            log_row(
                args.output_dir / "unet.csv",
                step=step + 1,
                loss=float(np.mean(losses)),
                changed_cells_read_right=float(np.nanmean(right)),
            )
            losses.clear()
            right.clear()
    ema.copy_to(unet.parameters())


def main() -> None:
    args = parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    if args.parts_of:
        trained = ImageEditR1Pipeline.from_pretrained(args.parts_of).editor
        pipeline = make_pipeline(trained.vae.requires_grad_(False), trained.tokenizer, args.width)
        pipeline.register_modules(text_encoder=trained.text_encoder.requires_grad_(False))
    else:
        vae = train_autoencoder(args)
        pipeline = make_pipeline(vae, make_tokenizer(args.output_dir, args.seed), args.width)
        train_text_encoder(pipeline, args)
    train_unet(pipeline, args)
    pipeline.save_pretrained(args.output_dir / "pipeline")


if __name__ == "__main__":
    main()
