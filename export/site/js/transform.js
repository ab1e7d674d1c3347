// From a photo to what the model takes, as zoo/transforms.py does it. A transform is that of models.json.

import { roundHalfEven } from "./masks.js";
import { crop, resize } from "./resize.js";

// The centre square of the model's size, in bytes.
export function cropped(picture, { size, crop_pct, interpolation }) {
  const side = Math.floor(size / crop_pct), { height, width } = picture;
  const [tall, wide] = width <= height
    ? [Math.trunc((side * height) / width), side]
    : [side, Math.trunc((side * width) / height)];
  const covered = resize(picture, tall, wide, interpolation);
  return crop(covered, roundHalfEven((tall - size) / 2), roundHalfEven((wide - size) / 2), size, size);
}

// Nothing cut: the short side becomes `short`, the long one the nearest multiple of the stride.
export function whole(picture, short, stride, { interpolation }) {
  const narrow = Math.min(picture.height, picture.width), reached = short * Math.max(picture.height, picture.width);
  const long = Math.floor((2 * reached + stride * narrow) / (2 * stride * narrow)) * stride;
  const [height, width] = picture.height >= picture.width ? [long, short] : [short, long];
  return resize(picture, height, width, interpolation);
}

// Bytes (H, W, 3) -> (3, H, W) float32, normalised.
export function normalised({ height, width, data }, { mean, std }) {
  const pixels = new Float32Array(3 * height * width), plane = height * width;
  for (let i = 0; i < plane; i++)
    for (let c = 0; c < 3; c++)
      pixels[c * plane + i] = Math.fround(Math.fround(Math.fround(data[i * 3 + c] / 255) - Math.fround(mean[c])) / Math.fround(std[c]));
  return pixels;
}
