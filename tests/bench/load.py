"""A local ViT-B, loaded and run once on one image: the zoo, timm from the same folder, transformers from its own.

Warm (files in the page cache, libraries imported), one thread, float32, the same weights; whole calls are timed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from measure import Target, claim, in_turn, report, seconds
from models import write_both
from transformers import AutoModel
from transformers.utils import logging

import zoo

TARGETS = [Target("zoo", "timm", 0.5, at_least=False), Target("zoo", "transformers", 1.3, at_least=False)]


def run(data: str) -> bool:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = write_both(Path(scratch), "base")
        image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        pixels = zoo.load(str(ours), device="cpu").transform.normalise(image)

        def by_zoo() -> Any:
            return zoo.load(str(ours), device="cpu")(image).cls

        @torch.inference_mode()
        def by_timm() -> Any:
            model = timm.create_model(f"local-dir:{ours}", pretrained=True, num_classes=0).eval()
            return model(pixels)

        @torch.inference_mode()
        def by_transformers() -> Any:
            model = AutoModel.from_pretrained(theirs, add_pooling_layer=False).eval()
            return model(pixels).last_hidden_state[:, 0]

        ways = {"zoo": by_zoo, "timm": by_timm, "transformers": by_transformers}
        apart = max(float((by_zoo() - way()).abs().max()) for way in (by_timm, by_transformers))
        found = in_turn({name: lambda _, way=way: seconds(way) for name, way in ways.items()})
        good = report("ViT-B, loaded and run once, 1 thread, warm", "seconds", found, TARGETS)
        return (
            claim(f"the three features agree: max abs difference {apart:.1e} ≤ 1e-4", apart <= 1e-4) and good
        )
