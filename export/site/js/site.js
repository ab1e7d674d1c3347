// What all pages share: the models, the facts of one, messages, and the way from page to page.

const PAGES = { reconstruct: "reconstruct.html", attention: "attention.html" };

export const $ = (selector) => document.querySelector(selector);

// The models of a page, or of all; links to pages that no model has are taken away.
export async function modelsOf(page = null) {
  const models = await (await fetch("models.json", { cache: "no-cache" })).json();
  for (const [name, file] of Object.entries(PAGES))
    if (!models.some((model) => model.page === name)) $(`nav a[href="${file}"]`)?.remove();
  return page ? models.filter((model) => model.page === page) : models;
}

export const pageOf = (model) => `${PAGES[model.page]}#model=${model.name}`;

// Fill the list of models and tell of every choice; hidden where there is only one.
export function chooser(select, models, chosen, choose) {
  select.replaceChildren(...models.map(({ name }) => new Option(name, name, false, name === chosen)));
  select.closest("label").hidden = models.length < 2;
  select.addEventListener("change", () => choose(models.find(({ name }) => name === select.value)));
}

// Name, licence and numbers of a model as a line of text and a link to its card.
export function tellModel(element, model) {
  const card = Object.assign(document.createElement("a"), { href: `models/${model.name}/README.md`, textContent: "its card" });
  const may = { yes: "commercial use allowed", no: "no commercial use", unclear: "read its licence before commercial use" };
  const millions = (model.parameters / 1e6).toFixed(1);
  element.replaceChildren(
    `${model.name}: ${model.method}, ${millions} million parameters, licence ${model.licence} (${may[model.commercial]}). `
    + `From PyTorch's numbers it differs by ${model.largest_difference.toExponential(0)} at most. More in `, card, ".");
}

// A message below the controls; an error stays until the next.
export function say(text, { error = false } = {}) {
  const line = $("#status");
  line.textContent = text;
  line.classList.toggle("error", error);
}

// Tell, by aria-busy too, whether the pictures are about to change.
export const busy = (is) => $("#pictures").setAttribute("aria-busy", String(is));

export function fail(error) {
  say(error.message, { error: true });
  busy(false);
}

// Show how much of the model has come.
export function showProgress(share) {
  const bar = $("#progress");
  bar.hidden = share >= 1;
  bar.value = share;
  if (share < 1) say(`fetching the model: ${Math.round(share * 100)} %`);
  else say("opening the model …");
}

export async function copyLink(button) {
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy the address bar"; // no permission, or no https
  }
  setTimeout(() => (button.textContent = "Copy link"), 2000);
}
