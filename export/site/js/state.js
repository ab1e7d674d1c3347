// What is shown, in the address: whoever opens the link sees the same holes. A reader's own photo is not part of it.

export function readState() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

export function writeState(state) {
  const said = Object.entries(state).filter(([, value]) => value !== null && value !== undefined && value !== "");
  history.replaceState(null, "", `#${new URLSearchParams(said)}`);
}

// A mask as hexadecimal digits, four patches each, row-major.
export function maskToText(mask) {
  let text = "";
  for (let i = 0; i < mask.length; i += 4)
    text += [0, 1, 2, 3].reduce((digit, k) => digit * 2 + (mask[i + k] ? 1 : 0), 0).toString(16);
  return text;
}

// The mask of `count` patches; null for a text that is none.
export function maskFromText(text, count) {
  if (!/^[0-9a-f]+$/.test(text ?? "") || text.length !== Math.ceil(count / 4)) return null;
  return Uint8Array.from({ length: count }, (_, i) => (parseInt(text[i >> 2], 16) >> (3 - (i & 3))) & 1);
}

// A number of the address within bounds; `otherwise` for what is none.
export function numberIn(text, low, high, otherwise) {
  const value = Number(text);
  return text === undefined || text === "" || !(value >= low && value <= high) ? otherwise : value;
}
