"""What a run is: a frozen, typed, printable recipe. Each field is a knob of `zoo train`: `--optim.lr 1e-3`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from zoo.cards import TransformSpec
from zoo.channels import RGB, adapted_statistics
from zoo.errors import RecipeError
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.training.methods import Method


class MethodConfig(Protocol):
    """The knobs of one method; a frozen dataclass in the method's own file."""

    def build(self, recipe: Recipe) -> Method: ...


# Families whose networks are built for one image size, and what makes timm's accept others too.
_ANY_SIZE = {"vit": {"dynamic_img_size": True}, "swin": {"strict_img_size": False}}
# BEiT's pre-training shares one table of relative positions among all blocks, and norms patches before they are pooled.
_SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_fc_norm": False}
# Families with a class token to pool; the others pool the mean.
_WITH_TOKEN = ("vit", "eva", "pvt", "xcit")


@dataclass(frozen=True)
class Arch:
    """The encoder: a timm architecture and what is asked of it."""

    name: str = "vit_tiny_patch16_224"
    family: str = "vit"
    """Stem of a file in zoo/families."""
    size: int = 128
    """Pixels of the image side that positions are stored for, and that the encoder is evaluated at."""
    pooling: Literal["token", "avg"] = "token"
    drop_path: float = 0.0
    crop_pct: float = 0.875
    """Side of the evaluation crop over the resized short side."""
    in_chans: int = 3
    """Channels of an image: 1 reads pictures as grey; other than 1 and 3 are (H, W, C) uint8 arrays in .npy files."""
    embed_dim: int | None = None
    """Width: a plain transformer's, or a Swin's in its first stage. None leaves what the architecture has, as below."""
    depth: int | None = None
    """Blocks of a plain transformer."""
    num_heads: int | None = None
    """Of a plain transformer."""
    depths: tuple[int, ...] | None = None
    """Blocks in each stage of a Swin."""
    window_size: int | None = None
    """Tokens along the side of a Swin's windows."""
    own: tuple[tuple[str, str], ...] | None = None
    """Other arguments of the timm architecture, each a name and a value in JSON; `--init` takes the model's. None: what
    the zoo's recipes give the family."""

    def arguments(self) -> dict[str, Any]:
        """timm's keyword arguments that the finished encoder needs; drop path is for training only."""
        arguments: dict[str, Any] = {}
        if self.family in (*_ANY_SIZE, "beit"):
            arguments = {"img_size": self.size, **_ANY_SIZE.get(self.family, {})}
        if self.own is not None:
            arguments |= {name: json.loads(value) for name, value in self.own}
        elif self.family == "beit":
            arguments |= _SHARED
        if self.in_chans != RGB:
            arguments["in_chans"] = self.in_chans
        depths = None if self.depths is None else list(self.depths)
        sizes: dict[str, Any] = {
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
        }
        sizes |= {"depths": depths, "window_size": self.window_size}
        arguments |= {key: value for key, value in sizes.items() if value is not None}
        if self.pooling != "token":
            arguments["global_pool"] = self.pooling
        if self.pooling != "token" and self.family == "vit":
            # Without its own norm: `patches` stay the final norm's output and `pooled` is their mean.
            arguments.setdefault("fc_norm", False)
        return arguments

    def check_own(self) -> None:
        """RecipeError where a value of `own` is no JSON."""
        for argument, written in self.own or ():
            try:
                json.loads(written)
            except ValueError as error:
                raise RecipeError(
                    f"--arch.own {argument} is {written!r}, which is no JSON ({error}); give a number, true, false, a "
                    "list in brackets or words in double quotes"
                ) from error


@dataclass(frozen=True)
class Data:
    """How images reach the method."""

    size: int = 128
    """Pixels of a (global) view."""
    cache: bool = True
    """Decode every image once and keep it in memory as uint8, where there is room; views are the same either way."""
    mean: tuple[float, ...] = TransformSpec.mean
    """Of each channel, of pixels from 0 to 1: what views are normalised by; ImageNet's. `--init` takes the model's.
    Three numbers are averaged for grey images, and repeated for those of more channels."""
    std: tuple[float, ...] = TransformSpec.std
    side: int = 160
    """Short side in pixels that decoded images are reduced to; smaller ones stay as they are."""
    limit: int | None = None
    """At most this many images, evenly spread; None takes them all."""
    workers: int = 1
    """Processes that cut views while the model computes."""

    def check_side(self) -> None:
        """RecipeError for views larger than the images they are cut from."""
        if self.size > self.side:
            raise RecipeError(
                f"--data.size is {self.size}, and images are reduced to a short side of {self.side} before views are "
                f"cut: give --data.side {self.size} or more"
            )

    def check_statistics(self, channels: int) -> None:
        """RecipeError for a mean and deviation that images of so many channels cannot have."""
        if not {len(self.mean), len(self.std)} <= {channels, RGB} or not min(self.std) > 0:
            raise RecipeError(
                f"--data.mean is {self.mean} and --data.std {self.std}; give {counted(channels, 'number')} each, those "
                f"of std above 0, as in {' '.join(['0.5'] * channels)}"
            )


@dataclass(frozen=True)
class Optim:
    """The optimiser and its numbers."""

    batch: int = 128
    """Images per step over all processes."""
    accumulate: int = 1
    """Equal parts that a process cuts its share of a batch into, for a memory that holds no more: their gradients are
    averaged, and all else is done once per step. Where a loss or a batch norm compares images (SimCLR, VICReg, BYOL,
    DINO with `head_norm`, ResNets), those of a part are compared by themselves: no substitute for a large batch."""
    lr: float = 1.5e-4
    """Base learning rate for a batch of 256; the run uses lr * batch / 256."""
    kind: Literal["adamw", "sgd", "lars"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    momentum: float = 0.9
    """Of SGD and LARS."""
    weight_decay: float = 0.05
    weight_decay_end: float | None = None
    """Where a cosine takes the weight decay to; None keeps it."""


@dataclass(frozen=True)
class Schedule:
    """Epochs, warm-up, end."""

    epochs: int = 100
    warmup_epochs: float = 10
    """Linear warm-up from 0; never more than a tenth of the run."""
    steps: int | None = None
    """So many steps in all, instead of epochs."""
    least_steps: int | None = None
    """Fewest steps that the epochs may make. Where images are few, an epoch is as many passes over them as it takes, so
    that all that is counted in epochs keeps its share of the run. `--init` sets 1000."""
    final_lr: float = 0.0
    """Learning rate at the end of the cosine, not scaled by the batch."""


@dataclass(frozen=True)
class Run:
    """What does not change the method."""

    seed: int = 0
    precision: Literal["no", "fp16", "bf16"] = "no"
    """no: float32. So is bf16 on a processor without instructions for it, where it would be slower."""
    compile: bool = False
    """Compile the backbone's blocks: about a minute before the first step, then faster."""
    threads: int = 0
    """CPU threads of this process; 0 leaves torch's choice."""
    minutes: float | None = None
    """Train for so long instead of `schedule.epochs`: the steps are what fits, by the speed of a few of them."""
    checkpoint_minutes: float = 2.0
    log_every: int = 10
    sentry: bool = True
    """Stop a run that has collapsed or diverged; without it, only one whose loss is no number."""
    licence: str = "unknown"
    """Licence of the weights, for whoever owns them to say: Hugging Face's identifier, such as apache-2.0."""


@dataclass(frozen=True)
class Recipe:
    """Method, architecture, data, optimiser, schedule and run: everything but the images."""

    method: MethodConfig
    arch: Arch = Arch()
    data: Data = Data()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that views are normalised by."""
        channels = self.arch.in_chans
        mean, std = (
            values if len(values) == channels else adapted_statistics(values, channels)
            for values in (self.data.mean, self.data.std)
        )
        return mean, std

    def check(self) -> None:
        """RecipeError for a knob whose value cannot work."""
        if self.arch.pooling == "token" and self.arch.family not in _WITH_TOKEN:
            raise RecipeError(
                f"--arch.pooling is 'token', and {self.arch.name} of the family {self.arch.family!r} has no class "
                "token; give --arch.pooling avg, and an --arch.name of that family"
            )
        self.arch.check_own()
        if self.arch.in_chans < 1:
            raise RecipeError(f"--arch.in_chans is {self.arch.in_chans}; give 1 for grey images, or more")
        self.data.check_statistics(self.arch.in_chans)
        above_zero: dict[str, float] = {
            "--optim.batch": self.optim.batch,
            "--optim.accumulate": self.optim.accumulate,
            "--optim.lr": self.optim.lr,
            "--schedule.epochs": self.schedule.epochs,
            "--data.size": self.data.size,
            "--data.side": self.data.side,
            "--arch.size": self.arch.size,
            "--run.log_every": self.run.log_every,
        }
        zero_or_more = {
            "--schedule.warmup_epochs": self.schedule.warmup_epochs,
            "--data.workers": self.data.workers,
            "--run.seed": self.run.seed,
            "--run.threads": self.run.threads,
            "--run.checkpoint_minutes": self.run.checkpoint_minutes,
            "--schedule.final_lr": self.schedule.final_lr,
            "--optim.weight_decay": self.optim.weight_decay,
            "--optim.weight_decay_end": self.optim.weight_decay_end or 0,
        }
        asked: dict[str, float | None] = {
            "data.limit": self.data.limit,
            "schedule.steps": self.schedule.steps,
            "schedule.least_steps": self.schedule.least_steps,
            "run.minutes": self.run.minutes,
        }
        above_zero |= {f"--{knob}": value for knob, value in asked.items() if value is not None}
        if self.run.minutes is not None and self.schedule.steps is not None:
            raise RecipeError(
                "--run.minutes chooses the steps, and --schedule.steps gives them; give one of the two"
            )
        shares = {"--arch.drop_path": self.arch.drop_path, "--optim.momentum": self.optim.momentum}
        shares |= {
            f"--optim.betas ({which})": beta for which, beta in zip("12", self.optim.betas, strict=True)
        }
        for knob, value in shares.items():
            if not 0 <= value < 1:
                raise RecipeError(f"{knob} is {value}; give a number from 0 up to, but not, 1")
        if not 0 < self.arch.crop_pct <= 1:
            raise RecipeError(f"--arch.crop_pct is {self.arch.crop_pct}; give a number above 0, at most 1")
        for knob, value in above_zero.items():
            if not value > 0:  # NaN too
                raise RecipeError(f"{knob} is {value}; give a number above 0")
        for knob, value in zero_or_more.items():
            if not value >= 0:
                raise RecipeError(f"{knob} is {value}; give 0 or more")
        self.data.check_side()

    def describe(self) -> dict[str, Any]:
        """The recipe as plain JSON, with the name of the method's file."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"method_file": type(self.method).__module__.rsplit(".", 1)[-1], **plain}


def check_crops(config: Any) -> None:
    """RecipeError where a method's `min_scale`, the smallest share of an image that a crop covers, is no share."""
    if not 0 < config.min_scale <= 1:
        raise RecipeError(
            f"--method.min_scale is {config.min_scale}; give a share in (0, 1], such as {type(config).min_scale}"
        )
