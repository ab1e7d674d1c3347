"""Features of photos from the exported graph beside this file; it needs numpy, pillow and onnxruntime, nothing else.

    python infer.py photo.jpg [more.jpg …] [--graph model_int8.onnx] [--out features.npy]

Prints one JSON line a photo, or saves the pooled features (B, D) as float32. What is done to a photo (orientation,
size, crop, mean and std) stands in the graph's metadata, so these are the features of the model's own toolkit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

_BEGAN = time.perf_counter()  # before the imports that take time

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from PIL import Image  # noqa: E402

HERE = Path(__file__).resolve().parent
BATCH = 16  # images that go through the graph at once: more gains a processor nothing
ORIENTATION = 0x0112  # EXIF 2.3 §4.6.4
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Features of photos from the exported graph beside this file."
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="JPEG, PNG, WebP, … files")
    parser.add_argument("--graph", metavar="FILE", help="another graph than the most exact in this folder")
    parser.add_argument("--out", metavar="FILE", help="save the features (B, D) here, as .npy")
    arguments = parser.parse_args()
    try:
        pooled = features(arguments.photos, graph_file(arguments.graph))
    except (OSError, ValueError) as error:
        raise SystemExit(f"infer.py: {error}") from None
    seconds = time.perf_counter() - _BEGAN
    if arguments.out:
        np.save(arguments.out, pooled)
        print(f"wrote {arguments.out}: {len(pooled)} × {pooled.shape[1]} features in {seconds:.2f} s")
        return
    for photo, row in zip(arguments.photos, pooled.tolist(), strict=True):
        print(json.dumps({"photo": photo, "features": row, "seconds": round(seconds, 3)}))


def graph_file(named: str | None) -> Path:
    """The graph asked for, or the most exact beside this file. Raises ValueError where there is none."""
    found = [HERE / name for name in ("model.onnx", "model_fp16.onnx", "model_int8.onnx")]
    file = Path(named) if named else next((each for each in found if each.is_file()), found[0])
    if not file.is_file():
        raise ValueError(f"no file {file}; name the exported graph with --graph FILE")
    return file


def features(photos: list[str], graph: Path) -> np.ndarray[Any, Any]:
    """Pooled features (B, D) of photo files, on the processor."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    if entry.name == "image":  # it resizes and normalises itself, one picture at a time
        rows = [session.run(["pooled"], {"image": levels_of(photo, entry.shape[-1])})[0] for photo in photos]
        return np.concatenate(rows).astype(np.float32)
    transform = json.loads(session.get_modelmeta().custom_metadata_map["transform"])
    if isinstance(
        side := entry.shape[-1], int
    ):  # else the graph takes any size, and the model's own is taken
        if entry.shape[-2] != side:
            raise ValueError(
                f"{graph} takes {entry.shape[-2]}×{side} pixels, and photos are cropped to squares here"
            )
        transform["size"] = side
    dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
    rows = []
    for start in range(0, len(photos), BATCH):
        pixels = np.stack([pixels_of(photo, **transform) for photo in photos[start : start + BATCH]])
        rows.append(session.run(["pooled"], {"pixels": pixels.astype(dtype)})[0])
    return np.concatenate(rows).astype(np.float32)


def levels_of(photo: str, channels: int) -> np.ndarray[Any, Any]:
    """(height, width, C) uint8: a photo as it is."""
    if channels not in (1, 3):
        raise ValueError(f"this graph takes {channels} channels, and photos have 1 or 3")
    levels = np.asarray(upright(photo) if channels == 3 else upright(photo).convert("L"))
    return levels if channels == 3 else levels[:, :, None]


def pixels_of(
    photo: str, size: int, crop_pct: float, interpolation: str, mean: list[float], std: list[float]
) -> np.ndarray[Any, Any]:
    """(C, size, size) float32: the centre crop of a photo, normalised."""
    if len(mean) not in (1, 3):
        raise ValueError(f"this graph takes {len(mean)} channels, and photos have 1 or 3")
    picture = upright(photo) if len(mean) == 3 else upright(photo).convert("L")
    how = Image.Resampling[interpolation.upper()]
    resized = picture.resize(covering(picture, math.floor(size / crop_pct)), how)
    left, top = (round((side - size) / 2) for side in resized.size)
    levels = np.asarray(resized.crop((left, top, left + size, top + size)), np.float32)
    unit = levels.reshape(size, size, len(mean)) / np.float32(255)
    normalised: np.ndarray[Any, Any] = (unit - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return normalised.transpose(2, 0, 1)


def covering(picture: Image.Image, side: int) -> tuple[int, int]:
    """(width, height) of the picture once its short side is `side`; the long side is rounded down."""
    short = min(picture.size)
    width, height = (side if each == short else int(side * each / short) for each in picture.size)
    return width, height


def upright(photo: str) -> Image.Image:
    """The photo as RGB, turned as its EXIF block says, transparency laid on white, 16-bit grey scaled to 8 bit."""
    with Image.open(photo) as picture:
        picture.load()
        try:
            turn = UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
        except Exception:  # a damaged EXIF block does not spoil the pixels
            turn = None
        rgb = opaque(picture)
    return rgb if turn is None else rgb.transpose(turn)


def opaque(picture: Image.Image) -> Image.Image:
    """A picture of any mode -> RGB."""
    if picture.mode.startswith("I"):
        grey = np.array(picture, np.int32)
        if isinstance(clear := picture.info.get("transparency"), int):
            grey[grey == clear] = 65535
        picture = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return picture.convert("RGB")


if __name__ == "__main__":
    main()
