"""Model cards: a README.md with Hugging Face front matter and a `zoo:` block, the only source of a model's facts."""

from __future__ import annotations

import keyword
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo import card_hub, card_yaml, typed
from zoo.card_specs import DecoderSpec as DecoderSpec
from zoo.card_specs import Result as Result
from zoo.card_specs import Source as Source
from zoo.card_specs import TrainingFacts as TrainingFacts
from zoo.card_specs import TransformSpec as TransformSpec
from zoo.card_specs import require, require_inside, require_sha256
from zoo.errors import CardError
from zoo.files import atomic_write

README = "README.md"

# Arguments of timm.create_model that would load something, or that other fields of the card decide.
_RESERVED = re.compile(
    r"pretrained.*|checkpoint_path|cache_dir|features_only|feature_cfg|device|dtype|scriptable|exportable|no_jit"
    r"|num_classes|global_pool"
)

Approach = Literal[
    "masked image modelling",
    "contrastive",
    "distillation",
    "clustering",
    "redundancy reduction",
    "pretext",
    "supervised",
]

_SHAPE_OF_A_CARD = """\
no front matter; a card begins like
---
license: apache-2.0
zoo:
  method: dino
  kind: discriminative
  family: vit
  architecture: vit_small_patch16_224
  parameters: 21665664
  pooling: token
  transform: {size: 224, crop_pct: 0.875}
---
# its name, and what it is"""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything known about a model. Values in `arguments`, `settings` and `hub` are plain YAML: lists, not tuples.

    Raises CardError where a field says something impossible.
    """

    name: str  # of the folder, or the stem of NAME.md
    licence: str = field(metadata={"key": "license"})  # of the weights: Hugging Face's identifier
    method: str
    kind: Literal["discriminative", "generative", "supervised"]
    family: str  # stem of a file in zoo/families
    architecture: str  # timm's name, without a tag
    parameters: int  # of the encoder, exactly
    pooling: Literal["token", "avg"]  # what `pooled` is: the class token, or the mean of the patches
    transform: TransformSpec
    arguments: dict[str, Any] = field(default_factory=dict)  # of the timm model, such as {img_size: 128}
    approach: Approach | None = None
    decoder: DecoderSpec | None = None
    interpolation: Literal["timm", "dino", "dinov2", "bicubic", "beit"] = (
        "timm"  # who resizes positions off the native size
    )
    aliases: tuple[str, ...] = ()
    # None: as the licence says
    commercial_use: bool | None = field(default=None, metadata={"key": "commercial"})
    results: tuple[Result, ...] = ()
    training: TrainingFacts | None = None
    sources: tuple[Source, ...] = ()  # tried in this order
    unavailable: str = ""  # why no source can be fetched, and which file to pass as weights=
    paper: str = ""  # URL
    sha256: dict[str, str] = field(default_factory=dict)  # hex digest of each weight file beside the card
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    hub: dict[str, Any] = field(default_factory=dict)  # other front matter of Hugging Face's, kept as it is
    body: str = ""  # Markdown
    path: Path | None = field(default=None, compare=False)  # the file it was read from

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", self.body.strip("\n"))
        require(
            self.family.isidentifier() and not keyword.iskeyword(self.family),
            f"family {self.family!r} is not the stem of a file in zoo/families; write vit, say",
        )
        require(
            re.fullmatch(r"\w+", self.architecture, re.ASCII) is not None,
            f"architecture {self.architecture!r} is not a timm name without tag; write vit_small_patch16_224, say",
        )
        require(self.parameters >= 1, f"parameters {self.parameters} is not a count")
        if reserved := [key for key in self.arguments if _RESERVED.fullmatch(key)]:
            raise CardError(
                f"arguments may not hold {', '.join(reserved)}; pooling says global_pool, and loading the rest"
            )
        for file, digest in self.sha256.items():
            require_inside(file)
            require_sha256(digest)

    @property
    def licence_name(self) -> str:
        """What the licence is called: a name of its own, where the Hub's list has none for it and says `other`."""
        return str(self.hub.get("license_name", self.licence))

    @property
    def title(self) -> str:
        """The body's first heading, or the name where it has none."""
        heading = re.search(r"^# +(\S.*)$", self.body, re.MULTILINE)
        # Not in the pattern, which would try every end of a stranger's long line.
        return heading[1].rstrip(" \t#") or self.name if heading else self.name

    @property
    def commercial(self) -> bool:
        """Whether the weights may be used commercially, by their licence or because `zoo.commercial` says so."""
        if self.commercial_use is not None:
            return self.commercial_use
        return card_hub.allows_commercial_use(self.licence)

    @property
    def permission(self) -> Literal["yes", "no", "unclear"]:
        """Commercial use, by the licence: unclear where a contract has to be read, or where nothing is said."""
        if self.commercial:
            return "yes"
        return "unclear" if self.commercial_use is None and self.licence in ("other", "unknown") else "no"

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments of timm.create_model besides num_classes=0, so that `model(x)` is `pooled`."""
        return {**self.arguments, "global_pool": self.pooling}


_FRONT = ("license", "tags", "datasets")
_OUTSIDE = ("name", "hub", "body", "path")
_KEYS = typed.keys_of(ModelCard)
_FRONT_KEYS = {key: _KEYS[key] for key in _FRONT}
_ZOO_KEYS = {key: each for key, each in _KEYS.items() if key not in (*_FRONT, *_OUTSIDE)}


def read_card(path: str | Path) -> ModelCard:
    """The card in a model folder, or of a NAME.md file. Raises CardError naming the file and every problem in it."""
    path = Path(path)
    file = path / README if path.is_dir() else path
    # abspath keeps symbolic links: a model folder, and a file of the Hub's cache, may be one.
    name = Path(os.path.abspath(file)).parent.name if file.name == README else file.stem
    try:
        return parse_card(file.read_text(encoding="utf-8-sig"), name, file)
    except FileNotFoundError:
        raise CardError(f"{file} does not exist; a model folder holds its card in {README}") from None
    except UnicodeDecodeError as error:
        raise CardError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except CardError as error:
        raise CardError(f"{file}: {error}") from None


def parse_card(text: str, name: str, path: Path | None = None) -> ModelCard:
    """The card that `text` spells. Raises CardError with every problem in it."""
    if (parts := card_yaml.split(text)) is None:
        raise CardError(_SHAPE_OF_A_CARD)
    front, problems = card_yaml.load(parts[0]), list[str]()
    for key in ("tags", "datasets"):  # Hugging Face allows one without the list
        if isinstance(front.get(key), str):
            front[key] = [front[key]]
    values = typed.read_fields(ModelCard, _FRONT_KEYS, front, "", problems, {"zoo", *card_hub.KEYS})
    block = front.get("zoo")
    if isinstance(block, dict):
        values |= typed.read_fields(ModelCard, _ZOO_KEYS, block, "zoo", problems)
    else:
        problems.append(
            "no `zoo:` block; it says method, kind, family, architecture, parameters, pooling, transform"
        )
    hub = {key: front[key] for key in front if key in card_hub.KEYS and not _is_default(key, front[key])}
    if values.get("results"):
        hub.pop("model-index", None)  # a rendering of the results
    if problems:
        raise CardError(
            "\n  ".join(problems if len(problems) == 1 else [f"{len(problems)} problems", *problems])
        )
    return ModelCard(name=name, hub=typed.to_plain(hub), body=parts[1], path=path, **values)


def _is_default(key: str, value: Any) -> bool:
    """Whether rendering writes this front matter anyway."""
    return key in card_hub.DEFAULTS and card_hub.DEFAULTS[key] == value


def render_card(card: ModelCard, body: str | None = None) -> str:
    """The README.md of a card, with `body` in place of its own Markdown. Symmetric with `parse_card`."""
    values = typed.differing(card)
    front = {key: typed.to_plain(values[key]) for key in _FRONT if key in values}
    front |= card_hub.DEFAULTS | typed.to_plain(card.hub)
    if card.results:
        front["model-index"] = typed.to_plain(card_hub.model_index(card.name, card.results))
    front["zoo"] = {key: typed.to_plain(values[key]) for key in _ZOO_KEYS if key in values}
    text = (card.body if body is None else body).strip("\n")
    return f"---\n{card_yaml.dump(front)}---\n\n{text}\n"


def write_card(card: ModelCard, place: str | Path, body: str | None = None) -> Path:
    """Write a card into a model folder, or to a NAME.md file, at once or not at all; the file written.

    Raises CardError, and writes nothing, where the card could not be read back.
    """
    file = Path(place) if Path(place).suffix == ".md" else Path(place) / README
    text = render_card(card, body)
    parse_card(text, card.name)
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return file
