"""Photos to features by a ViT-S at 224 px: zoo.extract, timm + DataLoader, transformers, and the bare forward pass.

All processors, float32, batches of 16, JPEG files from one folder, the same weights; each resizes bicubically and
normalises, timm to the very pixels the zoo makes. The DataLoader has the number of workers that is fastest here.
Every round takes the next 200 photos, so that five go through all of them twice; what starts a contender (threads,
processes) is timed, what loads its model is not. The bare forward pass finds its pixels in memory.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from measure import Target, claim, in_turn, photos, report, seconds
from models import write_both
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import AutoImageProcessor, AutoModel, ViTImageProcessor

import zoo
from zoo.decoding import cpus
from zoo.sources import open_source

PHOTOS, ROUND, BATCH = 500, 200, 16
TARGETS = [
    Target("zoo", "bare forward", 0.95, at_least=True),
    Target("zoo", "timm + DataLoader", 1.0, at_least=True),
    Target("zoo", "transformers", 1.0, at_least=True),
]


class Files(Dataset[torch.Tensor]):
    """Image files through timm's evaluation transform."""

    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        pixels: torch.Tensor = self.transform(Image.open(self.paths[i]).convert("RGB"))
        return pixels


class Contenders:
    """The four ways, each from some of the photos to class tokens (N, D)."""

    def __init__(self, folder: Path, ours: Path, theirs: Path) -> None:
        self.source = open_source(folder)
        self.paths = sorted(folder.iterdir())
        self.encoder = zoo.load(str(ours), device="cpu")
        self.timm = timm.create_model(f"local-dir:{ours}", pretrained=True, num_classes=0).eval()
        config = timm.data.resolve_model_data_config(self.timm)
        self.timm_transform = timm.data.create_transform(**config, is_training=False)
        self.transformers = AutoModel.from_pretrained(theirs, add_pooling_layer=False).eval()
        ViTImageProcessor(resample=3, size={"height": 224, "width": 224}).save_pretrained(theirs)
        self.processor = AutoImageProcessor.from_pretrained(theirs)
        self.workers = 0

    def zoo(self, part: Sequence[int]) -> torch.Tensor:
        source = self.source.subset(part)
        return torch.from_numpy(zoo.extract(self.encoder, source, batch_size=BATCH)[2]["pooled"])

    @torch.inference_mode()
    def by_timm(self, part: Sequence[int]) -> torch.Tensor:
        files = Files([self.paths[i] for i in part], self.timm_transform)
        loader = DataLoader(files, BATCH, num_workers=self.workers)
        return torch.cat([self.timm(pixels) for pixels in loader])

    @torch.inference_mode()
    def by_transformers(self, part: Sequence[int]) -> torch.Tensor:
        found, paths = [], [self.paths[i] for i in part]
        for start in range(0, len(paths), BATCH):
            pictures = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
            inputs = self.processor(pictures, return_tensors="pt")
            found.append(self.transformers(**inputs).last_hidden_state[:, 0])
        return torch.cat(found)

    @torch.inference_mode()
    def bare(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self.encoder.module(pixels) for pixels in batches])

    def choose_workers(self) -> None:
        """The DataLoader's fastest number of workers on the first photos."""
        taken = {}
        for self.workers in range(cpus() + 1):
            taken[self.workers] = min(seconds(lambda: self.by_timm(range(4 * BATCH))) for _ in range(2))
        self.workers = min(taken, key=taken.__getitem__)
        told = ", ".join(f"{workers}: {each:.2f} s" for workers, each in taken.items())
        print(
            f"DataLoader workers by seconds for {4 * BATCH} photos: {told}; taken: {self.workers}",
            file=sys.stderr,
        )


def chosen(number: int) -> list[int]:
    """The photos of a round; two batches to warm up."""
    if number < 0:
        return list(range(2 * BATCH))
    return [i % PHOTOS for i in range(ROUND * number, ROUND * (number + 1))]


def run(data: str) -> bool:
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = photos(data, Path(scratch) / "photos", PHOTOS)
        ways = Contenders(folder, *write_both(Path(scratch), "small"))
        ways.choose_workers()
        files = Files(ways.paths, ways.timm_transform)
        pixels = torch.stack([files[i] for i in range(PHOTOS)])

        def rate(way: Callable[[Sequence[int]], object], number: int) -> float:
            """Images/s of one round."""
            part = chosen(number)
            return len(part) / seconds(lambda: way(part))

        def bare(number: int) -> float:
            batches = pixels[chosen(number)].split(BATCH)
            return len(chosen(number)) / seconds(lambda: ways.bare(batches))

        found = in_turn(
            {
                "bare forward": bare,
                "zoo": lambda number: rate(ways.zoo, number),
                "timm + DataLoader": lambda number: rate(ways.by_timm, number),
                "transformers": lambda number: rate(ways.by_transformers, number),
            }
        )
        title = f"{PHOTOS} photos, ViT-S at 224 px, float32, {torch.get_num_threads()} threads, batches of {BATCH}"
        good = report(title, "images/s", found, TARGETS)
        apart = float((ways.zoo(range(BATCH)) - ways.by_timm(range(BATCH))).abs().max())
        return claim(f"zoo and timm agree: max abs difference {apart:.1e} ≤ 1e-4", apart <= 1e-4) and good
