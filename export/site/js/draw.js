// Numbers onto canvases.

import { heat, stretched } from "./heads.js";

const PAPER = 255;

// A picture of size*size*3 in [0, 1].
export function drawPicture(canvas, picture, size) {
  draw(canvas, size, size, (at) => [0, 1, 2].map((c) => Math.round(picture[at * 3 + c] * 255)));
}

// The photo itself, {height, width, data}.
export function drawPhoto(canvas, { height, width, data }) {
  draw(canvas, height, width, (at) => [data[at * 3], data[at * 3 + 1], data[at * 3 + 2]]);
}

// A map of h*w patches as heat over a grey photo, on the map's own scale.
export function drawHeat(canvas, photo, map, w, patch) {
  const colours = Array.from(stretched(Float64Array.from(map)), heat);
  draw(canvas, photo.height, photo.width, (at) => {
    const light = grey(photo.data, at), colour = colours[patchAt(at, photo.width, w, patch)];
    return colour.map((level) => Math.round(light + 0.78 * (level - light)));
  });
}

// The photo where the mask is 1, a pale ghost of it elsewhere.
export function drawSpotlight(canvas, photo, mask, w, patch) {
  draw(canvas, photo.height, photo.width, (at) => {
    if (mask[patchAt(at, photo.width, w, patch)]) return [0, 1, 2].map((c) => photo.data[at * 3 + c]);
    const ghost = Math.round(grey(photo.data, at) + 0.8 * (PAPER - grey(photo.data, at)));
    return [ghost, ghost, ghost];
  });
}

const patchAt = (at, width, w, patch) => Math.floor(Math.floor(at / width) / patch) * w + Math.floor((at % width) / patch);

// Luma of ITU-R 601, as Pillow's mode L.
const grey = (data, at) => 0.299 * data[at * 3] + 0.587 * data[at * 3 + 1] + 0.114 * data[at * 3 + 2];

function draw(canvas, height, width, colour) {
  Object.assign(canvas, { height, width });
  const pixels = new ImageData(width, height);
  for (let at = 0; at < height * width; at++) pixels.data.set([...colour(at), 255], at * 4);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
