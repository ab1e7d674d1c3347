"""The parts of a model card: transform, decoder, sources, results, training. A wrong value is a CardError."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from zoo.errors import CardError


def require(holds: bool, says: str) -> None:
    if not holds:
        raise CardError(says)


def require_sha256(digest: str) -> None:
    require(
        re.fullmatch("[0-9a-f]{64}", digest) is not None,
        f"sha256 {digest!r} is not 64 of 0-9 and a-f; `sha256sum FILE` prints it",
    )


def require_inside(file: str) -> None:
    inside = (
        file
        and "\\" not in file
        and ".." not in PurePosixPath(file).parts
        and not PurePosixPath(file).is_absolute()
    )
    require(bool(inside), f"file {file!r} is not a path inside its folder; write model.safetensors, say")


@dataclass(frozen=True)
class TransformSpec:
    """The evaluation transform the card's numbers were measured with."""

    size: int  # pixels of the square crop
    crop_pct: float = 1.0  # side of the crop over the resized short side
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet-1k's, as timm has them
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size {self.size} is not a number of pixels; write 224, say")
        require(0 < self.crop_pct <= 1, f"crop_pct {self.crop_pct} is not in (0, 1]; write 1.0 for no margin")
        alike = len(self.mean) == len(self.std) > 0 and min(self.std) > 0
        require(alike, f"mean {self.mean} and std {self.std} must hold one number per channel, std above 0")


_OF_WORDS = ("width", "depth", "vocabulary", "word")


@dataclass(frozen=True)
class DecoderSpec:
    """The decoder beside the encoder of a masked-image model, and the mask it was trained with."""

    kind: Literal["mae", "ummae", "simmim", "beit", "dvae"]
    patch: int  # pixels of a predicted patch's side; SimMIM's is the encoder's stride
    mask_patch: int  # pixels of a side of the grid that masks live on
    normalised_targets: bool  # True: it predicts pixels normalised by their patch's mean and variance
    ratio: float  # share of patches hidden in training
    # Of the decoder's blocks; SimMIM has none. Of BEiT and dVAE: the last group's width, blocks in each group, no heads
    width: int = 0
    depth: int = 0
    heads: int = 0
    strategy: Literal["random", "grid", "uniform", "blockwise"] = "random"
    secondary: float | None = None  # share of the visible patches hidden on top
    position: Literal["sincos"] = "sincos"
    # Whose position a visible patch gets on a pyramid: its own, or what the authors of UM-MAE trained with
    visible_pos: Literal["own", "official"] = "own"
    vocabulary: int = 0  # words of the tokenizer, of BEiT and dVAE alone
    word: int = 0  # pixels of the side that one of its words paints; likewise

    def __post_init__(self) -> None:
        sizes = ("width", "depth", "heads")
        if self.kind == "simmim":
            given = [key for key in sizes if getattr(self, key)]
            require(not given, f"SimMIM's decoder is one layer and has no {', '.join(given)}; leave it out")
        needed = {"simmim": (), "beit": _OF_WORDS, "dvae": _OF_WORDS}.get(self.kind, sizes)
        for key in ("patch", "mask_patch", *needed):
            require(getattr(self, key) >= 1, f"{key} {getattr(self, key)} is not a positive number")
        for key, share in (("ratio", self.ratio), ("secondary", self.secondary)):
            require(
                share is None or 0 <= share < 1, f"{key} {share} is not a share in [0, 1); write 0.75, say"
            )


@dataclass(frozen=True)
class Source:
    """Where the published weights lie: a file of a Hub repo, or a URL."""

    repo: str | None = None
    revision: str | None = None
    file: str | None = None
    url: str | None = None
    layout: str | None = None  # how its tensors are named and nested; None: told from their names
    sha256: str | None = None
    sha256_prefix: str | None = None  # what its authors publish of the hash, where they publish no more
    md5_prefix: str | None = None  # likewise

    def __post_init__(self) -> None:
        require(bool(self.repo or self.url), "neither repo nor url; write repo: user/name, or url: https://…")
        require(
            self.repo is None or bool(self.file), f"repo {self.repo} without file: model.safetensors, say"
        )
        if self.file is not None:
            require_inside(self.file)
        if self.sha256 is not None:
            require_sha256(self.sha256)
        for prefix in (self.sha256_prefix, self.md5_prefix):
            require(
                prefix is None or re.fullmatch("[0-9a-f]{6,64}", prefix) is not None,
                f"hash prefix {prefix!r} is not 6 or more of 0-9 and a-f",
            )


@dataclass(frozen=True)
class Result:
    """One number, with all it takes to get it again."""

    task: str  # the protocol: knn, linear, reconstruction, …
    value: float
    dataset: str
    metric: str
    unit: str = ""
    split: str = ""
    settings: dict[str, Any] = field(default_factory=dict)  # such as {k: 20, T: 0.07, resolution: 128}
    command: str = ""
    source: str = ""  # a paper's URL; empty: measured with `command`


@dataclass(frozen=True)
class TrainingFacts:
    """How the zoo's own training made the weights."""

    recipe: str
    command: str
    data: str
    images: int
    epochs: int
    steps: int
    seed: int
    hardware: str
    minutes: float
    init: str = "random"  # or the model it began with
    date: str | None = None  # 2026-01-31
    versions: dict[str, str] = field(default_factory=dict)  # of torch, timm, …
