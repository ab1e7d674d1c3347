// The page of attention: where the class token looks, head by head.

import { drawHeat, drawPhoto, drawSpotlight } from "./draw.js";
import { Engine } from "./engine.js";
import { meanOf, topMass } from "./heads.js";
import { PhotoStrip, decoded } from "./photos.js";
import { $, busy, chooser, copyLink, fail, modelsOf, say, showProgress, tellModel } from "./site.js";
import { numberIn, readState, writeState } from "./state.js";
import { cropped, normalised, whole } from "./transform.js";

// What is shown now; `maps` holds one array of h*w for each head.
export const shown = { model: null, photo: null, picture: null, levels: null, short: 28, share: 0.6, maps: null, grid: null };

const COARSE = 14;
const MOST = 3000; // patches: attention grows with their square, and a long panorama would take all memory

const engine = new Engine();
const strip = new PhotoStrip($("#photos"), pick);

let ready = false; // whether the model has been opened
let wanted = null; // the photo chosen last, which may still be read
let turns = 0; // how often something was asked for: an answer that comes late is for nobody

start().catch(fail);

async function start() {
  const models = await modelsOf("attention"), asked = readState();
  if (!models.length) throw new Error("this site holds no model with attention to show; zoo export adds one");
  const model = models.find(({ name }) => name === asked.model) ?? models[0];
  chooser($("#model"), models, model.name, (other) => use(other).catch((error) => shown.model === other && fail(error)));
  shown.short = 2 * Math.round(numberIn(asked.short, 8, 40, model.fine ?? 28) / 2);
  shown.share = numberIn(asked.share, 0, 1, 0.6);
  const names = await strip.fill();
  const opened = use(model, names.includes(asked.photo) ? asked.photo : "cat_chelsea");
  listen(); // from now on there is a model to ask
  await opened;
  addEventListener("hashchange", () => location.reload());
}

async function use(model, name = null) {
  busy(true);
  shown.model = model;
  shown.maps = null;
  ready = false;
  tellModel($("#facts"), model);
  await Promise.all([engine.open(model, showProgress), name ? strip.choose(name) : null]);
  if (shown.model !== model) return; // another was chosen meanwhile
  ready = true;
  if (model.fine && shown.short > COARSE) await look(COARSE); // something to see at once
  await look();
}

async function pick(photo) {
  wanted = photo;
  busy(true);
  try {
    const picture = await decoded(await photo.blob);
    if (wanted !== photo) return;
    Object.assign(shown, { photo, picture });
    strip.mark(photo);
    if (shown.maps) await look();
  } catch (error) {
    fail(error);
  }
}

function listen() {
  $("#short").addEventListener("input", ({ target }) => { shown.short = Number(target.value); look(); });
  $("#share").addEventListener("input", ({ target }) => { shown.share = Number(target.value); showControls(); drawShare(); });
  $("#copy").addEventListener("click", ({ target }) => copyLink(target));
}

// Ask the model and draw every head, on so many patches of the short side.
async function look(short = shown.short) {
  const turn = ++turns;
  showControls();
  const { model, picture } = shown;
  if (!ready || !picture) return;
  try {
    const levels = model.fine ? uncut(picture, short) : cropped(picture, model.transform);
    busy(true);
    say("looking …");
    const pixels = { type: "float32", data: normalised(levels, model.transform), dims: [1, 3, levels.height, levels.width] };
    const found = await engine.run({ pixels });
    if (turn !== turns) return;
    const [, heads, h, w] = found.dims;
    const maps = Array.from({ length: heads }, (_, i) => found.data.slice(i * h * w, (i + 1) * h * w));
    Object.assign(shown, { levels, maps, grid: [h, w] });
    drawAll();
    say(`${heads} heads on ${h}×${w} patches · ${Math.round(found.milliseconds)} ms`);
    busy(false);
  } catch (error) {
    if (turn === turns) fail(error);
  }
}

// The photo with so many rows of patches on its short side, fewer where it is long.
function uncut(picture, short) {
  const { stride, transform } = shown.model;
  const aspect = Math.max(picture.height, picture.width) / Math.min(picture.height, picture.width);
  const rows = Math.max(1, Math.min(short, Math.floor(Math.sqrt(MOST / aspect))));
  return whole(picture, rows * stride, stride, transform);
}

function showControls() {
  $("#short").closest("label").hidden = !shown.model.fine; // its graph is of one size
  $("#short").value = shown.short;
  $("#short-said").textContent = shown.short;
  $("#share").value = shown.share;
  $("#share-said").textContent = `${Math.round(shown.share * 100)} %`;
  writeState({ model: shown.model.name, photo: shown.photo?.name, short: shown.short, share: shown.share });
}

function drawAll() {
  const { levels, maps, grid: [, w], model } = shown, rest = $("#heads");
  drawPhoto($("#image"), levels);
  rest.replaceChildren(...maps.map((_, i) => tile(`head ${i}`)));
  const canvases = rest.querySelectorAll("canvas");
  maps.forEach((map, i) => drawHeat(canvases[i], levels, map, w, model.stride));
  drawHeat($("#mean"), levels, meanOf(maps), w, model.stride);
  drawShare();
}

function drawShare() {
  const { levels, maps, grid, share, model } = shown;
  if (maps) drawSpotlight($("#spotlight"), levels, topMass(meanOf(maps), share), grid[1], model.stride);
  $("#spotlight-said").textContent = `top ${Math.round(share * 100)} % of the mean`;
}

function tile(text) {
  const figure = document.createElement("figure"), canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Attention of ${text} as heat over the photo`);
  figure.append(canvas, Object.assign(document.createElement("figcaption"), { textContent: text }));
  return figure;
}
