// The page that hides part of a photo and shows what the model imagines there.

import { drawPicture } from "./draw.js";
import { Engine } from "./engine.js";
import { MaskEditor } from "./mask_editor.js";
import { DEFAULT_RATIO, STRATEGIES, drawMask, isCellwise, sum } from "./masks.js";
import { PhotoStrip, decoded } from "./photos.js";
import { maskInputs, reconstruction, settle } from "./reconstruction.js";
import { $, busy, chooser, copyLink, fail, modelsOf, say, showProgress, tellModel } from "./site.js";
import { maskFromText, maskToText, numberIn, readState, writeState } from "./state.js";
import { cropped, normalised } from "./transform.js";

const TILES = ["image", "masked", "predicted", "composite"];

// What is shown now; `result` is the last reconstruction with its masks.
export const shown = { model: null, photo: null, picture: null, levels: null, strategy: "random", ratio: null, secondary: 0, seed: 0, painted: null, result: null };

const engine = new Engine();
const strip = new PhotoStrip($("#photos"), pick);
const editor = new MaskEditor($("#editor"), (mask) => { shown.painted = mask; refresh(); }, (text) => ($("#patch").textContent = text));

const grid = () => Array(2).fill(shown.model.transform.size / shown.model.decoder.mask_patch);
const count = () => grid()[0] * grid()[1];
const needsCells = () => shown.model.inputs.includes("kept");

let wanted = null; // the photo chosen last, which may still be read
let turns = 0; // how often something was asked for: an answer that comes late is for nobody

start().catch(fail);

async function start() {
  const models = await modelsOf("reconstruct"), asked = readState();
  if (!models.length) throw new Error("this site holds no masked-image model; zoo export adds one");
  const model = models.find(({ name }) => name === asked.model) ?? models[0];
  chooser($("#model"), models, model.name, (other) => use(other, {}).catch((error) => shown.model === other && fail(error)));
  const names = await strip.fill();
  const opened = use(model, asked, names.includes(asked.photo) ? asked.photo : "cat_chelsea");
  listen(); // from now on there is a model to ask
  await opened;
  addEventListener("hashchange", () => location.reload());
}

// Open a model, with what the address asks of it, and a photo where none is shown yet.
async function use(model, asked, name = null) {
  busy(true);
  shown.levels = null;
  shown.model = model;
  tellModel($("#facts"), model);
  read(asked);
  await Promise.all([engine.open(model, showProgress), name ? strip.choose(name) : null]);
  if (shown.model !== model) return; // another was chosen meanwhile
  if (shown.picture) shown.levels = cropped(shown.picture, model.transform);
  await refresh();
}

// The state of the address, each part checked: a link may be old or mistyped.
function read(asked) {
  const { strategy, ratio, secondary } = shown.model.decoder;
  shown.strategy = strategies().includes(asked.strategy) ? asked.strategy : strategy;
  shown.ratio = numberIn(asked.ratio, 0, most(), shown.strategy === strategy ? ratio : DEFAULT_RATIO[shown.strategy]);
  shown.secondary = secondary === null ? 0 : numberIn(asked.secondary, 0, 0.95, 0);
  shown.seed = Math.round(numberIn(asked.seed, 0, 2 ** 53 - 1, 0));
  shown.painted = maskFromText(asked.mask, count());
}

// Strategies whose masks the model can take and its grid allows.
function strategies() {
  const even = grid()[0] % 2 === 0;
  return STRATEGIES.filter((name) => (isCellwise(name) ? even : !needsCells()));
}

// The largest ratio in steps of 5 % that leaves a patch visible.
const most = () => Math.floor((1 - 1 / count()) * 20 + 1e-9) / 20;

async function pick(photo) {
  wanted = photo;
  busy(true);
  try {
    const picture = await decoded(await photo.blob);
    if (wanted !== photo) return;
    Object.assign(shown, { photo, picture });
    strip.mark(photo);
    if (!shown.levels) return; // the model is still on its way
    shown.levels = cropped(picture, shown.model.transform);
    await refresh();
  } catch (error) {
    fail(error);
  }
}

function listen() {
  const set = (selector, event, change) => $(selector).addEventListener(event, ({ target }) => { change(target.value); refresh(); });
  set("#ratio", "input", (value) => { shown.ratio = Number(value); shown.painted = null; });
  set("#secondary", "input", (value) => (shown.secondary = Number(value)));
  set("#seed", "input", (value) => { shown.seed = Math.round(numberIn(value, 0, 2 ** 53 - 1, 0)); shown.painted = null; });
  set("#strategy", "change", (value) => {
    const { strategy, ratio } = shown.model.decoder;
    Object.assign(shown, { strategy: value, painted: null, ratio: value === strategy ? ratio : DEFAULT_RATIO[value] });
  });
  $("#another").addEventListener("click", () => { Object.assign(shown, { seed: shown.seed + 1, painted: null }); refresh(); });
  $("#clear").addEventListener("click", () => { shown.painted = new Uint8Array(count()); refresh(); });
  $("#invert").addEventListener("click", () => { shown.painted = asked().map((each) => 1 - each); refresh(); });
  $("#copy").addEventListener("click", ({ target }) => copyLink(target));
}

const asked = () => shown.painted ?? drawMask(shown.strategy, grid(), shown.seed, shown.ratio);

// Hide, predict and draw; the newest state wins.
async function refresh() {
  const turn = ++turns;
  showControls();
  if (!shown.levels) return;
  busy(true);
  const { model, levels, photo, painted } = shown, size = model.transform.size;
  try {
    const masks = settle(model, asked(), grid(), shown.secondary, shown.seed);
    check(masks);
    editor.show(painted ?? masks.hidden, grid());
    const pixels = { type: "float32", data: normalised(levels, model.transform), dims: [1, 3, size, size] };
    const found = await engine.run({ pixels, ...maskInputs(model, masks, grid()) });
    if (turn !== turns) return;
    const result = reconstruction(model, levels, found.data, masks, grid());
    for (const tile of TILES) drawPicture($(`#${tile}`), result[tile], size);
    shown.result = { ...result, ...masks, painted, photo: photo.name, milliseconds: found.milliseconds };
    tellResult(shown.result);
    busy(false);
  } catch (error) {
    if (turn === turns) fail(error);
  }
}

function check({ hidden, secondary }) {
  const seen = hidden.some((each, i) => !each && !secondary?.[i]);
  if (!seen) throw new Error("this mask hides every patch and leaves the model nothing to look at; show at least one");
  if (secondary && !shown.model.inputs.includes("blind"))
    throw new Error("this mask hides all four patches of some 2×2 cells, and this model has no token to put there; show one in each");
}

function showControls() {
  const { model, painted, strategy, ratio, seed } = shown;
  $("#strategy").replaceChildren(...strategies().map((name) => new Option(name, name, false, name === strategy)));
  Object.assign($("#ratio"), { max: most(), value: ratio, disabled: isCellwise(strategy) });
  $("#ratio-said").textContent = `${Math.round(ratio * 100)} %`;
  $("#secondary").closest("label").hidden = model.decoder.secondary === null;
  $("#secondary").value = shown.secondary;
  $("#secondary-said").textContent = `${Math.round(shown.secondary * 100)} %`;
  if ($("#seed").value !== String(seed) && document.activeElement !== $("#seed")) $("#seed").value = seed;
  $("#borrowed").hidden = !model.decoder.normalised_targets;
  const drawn = painted ? { mask: maskToText(painted) } : { strategy, ratio: +ratio.toFixed(6) };
  writeState({ model: model.name, photo: shown.photo?.name, ...drawn, seed, secondary: shown.secondary || null });
  const command = `zoo reconstruct ${model.name} ${shown.photo?.name ?? "photo"}.jpg --strategy ${strategy} --ratio ${+ratio.toFixed(6)}`;
  $("#command").textContent = `${command}${shown.secondary ? ` --secondary ${shown.secondary}` : ""} --seed ${seed} --out out.png`;
  $("#same").hidden = painted !== null;
}

function tellResult({ hidden, secondary, error, milliseconds, painted }) {
  const holes = sum(hidden), blind = secondary ? hidden.filter((each, i) => !each && secondary[i]).length : 0;
  say(`${Math.round((100 * holes) / hidden.length)} % hidden (${holes} of ${hidden.length} patches)`
    + (blind ? `, ${blind} of the visible masked too` : "")
    + ` · error on hidden pixels ${error.toFixed(4)} · ${Math.round(milliseconds)} ms`);
  const changed = painted ? hidden.filter((each, i) => each !== painted[i]).length : 0;
  $("#projected").hidden = changed === 0;
  $("#projected").textContent = `This model looks at exactly one patch of every 2×2 cell: ${changed} of the painted patches were changed to fit, by the seed.`;
}
