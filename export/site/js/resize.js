// Pillow's resizing, number for number: what the model was measured with. A picture is {height, width, data}, its data
// height*width*3 bytes. As Pillow does for 8 bits, weights are integers of 22 binary places and sums are exact.

const PLACES = 22;

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, at: (x) => cubic(Math.abs(x), -0.5) },
  lanczos: { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

// Keys' kernel.
function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

export function resize(picture, height, width, interpolation) {
  let resized = picture;
  if (width !== picture.width) resized = across(resized, width, FILTERS[interpolation]);
  if (height !== picture.height) resized = down(resized, height, FILTERS[interpolation]);
  return resized;
}

export function crop(picture, top, left, height, width) {
  const data = new Uint8Array(height * width * 3);
  for (let row = 0; row < height; row++) {
    const start = ((top + row) * picture.width + left) * 3;
    data.set(picture.data.subarray(start, start + width * 3), row * width * 3);
  }
  return { height, width, data };
}

function across(picture, width, filter) {
  const windows = weights(picture.width, width, filter);
  const data = new Uint8Array(picture.height * width * 3);
  for (let row = 0; row < picture.height; row++)
    for (let column = 0; column < width; column++) {
      const { start, shares } = windows[column];
      const from = (row * picture.width + start) * 3;
      gather(picture.data, from, 3, shares, data, (row * width + column) * 3);
    }
  return { height: picture.height, width, data };
}

function down(picture, height, filter) {
  const windows = weights(picture.height, height, filter), line = picture.width * 3;
  const data = new Uint8Array(height * line);
  for (let row = 0; row < height; row++) {
    const { start, shares } = windows[row];
    for (let column = 0; column < picture.width; column++)
      gather(picture.data, start * line + column * 3, line, shares, data, row * line + column * 3);
  }
  return { height, width: picture.width, data };
}

// One pixel: the weighted sum of those `step` bytes apart, rounded and clipped to a byte.
function gather(source, from, step, shares, target, to) {
  let red = 1 << (PLACES - 1), green = red, blue = red;
  for (let i = 0, at = from; i < shares.length; i++, at += step) {
    red += source[at] * shares[i];
    green += source[at + 1] * shares[i];
    blue += source[at + 2] * shares[i];
  }
  target[to] = byte(red >> PLACES);
  target[to + 1] = byte(green >> PLACES);
  target[to + 2] = byte(blue >> PLACES);
}

const byte = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

// Of every pixel of the new side: where its window starts, and the integer weights in it.
function weights(before, after, { support, at }) {
  const scale = before / after, stretch = Math.max(1, scale), reach = support * stretch;
  return Array.from({ length: after }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(before, Math.trunc(centre + reach + 0.5));
    const shares = Array.from({ length: end - start }, (_, i) => at((i + start - centre + 0.5) * (1 / stretch)));
    const total = shares.reduce((sum, share) => sum + share, 0);
    const whole = shares.map((share) => (total ? share / total : share) * (1 << PLACES));
    return { start, shares: Int32Array.from(whole, (share) => Math.trunc(share + (share < 0 ? -0.5 : 0.5))) };
  });
}
