import re
from pathlib import Path

from setuptools import find_packages, setup


HERE = Path(__file__).parent
README = HERE / "README.md"
INIT = HERE / "src" / "diffusers_r1" / "__init__.py"

# `make test-oldest` runs the tests with the lower bounds; what has none is only for the tests and the site.
EXTRAS = {
    # transformers 5.24 saves LoRA adapters with PEFT 0.22 only, which is not published yet.
    "train": ["trl>=1.16", "peft>=0.21", "transformers<5.24", "datasets>=5.2", "scipy>=1.15", "matplotlib>=3.10.8"],
    "lora": ["peft>=0.21"],  # planners that are adapters, such as imageedit-r1-smollm2
    "remote": ["openai>=3.40"],  # planners, editors, judges and annotators behind an address
    "eval": ["torchmetrics>=1.7", "matplotlib>=3.10.8", "datasets>=5.2", "scipy>=1.15", "openai>=3.40"],
    "app": ["gradio>=6.31"],
    "mcp": ["gradio>=6.31", "mcp>=1.24,<2"],  # the page as tools; Gradio takes no mcp 2
    "serve": ["starlette>=0.52", "uvicorn>=0.31.1", "python-multipart>=0.0.26"],
    "constrained": ["llguidance>=1.0"],
    "quantize": ["torchao>=0.17", "bitsandbytes>=0.46.1"],  # smaller weights
    "languages": ["simplemma>=2.0"],  # inflected verbs of other languages than English in rewards and marks
    "ray": ["ray[data]>=2.55", "datasets>=5.2"],
    "test": [
        "pytest",
        "pytest-timeout",
        "pytest-xdist",  # two files of tests at once
        "coverage",  # tools/mutate.py
        "scipy",
        "llguidance",
        "simplemma",
        "nbclient",
        "ipykernel",
        "psutil",
        "openai>=3.40",
        "num2words",  # the processor of SmolVLM
        "gguf",  # writes the file that a test loads
        *("scikit-image", "scikit-learn"),  # bring the photos that some hand-written instructions are about
        "torchao",  # a quantization that runs on a processor
        "bitsandbytes",  # another one, of which a test sees what it is asked for
        "build",  # makes the wheel that a test installs
        "playwright",  # drives a browser through the page
        "axe-playwright-python",  # brings axe-core, which finds what screen readers stumble over
        "transformers[serving]",  # a real server for the annotation script
    ],
    # The themes and plugins of MkDocs go by its first major version; its second one will take none of them.
    "docs": [
        "mkdocs<2",
        "mkdocs-material<10",
        "mkdocs-awesome-nav",
        "mkdocs-jupyter",
        "mkdocstrings[python]",
        "ipywidgets",  # without it tqdm warns in notebooks
    ],
    "quality": ["ruff", "basedpyright"],  # pyright in a package that holds all it needs: the one called so downloads
}

setup(
    name="diffusers-r1",
    version=re.search(r'__version__ = "(.+)"', INIT.read_text(encoding="utf-8"))[1],
    description="ImageEdit-R1 as a Diffusers pipeline: one sentence, several edits, any editor",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["image editing", "diffusion", "vision-language model", "reinforcement learning", "GRPO", "agents"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "diffusers_r1": ["py.typed"],  # the types are for others, too
        "diffusers_r1.bundles": [
            f"**/*.{kind}" for kind in ("safetensors", "json", "txt", "jinja", "md", "png", "py")
        ],
        "diffusers_r1.app": ["static/*", "photos/*"],
        "diffusers_r1.sentences": ["data/*.jsonl", "data/*.txt"],
    },
    install_requires=[
        "accelerate>=1.10.1",  # what TRL asks for
        "diffusers>=0.42",
        "huggingface_hub>=1.32",
        "numpy>=2.0",
        "pillow>=12.0",  # older ones lose the transparency of palettes
        "requests>=2.32",
        "safetensors>=0.8",
        "torch>=2.9",
        "torchvision>=0.24",  # the processor of Qwen2.5-VL does not load without it
        "transformers>=5.20",
        "urllib3>=2.2",  # under requests; the first that hands over what has come
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["diffusers-r1 = diffusers_r1.commands:main"]},
)
