"""Bundles go to the Hub and come back: real huggingface_hub and diffusers, against a small Hub on loopback.

Clients run in processes of their own with `HF_ENDPOINT` set, since huggingface_hub reads it when it is imported; they
run this very file (`python test_hub.py push`), and print what they found as JSON.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import ModelCard

import diffusers_r1
from diffusers_r1.bundles.cards import MARK


pytestmark = pytest.mark.tiny

REPO = "somebody/edits"
UNSAFE = {
    "planner/pytorch_model.bin": b"pickled",
    "planner/optimizer.pt": b"pickled",
    "editor/unet/diffusion_pytorch_model.bin": b"pickled",
    "editor/vae/diffusion_pytorch_model.fp16.bin": b"pickled",
    "editor/v1.ckpt": b"pickled",
}
REPORT = {
    "source": "run 7",
    "scores": [{"benchmark": "PSR", "method": "pipeline", "metric": "judge, 0 to 10", "mean": 8.2, "n": 120}],
}
USELESS = {"planner/checkpoint-100/model.safetensors": b"weights", "example.png": b"picture"}


# The Hub
# -------


class Hub(ThreadingHTTPServer):
    """The part of the Hub's API that pushing and pulling a model takes. A commit is a dict of files."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}  # name -> commit -> path -> content, last commit last
        self.objects: dict[str, bytes] = {}  # sha256 -> content, as Git LFS keeps large files
        self.address = f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo: str, files: dict[str, bytes], gone: Collection[str] = ()) -> str:
        """Add files to a repository, take others away, and return the commit."""
        commits = self.repos.setdefault(repo, {})
        name = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[name] = {**{path: data for path, data in self.files(repo).items() if path not in gone}, **files}
        return name

    def files(self, repo: str) -> dict[str, bytes]:
        return list(self.repos[repo].values())[-1] if self.repos.get(repo) else {}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args) -> None:
        """Silence."""

    def do_GET(self) -> None:  # noqa: N802
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            commit, files = self._find(*match.groups())
            if commit:
                self._json({"id": match[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            commit, files = self._find(*match.groups())
            if commit:
                self._json(
                    [{"type": "file", "path": name, **_blob(data), **_lfs(name, data)} for name, data in files.items()]
                )
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit, files = self._find(*match.groups()[:2])
            if commit and match[3] not in files:
                self._error(404, "EntryNotFound", commit)
            elif commit:
                data = files[match[3]]
                etag = _lfs(match[3], data).get("lfs", _blob(data))["oid"]
                self._send(200, data, ETag=f'"{etag}"', **{"X-Repo-Commit": commit})
        else:
            self._error(404, "")

    do_HEAD = do_GET

    def do_POST(self) -> None:  # noqa: N802
        path, body = unquote(urlsplit(self.path).path), self._body()
        if path == "/api/repos/create":
            request = json.loads(body)
            repo = f"{request['organization']}/{request['name']}"
            status = 409 if repo in self.server.repos else 200
            if status == 200:
                self.server.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
            self._json({"url": f"{self.server.address}/{repo}"}, status)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._json({"files": modes})
        elif re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.server.address}/objects/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files, gone = {}, []
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.server.objects[line["value"]["oid"]]
                elif line["key"] == "deletedFile":
                    gone.append(line["value"]["path"])
            commit = self.server.commit(match[1], files, gone)
            self._json({"commitUrl": f"{self.server.address}/{match[1]}/commit/{commit}", "commitOid": commit})
        else:
            self._error(404, "")

    def do_PUT(self) -> None:  # noqa: N802
        data = self._body()
        assert self.path == f"/objects/{hashlib.sha256(data).hexdigest()}"
        self.server.objects[hashlib.sha256(data).hexdigest()] = data
        self._send(200, b"")

    def _find(self, repo: str, revision: str | None) -> tuple[str | None, dict[str, bytes]]:
        commits = self.server.repos.get(repo, {})
        commit = next(reversed(commits), None) if revision in (None, "main") else revision
        if commit not in commits:
            self._error(404, "RevisionNotFound" if repo in self.server.repos else "RepoNotFound")
            return None, {}
        return commit, commits[commit]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _error(self, status: int, code: str, commit: str = "") -> None:
        self._send(status, b"{}", **{"X-Error-Code": code, "X-Error-Message": code, "X-Repo-Commit": commit})

    def _send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _blob(data: bytes) -> dict[str, object]:
    return {"size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def _lfs(path: str, data: bytes) -> dict[str, dict[str, object]]:
    size = {"size": len(data), "pointerSize": 1}
    return {"lfs": {"oid": hashlib.sha256(data).hexdigest(), **size}} if _is_large(path) else {}


# The clients
# -----------


def push() -> dict[str, object]:
    """Push a bundle, and its weights in half precision beside them."""
    import tiny_models
    import torch

    from diffusers_r1 import EditPlan, ImageEditR1Pipeline

    pipe = ImageEditR1Pipeline(*tiny_models.tiny_planner(), tiny_models.tiny_pix2pix())
    about = {"plan": EditPlan("lose the man", (), ("remove the man",)), "scores": REPORT}
    first = pipe.push_to_hub(REPO, **about)
    pipe.save_pretrained("folder", push_to_hub=True, repo_id="somebody/other", **about)
    pipe.to(torch.float16).push_to_hub(REPO, variant="fp16", commit_message="In half precision")
    return {"commit": first.oid, "saved": _files(Path("folder"))}


def push_again() -> dict[str, object]:
    """Push into repositories that have a card by then."""
    import tiny_models

    from diffusers_r1 import ImageEditR1Pipeline

    pipe = ImageEditR1Pipeline(*tiny_models.tiny_planner(), editor=None)
    for repo in sys.argv[2:]:
        pipe.push_to_hub(repo)
    return {}


def push_over() -> dict[str, object]:
    """Push bundles of all kinds into one repository, one after the other, and load each."""
    import tiny_loras
    import tiny_models
    from huggingface_hub import HfApi

    from diffusers_r1 import ImageEditR1Pipeline
    from diffusers_r1.bundles.planners import load_planner
    from diffusers_r1.planners.adapters import adapter_layers
    from diffusers_r1.planners.remote import RemotePlanner
    from diffusers_r1.prompts import Prompts

    repo, found = "somebody/over", []
    trained = tiny_models.tiny_adapter(Path("over").absolute(), Prompts(decompose="adapter: {instruction}"))
    kinds = {
        "remote": (RemotePlanner("http://localhost:1/v1", "m"), None),
        "adapter": load_planner(trained)[:2],
        "whole": tiny_models.tiny_planner(),
    }
    for kind, (planner, processor) in kinds.items():
        editor = tiny_loras.with_loras(Path("loras"), "pix2pix") if kind == "remote" else tiny_models.tiny_pix2pix()
        pipe = ImageEditR1Pipeline(planner, processor, editor, prompts=Prompts(decompose=f"{kind}: {{instruction}}"))
        pipe.push_to_hub(repo, scores=REPORT if kind == "remote" else None)
        loaded, again = ImageEditR1Pipeline.from_pretrained(repo), load_planner(repo)
        answer = {
            "prompts": [loaded.prompts.decompose, again[2].decompose],
            "classes": [type(loaded.planner).__name__, type(again[0]).__name__],
            "adapted": [bool(adapter_layers(model)) for model in (loaded.planner, again[0])] if processor else None,
            "loras": loaded.editor.get_active_adapters(),
        }
        found.append(answer)
        stale = {
            "planner/model-00001-of-00002.safetensors": b"a shard",
            "planner_adapter/adapter_config.json": b"{}",
            ".eval_results/theirs.yaml": b"- theirs\n",
            "notes.txt": b"of a person",
        }
        for path, data in stale.items():
            HfApi().upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=data)
    pipe.push_to_hub(repo)
    return {"found": found, "files": sorted(HfApi().list_repo_files(repo))}


def push_variants() -> dict[str, object]:
    """Push plain weights and a variant of them into a folder of a repository; then the same again, then others."""
    import tiny_models
    import torch
    from huggingface_hub import HfApi

    from diffusers_r1 import ImageEditR1Pipeline

    repo, found = "somebody/variants", []
    HfApi().create_repo(repo)
    HfApi().upload_file(repo_id=repo, path_in_repo="planner/outside.safetensors", path_or_fileobj=b"of somebody")
    for card in ("README.md", "in/side/README.md"):
        HfApi().upload_file(repo_id=repo, path_in_repo=card, path_or_fileobj=f"My {card}".encode())
    for seed, variant in ((0, None), (0, "fp16"), (0, None), (1, "fp16"), (1, None)):
        model, processor = tiny_models.tiny_planner(seed=seed)
        pipe = ImageEditR1Pipeline(model.to(torch.float16 if variant else torch.float32), processor, None)
        pipe.push_to_hub(repo, variant=variant, subfolder="in/side", commit_message=f"{seed} {variant}")
        found.append([file for file in HfApi().list_repo_files(repo) if file.endswith(".safetensors")])
    return {"found": [sorted(files) for files in found]}


def share() -> dict[str, object]:
    """Push an adapter; plan with it on an editor's own text encoder; push that, too, and load it."""
    import tiny_models
    from huggingface_hub import HfApi

    from diffusers_r1 import ImageEditR1Pipeline
    from diffusers_r1.prompts import Prompts
    from diffusers_r1.scenes import sample_task

    trained = tiny_models.tiny_adapter(Path("trained"), Prompts(decompose="{instruction}", sequence="in order"))
    HfApi().create_repo("somebody/adapter")
    HfApi().upload_folder(repo_id="somebody/adapter", folder_path=trained)

    pipe = ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_edit(), planner_adapter="somebody/adapter")
    pipe.push_to_hub("somebody/shared")
    loaded = ImageEditR1Pipeline.from_pretrained("somebody/shared", cache_dir="shared")
    plain = ImageEditR1Pipeline.from_editor(tiny_models.tiny_qwen_edit(), prompts=pipe.prompts)
    image = sample_task(0).image
    return {
        "answers": [one.plan(image, "make it blue", max_new_tokens=12).raw[0] for one in (pipe, loaded, plain)],
        "one module": loaded.planner is loaded.editor.text_encoder,
        "files": _files(next(Path("shared").glob("models--*/snapshots/*"))),
    }


def blocks() -> dict[str, object]:
    """Upload planning blocks in front of an editor's; load them as diffusers alone does, elsewhere and without the folder."""
    import shutil

    import numpy as np
    import tiny_models
    import torch
    from diffusers import ModularPipeline
    from huggingface_hub import HfApi

    from diffusers_r1 import ImageEditR1Pipeline
    from diffusers_r1.modular import as_modular, save_modular
    from diffusers_r1.scenes import sample_task

    pipe = ImageEditR1Pipeline.from_pretrained("imageedit-r1-scenes", editor=tiny_models.tiny_kontext_modular())
    HfApi().create_repo("somebody/blocks")
    for path in ("planner/model-00001-of-00002.safetensors", "mine.txt"):
        HfApi().upload_file(path_or_fileobj=b"earlier", path_in_repo=path, repo_id="somebody/blocks")
    save_modular(as_modular(pipe), "blocks", repo_id="somebody/blocks")
    shutil.rmtree("blocks")
    loaded = ModularPipeline.from_pretrained("somebody/blocks", trust_remote_code=True, cache_dir="modular")
    loaded.load_components(cache_dir="modular")
    task = sample_task(0, "complex")
    settings = {"num_inference_steps": 2, "height": 64, "width": 64}

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    own = pipe(task.image, task.instruction, generator=seeded(), **settings)
    state = loaded(image=task.image, instruction=task.instruction, generator=seeded(), **settings)
    pixels = [np.asarray(image, dtype=int) for image in (own.images[0], state.get("images")[0])]
    return {
        "plans": [own.plans[0].to_dict(), state.get("plan").to_dict()],
        "right": own.plans[0].requests == task.sub_requests,
        "apart": int(abs(pixels[0] - pixels[1]).max()),
    }


def modular_editor() -> dict[str, object]:
    """Push a bundle with a modular editor; load it, and the editor by its own index, from the repository."""
    from pathlib import Path

    import tiny_models
    import torch
    from diffusers import ModularPipeline

    from diffusers_r1 import ImageEditR1Pipeline

    name = "somebody/modular"
    ImageEditR1Pipeline(None, None, tiny_models.tiny_kontext_modular()).push_to_hub(name)
    dtypes = {"transformer": torch.bfloat16}
    editor = ImageEditR1Pipeline.from_pretrained(name, cache_dir="kept", dtype=dtypes).editor
    (index,) = Path("kept").rglob("editor/modular_model_index.json")
    alone = ModularPipeline.from_pretrained(index.parent)
    alone.load_components(cache_dir="alone")
    return {
        "right": editor.transformer.dtype == torch.bfloat16
        and torch.equal(next(editor.vae.parameters()), next(alone.vae.parameters())),
        "lacking": alone.null_component_names,
    }


def names() -> dict[str, object]:
    """Push a planner, a bundle and an editor with adapters, twice each; load them by name and revision, and from folders."""
    import numpy as np
    import tiny_loras
    import tiny_models
    import torch
    from diffusers import DiffusionPipeline
    from huggingface_hub import HfApi, snapshot_download

    from diffusers_r1 import EditPlan, ImageEditR1Pipeline
    from diffusers_r1.belongings import belongings, set_belongings
    from diffusers_r1.bundles.planners import load_planner, save_planner
    from diffusers_r1.pipelines.nested.loading import load_editor
    from diffusers_r1.prompts import Prompts
    from diffusers_r1.scenes import sample_task
    from diffusers_r1.training.pictures import check_editor_name

    hub, image, commits = HfApi(), sample_task(0).image, {}
    for repo in ("planner", "bundle", "adapted", "editor"):
        hub.create_repo(f"somebody/{repo}")
        commits[repo] = []
    for number in range(2):
        prompts = Prompts(decompose=f"{number}: {{instruction}}", sequence="in order")
        model, processor = tiny_models.tiny_planner(seed=number)
        processor.tokenizer.model_max_length = 1000 + number
        save_planner(f"planner-{number}", model, processor, prompts)
        Path(f"planner-{number}", "optimizer.pt").write_bytes(b"pickled")
        Path(f"planner-{number}", "pytorch_model.bin").write_bytes(b"pickled")
        done = hub.upload_folder(repo_id="somebody/planner", folder_path=f"planner-{number}")
        commits["planner"].append(done.oid)
        pipe = ImageEditR1Pipeline(model, processor, tiny_models.tiny_pix2pix())
        commits["bundle"].append(pipe.push_to_hub("somebody/bundle").oid)
        editor = tiny_loras.with_loras(Path("loras"), "pix2pix")
        set_belongings(editor, defaults={"guidance_scale": 1.0 + number})
        if number == 0:
            editor.delete_adapters("oil")
        commits["adapted"].append(ImageEditR1Pipeline(None, None, editor).push_to_hub("somebody/adapted").oid)
        ImageEditR1Pipeline(None, None, editor).save_pretrained(f"adapted-{number}")
        done = hub.upload_folder(repo_id="somebody/editor", folder_path=f"adapted-{number}/editor")
        commits["editor"].append(done.oid)

    def facts(loaded) -> list[object]:
        model, processor, prompts = loaded
        plan = ImageEditR1Pipeline(model, processor, None).plan(image, "make it blue", max_new_tokens=12)
        weights = sum(float(value.double().abs().sum()) for value in model.state_dict().values())
        return [prompts.decompose, weights, processor.tokenizer.model_max_length, plan.raw[0]]

    def edited(pipe) -> list[int]:
        pipe.set_progress_bar_config(disable=True)
        plan, generator = EditPlan("", (), ("make it blue",)), torch.Generator().manual_seed(0)
        return np.asarray(pipe(image, plan=plan, generator=generator, num_inference_steps=2).images[0]).sum(0).tolist()

    found: dict[str, object] = {"local": [facts(load_planner(f"planner-{number}")) for number in range(2)]}
    for repo in ("planner", "bundle"):
        found[repo] = [
            facts(load_planner(f"somebody/{repo}", revision=commit, cache_dir=f"{repo}-{number}"))
            for number, commit in enumerate(commits[repo])
        ]
        found[f"newest {repo}"] = facts(load_planner(f"somebody/{repo}"))
        found[f"{repo}'s files"] = _files(next(Path(f"{repo}-0").glob("models--*/snapshots/*")))
    bundle = ImageEditR1Pipeline.from_pretrained("somebody/bundle", revision=commits["bundle"][0])
    found["bundle as a pipeline"] = facts((bundle.planner, bundle.processor, bundle.prompts))

    local = [ImageEditR1Pipeline.from_pretrained(f"adapted-{number}") for number in range(2)]
    pulled = [
        ImageEditR1Pipeline.from_pretrained("somebody/adapted", revision=commit) for commit in commits["adapted"]
    ]
    alone = [
        ImageEditR1Pipeline(None, None, load_editor("somebody/editor", revision=commit, cache_dir="alone"))
        for commit in commits["editor"]
    ]
    bare = [
        DiffusionPipeline.from_pretrained("somebody/editor", revision=commit, cache_dir="alone")
        for commit in commits["editor"]
    ]
    found["defaults"] = [belongings(editor)["defaults"] for editor in (*bare, *(pipe.editor for pipe in alone))]
    folder = snapshot_download("somebody/adapted", revision=commits["adapted"][1])
    plain = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    found["edited"] = [[edited(pipe) for pipe in pipes] for pipes in (local, pulled, alone, [plain])]
    found["adapters"] = [pipe.editor.get_active_adapters() for pipe in (*pulled, *alone, plain)]

    os.environ["HF_HUB_CACHE"] = str(Path("checked").absolute())
    found["checked"] = []
    for name in ("somebody/bundle", "imageedit-r1-scenes", "somebody/nonesuch", "nonesuch"):
        try:
            check_editor_name(name)
            found["checked"].append("there")
        except OSError:
            found["checked"].append("OSError")
    return found


def load() -> dict[str, object]:
    """Load in all ways; say for each what came of it, and which files it brought into a cache of its own."""
    import torch
    from diffusers import DiffusionPipeline

    from diffusers_r1 import ImageEditR1Pipeline
    from diffusers_r1.bundles.planners import load_planner
    from diffusers_r1.pipelines.nested.loading import load_editor

    ways = {
        "own": (ImageEditR1Pipeline, {}),
        "cached": (ImageEditR1Pipeline, {"local_files_only": True, "cache_dir": "own"}),
        "variant": (ImageEditR1Pipeline, {"variant": "fp16", "dtype": torch.float16}),
        "first commit": (ImageEditR1Pipeline, {"revision": sys.argv[2]}),
        "variant of first commit": (ImageEditR1Pipeline, {"revision": sys.argv[2], "variant": "fp16"}),
        "without editor": (ImageEditR1Pipeline, {"editor": None}),
        "without planner": (ImageEditR1Pipeline, {"planner": None, "processor": None}),
        "plain": (DiffusionPipeline, {}),
        "plain, trusting": (DiffusionPipeline, {"trust_remote_code": True}),
        "nothing cached": (ImageEditR1Pipeline, {"local_files_only": True}),
    }
    found = {}
    for name, (pipeline_class, settings) in ways.items():
        settings = {"cache_dir": name, **settings}
        try:
            pipe = pipeline_class.from_pretrained(REPO, **settings)
            answer = {
                "class": type(pipe).__name__,
                "editor": type(pipe.editor).__name__,
                "dtypes": sorted({str(m.dtype) for m in (pipe.planner, getattr(pipe.editor, "unet", None)) if m}),
                "name": pipe.name_or_path,
            }
        except (OSError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        brought = [
            files
            for snapshot in Path(settings["cache_dir"]).glob("models--*/snapshots/*")
            if (files := _files(snapshot))
        ]
        found[name] = {**answer, "files": brought[0] if brought else []}
    half = {"variant": "fp16", "torch_dtype": torch.float16, "cache_dir": "parts"}
    parts = load_planner(REPO, **half)[0], load_editor(REPO, **half).unet
    found["parts of the variant"] = {
        "dtypes": [str(part.dtype) for part in parts],
        "files": _files(next(Path("parts").glob("models--*/snapshots/*"))),
    }
    try:
        ImageEditR1Pipeline.from_pretrained("somebody/nonesuch")
    except OSError as error:
        found["no such repository"] = {"error": f"{type(error).__name__}: {error}"}
    return found


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Client:
    """Runs a client against a hub, with an empty home."""

    def __init__(self, hub: Hub, folder: Path):
        self.hub, self.folder = hub, folder

    def run(self, *arguments: str) -> dict:
        unwanted = ("HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
        environment |= {
            "HF_ENDPOINT": self.hub.address,
            "HF_HOME": str(self.folder / "home"),
            "HF_TOKEN": "of-nobody",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(diffusers_r1.__file__).parents[1]), str(Path(__file__).parents[1])]
            ),
        }
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory) -> Client:
    return Client(hub, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def pushed(client) -> dict:
    return client.run("push")


@pytest.fixture(scope="module")
def loaded(client, hub, pushed) -> dict:
    hub.commit(REPO, {**UNSAFE, **USELESS})
    return client.run("load", pushed["commit"])


def weights(files: list[str]) -> list[str]:
    return [file for file in files if file.endswith((".safetensors", ".bin", ".pt", ".ckpt"))]


# What is pushed
# --------------


def test_the_whole_bundle_is_pushed(hub, pushed):
    files = set(hub.repos[REPO][pushed["commit"]])
    assert {
        "README.md",
        "model_index.json",
        "pip_install_diffusers_r1.py",
        "planner/model.safetensors",
        "processor/tokenizer.json",
        "editor/model_index.json",
        "editor/text_encoder/model.safetensors",
        "editor/unet/diffusion_pytorch_model.safetensors",
        "editor/vae/diffusion_pytorch_model.safetensors",
        "editor/scheduler/scheduler_config.json",
    } <= files
    assert not [file for file in files if file.endswith((".bin", ".pt"))]


def test_saving_can_push(hub, pushed):
    assert sorted(hub.files("somebody/other")) == sorted([".gitattributes", *pushed["saved"]])


def test_a_variant_comes_beside_the_plain_weights(hub, pushed):
    before, after = (set(files) for files in list(hub.repos[REPO].values())[1:3])
    assert sorted(after - before) == [
        "editor/text_encoder/model.fp16.safetensors",
        "editor/unet/diffusion_pytorch_model.fp16.safetensors",
        "editor/vae/diffusion_pytorch_model.fp16.safetensors",
        "planner/model.fp16.safetensors",
    ]


def test_the_card_is_pushed(hub, pushed):
    card = ModelCard(hub.repos[REPO][pushed["commit"]]["README.md"].decode())
    assert (card.data.library_name, card.data.pipeline_tag) == ("diffusers", "image-to-image")
    assert f'ImageEditR1Pipeline.from_pretrained("{REPO}")' in card.text
    for files in (hub.repos[REPO][pushed["commit"]], hub.files("somebody/other")):
        card = ModelCard(files["README.md"].decode())
        assert "> lose the man" in card.text and "Source: run 7" in card.text
        assert [result.metric_value for result in card.data.eval_results] == [8.2]


def test_a_card_that_a_person_wrote_is_kept(hub, client, loaded):
    hub.commit(REPO, {"README.md": b"---\nlicense: mit\n---\n\nMine.\n"})
    hub.commit("somebody/other", {"README.md": f"{MARK}\n\nWritten by diffusers-r1 long ago.\n".encode()})
    client.run("push_again", REPO, "somebody/other")
    assert hub.files(REPO)["README.md"] == b"---\nlicense: mit\n---\n\nMine.\n"
    assert b"long ago" not in hub.files("somebody/other")["README.md"]
    for repo in (REPO, "somebody/other"):
        assert json.loads(hub.files(repo)["model_index.json"])["editor"] == [None, None]


def test_nothing_of_an_earlier_bundle_stays_in_force(hub, client):
    answer = client.run("push_over")
    kinds = ["remote", "adapter", "whole"]
    assert [found["prompts"] for found in answer["found"]] == [[f"{kind}: {{instruction}}"] * 2 for kind in kinds]
    assert [set(found["classes"]) == {"RemotePlanner"} for found in answer["found"]] == [True, False, False]
    assert [found["adapted"] for found in answer["found"]] == [None, [True, True], [False, False]]
    assert [found["loras"] for found in answer["found"]] == [["ink", "oil"], [], []]
    files = answer["files"]
    assert [
        file for file in files if file.startswith(("planner/", "planner_adapter/")) and "generation" not in file
    ] == [
        "planner/config.json",
        "planner/model.safetensors",
    ]
    assert not [file for file in files if "adapter" in file]
    # What people put there stays: files of no component, and results that are not ours.
    assert "notes.txt" in files
    assert [file for file in files if file.startswith(".eval_results/")] == [".eval_results/theirs.yaml"]


def test_a_variant_stays_beside_the_same_plain_weights(client):
    outside, plain, half = (
        "planner/outside.safetensors",
        "in/side/planner/model.safetensors",
        "in/side/planner/model.fp16.safetensors",
    )
    expected = [[plain], [half, plain], [half, plain], [half, plain], [plain]]
    assert client.run("push_variants")["found"] == [[*files, outside] for files in expected]
    pushed = client.hub.files("somebody/variants")
    assert [pushed[card] for card in ("README.md", "in/side/README.md")] == [b"My README.md", b"My in/side/README.md"]


# What is loaded
# --------------


def test_the_nested_folders_come_and_nothing_unsafe(hub, pushed, loaded):
    answer = loaded["own"]
    assert (answer["class"], answer["editor"]) == ("ImageEditR1Pipeline", "StableDiffusionInstructPix2PixPipeline")
    assert answer["name"] == REPO
    unread = (".gitattributes", "README.md", "pip_install_diffusers_r1.py", ".eval_results/")
    assert set(answer["files"]) == {path for path in hub.repos[REPO][pushed["commit"]] if not path.startswith(unread)}


@pytest.mark.parametrize("way", ["variant", "parts of the variant"])
def test_only_the_asked_variant_comes(loaded, way):
    answer = loaded[way]
    assert weights(answer["files"]) == [
        "editor/text_encoder/model.fp16.safetensors",
        "editor/unet/diffusion_pytorch_model.fp16.safetensors",
        "editor/vae/diffusion_pytorch_model.fp16.safetensors",
        "planner/model.fp16.safetensors",
    ]
    assert set(answer["dtypes"]) == {"torch.float16"}


def test_a_commit_is_loaded_by_its_name(loaded):
    assert loaded["first commit"]["files"] == loaded["own"]["files"]
    assert "no weights of the variant 'fp16'" in loaded["variant of first commit"]["error"]


def test_what_is_left_out_does_not_come(loaded):
    assert not [file for file in loaded["without editor"]["files"] if file.startswith("editor/")]
    assert loaded["without editor"]["editor"] == "NoneType"
    files = loaded["without planner"]["files"]
    assert weights(files) and not [file for file in files if file.startswith(("planner/", "processor/"))]


def test_the_cache_is_enough(loaded):
    assert loaded["cached"]["editor"] == "StableDiffusionInstructPix2PixPipeline"
    assert "is not in the cache of huggingface_hub" in loaded["nothing cached"]["error"]


def test_a_repository_that_is_not_there(loaded):
    assert "RepositoryNotFoundError" in loaded["no such repository"]["error"]


def test_plain_diffusers_refuses_and_says_what_to_do(loaded):
    error = loaded["plain"]["error"]
    assert "pip_install_diffusers_r1" in error and "trust_remote_code=True" in error


def test_plain_diffusers_loads_with_trust(loaded):
    answer = loaded["plain, trusting"]
    assert (answer["class"], answer["editor"]) == ("ImageEditR1Pipeline", "StableDiffusionInstructPix2PixPipeline")


def test_an_adapter_and_the_bundle_that_shares_its_base(client):
    found = client.run("share")
    own, loaded, plain = found["answers"]
    assert own == loaded != plain
    assert found["one module"]
    assert [file for file in weights(found["files"]) if file.startswith(("planner", "editor/text_encoder"))] == [
        "editor/text_encoder/model.safetensors",
        "planner_adapter/adapter_model.safetensors",
    ]


def test_modular_blocks_come_back_from_a_repository(hub, client):
    found = client.run("blocks")
    files = hub.files("somebody/blocks")
    assert {
        "README.md",
        "block.py",
        "modular_config.json",
        "modular_model_index.json",
        "mellon_pipeline_config.json",
    } <= set(files)
    assert (
        "mine.txt" in files and "planner/model-00001-of-00002.safetensors" not in files
    )  # nothing is loaded of an earlier one
    assert b"somebody/blocks" in files["README.md"] and b"somebody/blocks" in files["modular_model_index.json"]
    assert str(client.folder).encode() not in b"".join(data for name, data in files.items() if name.endswith(".json"))
    own, loaded = found["plans"]
    assert own == loaded and found["right"]
    assert (
        found["apart"] <= 1
    )  # of 255: weights that lie elsewhere in memory are added up in another order on some processors


def test_a_modular_editor_comes_back_from_a_repository(hub, client):
    found = client.run("modular_editor")
    assert found["right"] and found["lacking"] == []
    index = json.loads(hub.files("somebody/modular")["editor/modular_model_index.json"])
    assert index["vae"][-1]["pretrained_model_name_or_path"] == "somebody/modular"
    assert index["vae"][-1]["subfolder"] == "editor/vae"


# By which name
# -------------


@pytest.fixture(scope="module")
def named(client) -> dict:
    return client.run("names")


@pytest.mark.parametrize("repo", ["planner", "bundle"])
def test_prompts_weights_and_processor_are_those_of_the_revision(named, repo):
    first, second = named["local"]
    assert all(one != other for one, other in zip(first, second))
    assert named[repo] == [first, second] and named[f"newest {repo}"] == second
    assert named["bundle as a pipeline"] == first


def test_a_planner_brings_nothing_but_what_it_loads(named):
    files = named["planner's files"]
    assert {"config.json", "prompts.json", "tokenizer.json", "model.safetensors"} <= set(files)
    assert weights(files) == ["model.safetensors"]
    files = named["bundle's files"]
    assert weights(files) == ["planner/model.safetensors"]
    assert not [file for file in files if file.startswith("editor/") and file != "editor/model_index.json"]


def test_adapters_of_the_editor_come_with_the_revision(named):
    local, pulled, alone, plain = named["edited"]
    assert local[0] != local[1] and pulled == alone == local and plain == [local[1]]
    assert named["adapters"] == [["ink"], ["ink", "oil"], ["ink"], ["ink", "oil"], ["ink", "oil"]]


def test_the_defaults_of_an_editor_are_those_of_its_revision(named):
    assert named["defaults"] == [{"guidance_scale": 1.0}, {"guidance_scale": 2.0}] * 2


def test_the_name_of_an_editor_is_checked_wherever_it_is(named):
    assert named["checked"] == ["there", "there", "OSError", "OSError"]


if __name__ == "__main__":
    verbs = {
        "blocks": blocks,
        "modular_editor": modular_editor,
        "names": names,
        "push": push,
        "push_again": push_again,
        "share": share,
        "load": load,
    }
    verbs |= {"push_over": push_over, "push_variants": push_variants}
    print(json.dumps(verbs[sys.argv[1]]()))
