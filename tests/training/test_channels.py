"""Training on grey pictures and on arrays of other channels than three."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator

import zoo
from zoo.channels import adapted_statistics
from zoo.cli import main
from zoo.errors import RecipeError
from zoo.images import read_image
from zoo.one_mask import common_size
from zoo.pictures import reconstruction_panel, to_picture
from zoo.saving import save_picture
from zoo.sources import open_source
from zoo.training import augment
from zoo.training.beginning import begun_with
from zoo.training.data import decode
from zoo.training.engine import run
from zoo.training.methods import method_names, recipe
from zoo.training.recipe import Recipe
from zoo.training.scores import evaluate

Tiny = Callable[..., Recipe]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 arrays (48, 64, 5) uint8 in train/ and 8 in val/, of two classes."""
    root = tmp_path_factory.mktemp("five")
    for split, count in (("train", 6), ("val", 4)):
        for c, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                levels = np.random.default_rng([c, i, count]).integers(0, 256, (48, 64, 5), dtype=np.uint8)
                np.save(folder / f"{i:02d}.npy", levels)
    return root


# Pyramids need more than 32 px.
PLAIN = {"family": "vit", "pooling": "avg", "embed_dim": None, "depths": None, "window_size": None}
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "simmim": {"arch": PLAIN, "method": {"unit": 16}},
    "ummae": {"arch": PLAIN, "method": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}},
}


DECODED = ("beit", "dvae", "mae", "simmim", "ummae")
# Networks with stems of their own, and what trains them in a step or two.
NETWORKS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "swin": ("ummae", {"arch": {"name": "ssl_zoo_ummae_swin_micro", "size": 128}, "data": {"size": 128}}),
    "pvt": (
        "ummae",
        {"arch": {"name": "ssl_zoo_ummae_pvt_micro", "family": "pvt", "size": 128}, "data": {"size": 128}},
    ),
    "resnet": ("simclr", {"arch": {"name": "resnet18", "family": "resnet", "pooling": "avg"}}),
    "xcit": ("simclr", {"arch": {"name": "xcit_nano_12_p16_224", "family": "xcit"}}),
}


def of_channels(recipe: Recipe, channels: int) -> Recipe:
    """A recipe for other images, tiny as it is."""
    return dataclasses.replace(recipe, arch=dataclasses.replace(recipe.arch, in_chans=channels))


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_method_ends_in_a_folder_for_its_channels(
    name: str, channels: int, tiny: Tiny, photos: Path, five: Path, tmp_path: Path
) -> None:
    """Grey photos, RGB and five layers: a folder that the zoo and timm read, and that shows what it imagines."""
    asked = tiny(f"{name}/smoke", schedule={"steps": 2}, **OWN.get(name, {}))
    data = five if channels == 5 else photos
    run(of_channels(asked, channels), data, tmp_path / "run")
    encoder = zoo.load(tmp_path / "run")
    assert encoder.transform.channels == channels
    assert encoder.transform.mean == (
        asked.data.mean if channels == 3 else adapted_statistics(asked.data.mean, channels)
    )
    image = next((data / "val" / "cat").iterdir())
    features = encoder(image)
    assert features.pooled.isfinite().all()
    pixels = encoder.transform(image)[None]
    other = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(other(pixels), features.pooled, rtol=1e-5, atol=1e-5)
    assert (encoder.decoder is not None) == (name in DECODED)
    if name in DECODED:
        found = encoder.reconstruct(image)
        assert found.composite.shape[1] == channels
        assert found.error.isfinite().all()


@pytest.mark.parametrize("family", NETWORKS)
def test_networks_with_stems_of_their_own_take_other_channels(
    family: str, tiny: Tiny, five: Path, tmp_path: Path
) -> None:
    """Pyramids, whose compact image is cut before the stem, ResNets and XCiT: five layers, one step."""
    method, knobs = NETWORKS[family]
    small = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2} if method == "ummae" else {}
    asked = of_channels(tiny(f"{method}/smoke", schedule={"steps": 1}, method=small, **knobs), 5)
    run(asked, five, tmp_path / "run", scores=False)
    encoder = zoo.load(tmp_path / "run")
    assert encoder.card.family == family
    image = five / "val" / "cat" / "00.npy"
    assert encoder(image).pooled.isfinite().all()
    if method == "ummae":
        assert encoder.reconstruct(image).predicted.shape == (1, 5, 128, 128)


def test_decoding_keeps_each_channel(photos: Path) -> None:
    """Channel by channel what a grey picture of it becomes; a grey photo is Pillow's L."""
    layers = np.random.default_rng(0).integers(0, 256, (60, 90, 4), dtype=np.uint8)
    encoded = _npy(np.concatenate([layers, layers[:, :, :1]], axis=2))
    pixels = decode(encoded, 40, channels=5)
    assert pixels.shape == (5, 40, 60) and pixels.dtype == torch.uint8
    for channel in range(4):
        alone = Image.fromarray(layers[:, :, channel]).resize((60, 40), Image.Resampling.BICUBIC)
        assert np.array_equal(pixels[channel].numpy(), np.asarray(alone))
    photo = next((photos / "train" / "cat").iterdir())
    grey = decode(photo.read_bytes(), 1000, channels=1)
    assert np.array_equal(grey[0].numpy(), np.asarray(read_image(photo).convert("L")))


def _npy(array: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_views_of_other_channels_change_all_layers_alike() -> None:
    """Five equal layers stay equal under every change of colour, which are those of a grey picture."""
    steps = [
        *augment.colour_distortion(0.4, 0.4, 0.2, 0.1, probability=1.0),
        *augment.solarise(0.5),
        *augment.blur(32, 0.5),
    ]
    changed = augment.normalised(steps, [0.5] * 5, [0.25] * 5)
    alone = augment.normalised(steps, [0.5], [0.25])
    grey = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8, generator=Generator().manual_seed(0))
    for seed in range(20):
        many = augment.seeded(changed, grey.expand(5, -1, -1).clone(), Generator().manual_seed(seed))
        one = augment.seeded(alone, grey, Generator().manual_seed(seed))
        torch.testing.assert_close(many, one.expand(5, -1, -1), rtol=0, atol=1e-6)
        assert not torch.equal(one, (grey / 255 - 0.5) / 0.25)


def test_a_grey_model_is_tuned_and_drawn(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """Fine-tuning, RandAugment and all, takes what the model takes; its reconstruction is a picture."""
    run(of_channels(tiny("mae/smoke", schedule={"steps": 2}), 1), photos, tmp_path / "run")
    encoder = zoo.load(tmp_path / "run")
    row = evaluate(
        encoder, photos, protocol="finetune", knobs=["--schedule.steps", "2", "--optim.batch", "4"]
    )
    assert 0 <= row["top1"] <= 100
    found = encoder.reconstruct(next((photos / "val" / "cat").iterdir()))
    drawn = reconstruction_panel(found)
    save_picture(drawn, tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").size == drawn.size


def test_init_adapts_the_first_convolution(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    """From a model of RGB, by `zoo.load(in_chans=…)`'s rule; from a grey one, as it is."""
    run(tiny("dino/smoke", schedule={"steps": 1}), photos, tmp_path / "rgb")
    begun = of_channels(begun_with(tiny("dino/smoke", schedule={"steps": 1}), tmp_path / "rgb"), 1)
    frozen = dataclasses.replace(
        begun, optim=dataclasses.replace(begun.optim, lr=1e-30, weight_decay=0.0, weight_decay_end=None)
    )
    run(frozen, photos, tmp_path / "grey", init=tmp_path / "rgb")
    wanted = zoo.load(tmp_path / "rgb", in_chans=1).module.state_dict()
    found = zoo.load(tmp_path / "grey").module.state_dict()
    torch.testing.assert_close(
        found["patch_embed.proj.weight"], wanted["patch_embed.proj.weight"], rtol=0, atol=1e-3
    )
    assert begun_with(recipe("dino/smoke"), tmp_path / "grey").arch.in_chans == 1
    with pytest.raises(RecipeError, match=r"takes images of 1 channels, and --arch\.in_chans is 3"):
        run(tiny("dino/smoke"), photos, tmp_path / "back", init=tmp_path / "grey")


def test_init_of_a_masked_model_leaves_its_decoder_behind(
    tiny: Tiny, photos: Path, five: Path, tmp_path: Path
) -> None:
    """A decoder predicts its own channels; another begins, and the new channels may have statistics of their own."""
    run(tiny("mae/smoke", schedule={"steps": 1}), photos, tmp_path / "rgb", scores=False)
    begun = begun_with(tiny("mae/smoke", schedule={"steps": 1}), tmp_path / "rgb")
    own = dataclasses.replace(begun, data=dataclasses.replace(begun.data, mean=(0.4,) * 5, std=(0.2,) * 5))
    run(of_channels(own, 5), five, tmp_path / "five", init=tmp_path / "rgb", scores=False)
    encoder = zoo.load(tmp_path / "five")
    assert encoder.transform.mean == (0.4,) * 5
    assert encoder.reconstruct(five / "val" / "cat" / "00.npy").predicted.shape[1] == 5


def test_a_tokenizer_of_other_channels_is_refused(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    run(tiny("dvae/smoke", schedule={"steps": 1}), photos, tmp_path / "words", scores=False)
    given = tiny("beit/smoke", method={"tokenizer": str(tmp_path / "words")})
    with pytest.raises(RecipeError, match=r"reads images of 3 channels, and --arch\.in_chans is 1"):
        given.method.build(of_channels(given, 1))


def test_randaugment_is_of_pictures(tiny: Tiny, five: Path, tmp_path: Path) -> None:
    run(of_channels(tiny("mae/smoke", schedule={"steps": 1}), 5), five, tmp_path / "run", scores=False)
    encoder = zoo.load(tmp_path / "run")
    knobs = ["--schedule.steps", "1", "--optim.batch", "4"]
    with pytest.raises(RecipeError, match=r"give --method\.randaugment 0"):
        evaluate(encoder, five, protocol="finetune", knobs=knobs)
    row = evaluate(encoder, five, protocol="finetune", knobs=[*knobs, "--method.randaugment", "0"])
    assert 0 <= row["top1"] <= 100


def test_masked_models_of_different_channels_have_no_crop_in_common(
    tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    models = []
    for channels in (1, 3):
        asked = of_channels(tiny("mae/smoke", schedule={"steps": 1}), channels)
        models.append(zoo.load(run(asked, photos, tmp_path / str(channels), scores=False)))
    with pytest.raises(zoo.ZooError, match=r"different channels: 1 \(1\), 3 \(3\)"):
        common_size(models)


def test_the_command_line_draws_arrays(
    tiny: Tiny, five: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card's own command; of five layers the first three are drawn."""
    run(of_channels(tiny("mae/smoke", schedule={"steps": 1}), 5), five, tmp_path / "run", scores=False)
    encoder = zoo.load(tmp_path / "run")
    assert "array.npy --out" in encoder.card.body
    image, out = five / "val" / "cat" / "00.npy", tmp_path / "drawn.png"
    assert main(["reconstruct", str(tmp_path / "run"), str(image), "--out", str(out)]) == 0
    assert read_image(out).width > 100
    pixels = encoder.transform.denormalise(encoder.transform(image))
    expected = (pixels[:3] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(to_picture(pixels)), expected)
    assert main(["attend", str(tmp_path / "run"), str(image), "--out", str(tmp_path / "heads.png")]) == 0
    assert main(["attend", str(tmp_path / "run"), str(image.with_name("none.npy")), "--out", str(out)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_wrong_channels_are_told(tiny: Tiny, five: Path, photos: Path, tmp_path: Path) -> None:
    """What cannot be is said with what to type."""
    with pytest.raises(RecipeError, match="give 1 for grey"):
        of_channels(tiny("mae/smoke"), 0).check()
    odd = tiny("mae/smoke", data={"mean": (0.5, 0.5), "std": (0.5, 0.5)})
    with pytest.raises(RecipeError, match="give 5 numbers each"):
        of_channels(odd, 5).check()
    own = tiny("mae/smoke", data={"mean": (0.1,) * 5, "std": (0.5,) * 5})
    assert of_channels(own, 5).statistics == ((0.1,) * 5, (0.5,) * 5)
    with pytest.raises(zoo.ZooError, match=r"none of the 12 images .*takes \(H, W, 5\) uint8 arrays"):
        run(of_channels(tiny("mae/smoke"), 5), photos, tmp_path / "run")


def test_arrays_are_images_where_there_are_no_others(five: Path, photos: Path, tmp_path: Path) -> None:
    """Beside photos they are somebody's features."""
    shutil.copytree(photos / "val", tmp_path / "some")
    np.save(tmp_path / "some" / "cat" / "features.npy", np.zeros((4, 4)))
    assert len(open_source(tmp_path / "some")) == 8
    assert len(open_source(five, "train")) == 12


def test_extraction_reads_arrays(tiny: Tiny, five: Path, tmp_path: Path) -> None:
    """`zoo.extract` on a folder of five layers, and what is no such array is skipped, here and in training."""
    spoilt = tmp_path / "spoilt"
    shutil.copytree(five, spoilt)
    some = (spoilt / "val" / "cat" / "00.npy").read_bytes()
    for split in ("train", "val"):
        (spoilt / split / "cat" / "damaged.npy").write_bytes(some[:40] + b"(((" + some[43:])
        (spoilt / split / "cat" / "incomplete.npy").write_bytes(some[:-7])
        np.save(spoilt / split / "dog" / "float.npy", np.zeros((48, 64, 5)))
    run(of_channels(tiny("mae/smoke", schedule={"steps": 1}), 5), spoilt, tmp_path / "run", scores=False)
    assert "3 images could not be read" in zoo.load(tmp_path / "run").card.body
    encoder = zoo.load(tmp_path / "run")
    ids, labels, features = zoo.extract(encoder, spoilt / "val")
    assert len(ids) == 8
    assert set(labels.tolist()) == {0, 1}
    np.testing.assert_allclose(
        features["pooled"][0], encoder(five / "val" / ids[0]).pooled[0], rtol=1e-4, atol=1e-5
    )
