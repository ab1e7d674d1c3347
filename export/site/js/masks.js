// Masks by seed, as zoo/masking.py and zoo/cells.py draw them: the same seed hides the same patches. A mask is a
// Uint8Array of h*w, row-major, 1 = hidden; a grid is [h, w].

const MOD = (value) => BigInt.asUintN(64, value);
const STREAM = 2n ** 32n; // draws that must not repeat each other start this far apart
const BLOCKS = 1n, SECONDARY = 2n, PROJECTION = 3n;

export const STRATEGIES = ["random", "uniform", "grid", "blockwise"];
export const DEFAULT_RATIO = { random: 0.75, grid: 0.75, uniform: 0.75, blockwise: 75 / 196 };

export class MaskError extends Error {}

// The draw of a seed at an index, both BigInt (SplitMix64: Steele, Lea and Flood 2014).
export function splitmix64(seed, index) {
  let z = MOD(MOD(seed) + (index + 1n) * 0x9e3779b97f4a7c15n);
  z = MOD((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = MOD((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}

// How many patches the strategy hides of a grid; ratio null: its own.
export function hiddenCount(strategy, [h, w], ratio = null) {
  const share = ratio ?? DEFAULT_RATIO[strategy];
  if (!(share >= 0 && share < 1)) throw new MaskError(`a ratio of ${share} is no share from 0 to below 1`);
  if (isCellwise(strategy) && (h % 2 || w % 2)) throw new MaskError(`${strategy} needs an even grid; this one is ${h}×${w}`);
  if (isCellwise(strategy) && share !== 0.75) throw new MaskError(`${strategy} hides 0.75, and nothing else`);
  const visible = strategy === "blockwise"
    ? h * w - roundHalfEven(h * w * share)
    : Math.floor(h * w * (1 - share) + 1e-9);
  if (visible === 0) throw new MaskError(`a ratio of ${share} leaves no visible patch on a ${h}×${w} grid`);
  return h * w - visible;
}

export const isCellwise = (strategy) => strategy === "uniform" || strategy === "grid";

export function drawMask(strategy, grid, seed, ratio = null) {
  const count = hiddenCount(strategy, grid, ratio);
  const drawn = { random: keepSmallest, uniform: onePatchOfEachCell, grid: oneCorner, blockwise: blocks };
  return drawn[strategy](grid, BigInt(seed), count);
}

function keepSmallest([h, w], seed, count) {
  const draws = Array.from({ length: h * w }, (_, index) => splitmix64(seed, BigInt(index)));
  const hidden = new Uint8Array(h * w).fill(1);
  for (const index of ascending(draws).slice(0, h * w - count)) hidden[index] = 0;
  return hidden;
}

// The indices of draws, the smallest first; equal ones in their order.
function ascending(draws) {
  return draws.map((_, index) => index).sort((a, b) => (draws[a] < draws[b] ? -1 : draws[a] > draws[b] ? 1 : a - b));
}

// The patches of every 2×2 cell, cells in row-major order.
export function cells([h, w]) {
  const found = [];
  for (let row = 0; row < h; row += 2)
    for (let column = 0; column < w; column += 2) {
      const first = row * w + column;
      found.push([first, first + 1, first + w, first + w + 1]);
    }
  return found;
}

function onePatchOfEachCell(grid, seed) {
  const hidden = new Uint8Array(grid[0] * grid[1]).fill(1);
  for (const members of cells(grid)) hidden[smallest(members, seed, 0n)] = 0;
  return hidden;
}

// The member with the smallest draw.
function smallest(members, seed, stream) {
  const draws = members.map((member) => splitmix64(seed, stream + BigInt(member)));
  return members[ascending(draws)[0]];
}

function oneCorner(grid, seed) {
  const corner = Number(splitmix64(seed, 0n) % 4n);
  const hidden = new Uint8Array(grid[0] * grid[1]).fill(1);
  for (const members of cells(grid)) hidden[members[corner]] = 0;
  return hidden;
}

// Rectangles of 16 patches or more until `count` are hidden, the rest along their border.
function blocks([h, w], seed, count) {
  const hidden = new Uint8Array(h * w);
  const draw = uniforms(seed);
  let misses = 0, rest;
  while (misses < 10 && (rest = count - sum(hidden)) > 0) {
    const area = Math.min(16, rest) + (rest - Math.min(16, rest)) * draw();
    const aspect = Math.exp(Math.log(0.3) * (1 - 2 * draw()));
    const rows = roundHalfEven(Math.sqrt(area * aspect)), columns = roundHalfEven(Math.sqrt(area / aspect));
    const top = Math.trunc(draw() * (h - rows + 1)), left = Math.trunc(draw() * (w - columns + 1));
    const block = rows > 0 && rows < h && columns > 0 && columns < w ? rectangle(w, top, left, rows, columns) : [];
    const added = block.filter((index) => !hidden[index]).length;
    if (added > 0 && added <= rest) {
      for (const index of block) hidden[index] = 1;
      misses = 0;
    } else misses += 1;
  }
  return fillBorder(hidden, [h, w], count, draw);
}

function rectangle(w, top, left, rows, columns) {
  return Array.from({ length: rows * columns }, (_, i) => (top + Math.floor(i / columns)) * w + left + (i % columns));
}

// A function whose results in [0, 1) are the top 53 bits of the block stream's draws.
function uniforms(seed) {
  let index = BLOCKS * STREAM;
  return () => Number(splitmix64(seed, index++) >> 11n) / 2 ** 53;
}

function fillBorder(hidden, [h, w], count, draw) {
  while (sum(hidden) < count) {
    let candidates = [];
    for (let index = 0; index < h * w; index++) if (!hidden[index] && isBesideHidden(hidden, [h, w], index)) candidates.push(index);
    if (!candidates.length) candidates = [...hidden.keys()].filter((index) => !hidden[index]);
    hidden[candidates[Math.trunc(draw() * candidates.length)]] = 1;
  }
  return hidden;
}

function isBesideHidden(hidden, [h, w], index) {
  const row = Math.floor(index / w), column = index % w;
  return (row > 0 && hidden[index - w]) || (row < h - 1 && hidden[index + w])
    || (column > 0 && hidden[index - 1]) || (column < w - 1 && hidden[index + 1]);
}

// Of the visible patches, those to be masked too: int(V * (1 - share)) stay (§3.2 of 2205.10063).
export function drawSecondary(hidden, seed, share) {
  const visible = [...hidden.keys()].filter((index) => !hidden[index]);
  const draws = visible.map((index) => splitmix64(BigInt(seed), SECONDARY * STREAM + BigInt(index)));
  const chosen = new Uint8Array(hidden.length);
  for (const i of ascending(draws).slice(Math.floor(visible.length * (1 - share) + 1e-9))) chosen[visible[i]] = 1;
  return chosen;
}

// A mask with one patch of every cell to be looked at: {hidden, blind}. Of a cell that hides all four, one is blind: it
// stays hidden and the secondary mask token stands in its place.
export function onePerCell(hidden, grid, seed) {
  const kept = new Uint8Array(hidden.length).fill(1), blind = new Uint8Array(hidden.length);
  for (const members of cells(grid)) {
    const visible = members.filter((member) => !hidden[member]);
    const one = smallest(visible.length ? visible : members, BigInt(seed), PROJECTION * STREAM);
    if (visible.length) kept[one] = 0;
    else blind[one] = 1;
  }
  return { hidden: kept, blind };
}

export const sum = (mask) => mask.reduce((total, each) => total + each, 0);

// Python's round: halves go to the even neighbour.
export function roundHalfEven(value) {
  const floor = Math.floor(value), rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
