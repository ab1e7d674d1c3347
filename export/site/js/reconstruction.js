// A model's prediction as pictures and an error, as zoo/reconstruction.py makes them. Pictures are Float32Arrays of
// size*size*3 in [0, 1], pixel by pixel; a patch's values are its rows of pixels, (row, column, channel).

import { drawSecondary, onePerCell } from "./masks.js";

const GREY = 0.5, PALE = 0.85;

// The mask a model will really see: {hidden, secondary}. A graph that takes `kept` is a pyramid's.
export function settle(model, asked, grid, secondary, seed) {
  const projected = model.inputs.includes("kept") ? onePerCell(asked, grid, seed) : { hidden: asked, blind: null };
  const { hidden, blind } = projected;
  const drawn = secondary ? drawSecondary(hidden, seed, secondary) : null;
  const both = new Uint8Array(hidden.length).map((_, i) => (drawn?.[i] || blind?.[i] ? 1 : 0));
  return { hidden, secondary: both.some(Boolean) ? both : null };
}

// The graph's inputs but `pixels`, as zoo/export/masked.py describes them.
export function maskInputs(model, { hidden, secondary }, [h, w]) {
  const feeds = {}, places = seenPlaces(model, hidden, secondary, [h, w]);
  const index = BigInt64Array.from(places, BigInt);
  for (const name of ["visible", "kept"])
    if (model.inputs.includes(name)) feeds[name] = { type: "int64", data: index, dims: [1, index.length] };
  if (model.inputs.includes("hidden")) feeds.hidden = { type: "bool", data: Uint8Array.from(hidden), dims: [1, h, w] };
  if (model.inputs.includes("blind"))
    feeds.blind = { type: "bool", data: Uint8Array.from(places, (i) => secondary?.[i] ?? 0), dims: [1, places.length] };
  return feeds;
}

// The patches the encoder looks at: the visible ones in order; of a pyramid, one a cell in the cells' order.
function seenPlaces(model, hidden, secondary, [h, w]) {
  const seen = [...hidden.keys()].filter((i) => !hidden[i] || (model.inputs.includes("kept") && secondary?.[i]));
  if (!model.inputs.includes("kept")) return seen;
  const cell = (i) => Math.floor(i / w / 2) * (w / 2) + Math.floor((i % w) / 2);
  return seen.sort((a, b) => cell(a) - cell(b));
}

// levels: the photo's bytes (size, size, 3). predicted: (N, P*P*3) as the graph gave it.
export function reconstruction(model, levels, predicted, { hidden, secondary }, [h, w]) {
  const size = levels.width, patch = size / w, count = patch * patch * 3;
  const { mean, std } = model.transform;
  const image = Float32Array.from(levels.data, (level) => level / 255);
  const picture = new Float32Array(image.length), masked = Float32Array.from(image), composite = Float32Array.from(image);
  let error = 0, holes = 0;
  for (let n = 0; n < h * w; n++) {
    const places = pixelsOf(n, w, patch, size);
    const scale = model.decoder.normalised_targets ? statistics(image, places, mean, std) : { mean: 0, deviation: 1 };
    let off = 0;
    for (let k = 0; k < count; k++) {
      const channel = k % 3, at = places[k];
      const value = (predicted[n * count + k] * scale.deviation + scale.mean) * std[channel] + mean[channel];
      picture[at] = Math.min(1, Math.max(0, value));
      off += (picture[at] - image[at]) ** 2;
      if (hidden[n]) composite[at] = picture[at];
      if (hidden[n] || secondary?.[n]) masked[at] = hidden[n] ? GREY : PALE;
    }
    if (hidden[n]) { error += off / count; holes += 1; }
  }
  return { image, masked, predicted: picture, composite, error: holes ? error / holes : 0, size };
}

// Where the values of patch n lie in a picture.
function pixelsOf(n, w, patch, size) {
  const top = Math.floor(n / w) * patch, left = (n % w) * patch;
  return Array.from({ length: patch * patch * 3 }, (_, k) => {
    const pixel = Math.floor(k / 3);
    return ((top + Math.floor(pixel / patch)) * size + left + (pixel % patch)) * 3 + (k % 3);
  });
}

// Mean and deviation of a patch's normalised pixels, by which MAE normalises its targets (zoo/patches.py).
function statistics(image, places, mean, std) {
  const values = places.map((at, k) => (image[at] - mean[k % 3]) / std[k % 3]);
  const average = values.reduce((total, each) => total + each, 0) / values.length;
  const variance = values.reduce((total, each) => total + (each - average) ** 2, 0) / (values.length - 1);
  return { mean: average, deviation: Math.sqrt(variance + 1e-6) };
}
