"""How fast an encoder is beside ResNet-50, which everybody knows: images a second on one machine, in turn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import timm
import torch

from zoo.encoder import Encoder
from zoo.export.bench import SEED, in_turn, threads_of_torch
from zoo.hardware import processor

SIDE = 224  # pixels that ResNet-50 is measured at


@dataclass(frozen=True)
class Speed:
    """Images a second of an encoder's features and of ResNet-50's at 224 px, both by eager PyTorch in float32."""

    model: str
    size: int
    batch: int
    threads: int
    images_per_second: float
    resnet50_per_second: float
    ratio: float  # times as many, median of the rounds
    low: float  # its quartiles
    high: float
    rounds: int
    hardware: str


def beside_resnet50(encoder: Encoder, *, batch: int = 8, threads: int | None = None) -> Speed:
    """Time an encoder at its own size and ResNet-50, whose weights are random, on the processor.

    threads: of both alike; None: as many as torch uses.

    >>> beside_resnet50(zoo.load("dino_vitt16_imagenette")).ratio
    """
    encoder = encoder.to("cpu", torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        resnet = timm.create_model("resnet50", num_classes=0).eval()
    draw = torch.Generator().manual_seed(SEED)
    own = torch.randn(batch, encoder.transform.channels, encoder.size, encoder.size, generator=draw)
    usual = torch.randn(batch, 3, SIDE, SIDE, generator=draw)
    with threads_of_torch(threads) as count, torch.inference_mode():
        machine = processor()
        calls = [lambda: encoder.forward_features(own).pooled, lambda: resnet(usual)]
        _, (ours, theirs) = in_turn(calls, "beside ResNet-50")
    low, ratio, high = statistics.quantiles((b / a for a, b in zip(ours, theirs, strict=True)), n=4)
    return Speed(
        model=encoder.card.name,
        size=encoder.size,
        batch=batch,
        threads=count,
        images_per_second=1000 * batch / statistics.median(ours),
        resnet50_per_second=1000 * batch / statistics.median(theirs),
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(ours),
        hardware=machine,
    )
