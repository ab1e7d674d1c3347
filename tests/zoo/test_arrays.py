"""Arrays in .npy files: the same picture as in memory, and every kind of damage told in one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import ImageError
from zoo.images import read_image, read_layers


def encoded(array: NDArray[Any], **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def some(channels: int, height: int = 6, width: int = 9) -> NDArray[np.uint8]:
    return np.random.default_rng(channels).integers(0, 256, (height, width, channels), dtype=np.uint8)


@given(array=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 5, 7]))))
def test_layers_are_the_channels(array: NDArray[np.uint8]) -> None:
    """Of bytes, and of columns first as numpy may store them, as of the array itself."""
    channels = array.shape[2]
    for source in (array, encoded(array), encoded(np.asfortranarray(array))):
        layers = read_layers(source, channels)
        assert np.array_equal(np.stack([np.asarray(layer) for layer in layers], axis=2), array)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_may_lie_in_an_array_file(channels: int, tmp_path: Path) -> None:
    """By path, bytes and open file, whatever its name."""
    array = some(channels)
    expected = np.asarray(read_image(array))
    (tmp_path / "a.npy").write_bytes(encoded(array))
    (tmp_path / "a.jpg").write_bytes(encoded(array))
    with (tmp_path / "a.npy").open("rb") as file:
        for source in (tmp_path / "a.npy", tmp_path / "a.jpg", encoded(array), file):
            assert np.array_equal(np.asarray(read_image(source)), expected)
    Image.fromarray(some(3)).save(tmp_path / "b.png")
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.png").read_bytes())
    assert np.array_equal(np.asarray(read_image(tmp_path / "b.npy")), some(3))


HUGE = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 5), }"
BAD: dict[str, tuple[bytes, str]] = {
    "a header cut off": (encoded(some(5))[:40], "header is damaged"),
    "a header of garbage": (encoded(some(5))[:30] + b"((([" + encoded(some(5))[34:], "header is damaged"),
    "pixels cut off": (encoded(some(5))[:-1], "incomplete: 269 of 270 bytes"),
    "a size nobody has": (b"\x93NUMPY\x01\x00" + bytes([len(HUGE), 0]) + HUGE, "more than the"),
    "objects": (encoded(np.array([[{}]], dtype=object), allow_pickle=True), "not object"),
    "floats": (encoded(some(5) / 255), r"takes \(H, W, 5\) uint8, not float64; pass \(array \* 255\)"),
    "16 bit": (encoded(some(5).astype(np.uint16)), "array // 257"),
    "channels first": (encoded(some(5).transpose(2, 0, 1)), r"transpose\(1, 2, 0\)"),
    "other channels": (encoded(some(7)), r"not \(6, 9, 7\); an encoder of in_chans=7"),
    "a batch": (encoded(some(5)[None]), r"list\(array\)"),
    "nothing": (encoded(some(5)[:0]), "there is nothing to see"),
}


@pytest.mark.parametrize("what", BAD)
def test_damage_is_told(what: str, tmp_path: Path) -> None:
    content, says = BAD[what]
    (tmp_path / "bad.npy").write_bytes(content)
    with pytest.raises(ImageError, match=rf"bad\.npy: .*{says}"):
        read_layers(tmp_path / "bad.npy", 5)
    with pytest.raises(ImageError, match=r"bad\.npy: "):  # where pictures are wanted
        read_image(tmp_path / "bad.npy")


def test_what_is_no_array_has_no_layers(tmp_path: Path) -> None:
    Image.fromarray(some(3)).save(tmp_path / "photo.png")
    for source in (tmp_path / "photo.png", Image.fromarray(some(3))):
        with pytest.raises(ImageError, match=r"takes \(H, W, 5\) uint8 arrays, in memory or in \.npy files"):
            read_layers(source, 5)
