// Attention maps as pictures, as zoo/pictures.py and zoo/attention_maps.py make them. A map is an array of h*w.

// Nine even stops of matplotlib's inferno (CC0).
const HEAT = [[0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9], [249, 203, 53], [252, 255, 164]];

export function meanOf(maps) {
  return maps[0].map((_, i) => maps.reduce((total, map) => total + map[i], 0) / maps.length);
}

// The strongest patches that together hold `share` of the map's mass: 1 for each of them.
export function topMass(map, share) {
  const order = Array.from(map.keys()).sort((a, b) => map[b] - map[a] || a - b);
  const wanted = share * order.reduce((total, i) => total + map[i], 0);
  const kept = new Uint8Array(map.length);
  let held = 0;
  for (const i of order) {
    if (held < wanted) kept[i] = 1;
    held += map[i];
  }
  return kept;
}

// From its minimum to its 99.5th percentile as 0 to 1: one outlier patch must not darken the rest.
export function stretched(map) {
  const sorted = Float64Array.from(map).sort(), at = 0.995 * (sorted.length - 1), under = Math.floor(at);
  const high = sorted[under] + (at - under) * (sorted[Math.min(under + 1, sorted.length - 1)] - sorted[under]);
  return map.map((value) => Math.min(1, Math.max(0, (value - sorted[0]) / Math.max(high - sorted[0], 1e-12))));
}

// The colour of a value in [0, 1]: [red, green, blue] in bytes.
export function heat(value) {
  const place = value * (HEAT.length - 1), under = Math.min(HEAT.length - 2, Math.floor(place));
  return HEAT[under].map((low, c) => Math.round(low + (place - under) * (HEAT[under + 1][c] - low)));
}
