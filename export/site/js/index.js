// The first page: the models of this site.

import { $, modelsOf, pageOf, say } from "./site.js";

const DOES = {
  reconstruct: "Hide part of a photo, and see what it imagines there.",
  attention: "See where it looks, head by head.",
};

try {
  $("#models").replaceChildren(...(await modelsOf()).map(card));
  say("");
} catch (error) {
  say(`models.json cannot be read (${error.message})`, { error: true });
}

function card(model) {
  const item = document.createElement("li"), link = document.createElement("a");
  Object.assign(link, { href: pageOf(model), textContent: model.name });
  const does = Object.assign(document.createElement("p"), { textContent: DOES[model.page] });
  const facts = Object.assign(document.createElement("p"), { className: "quiet" });
  facts.textContent = `${model.method} · licence ${model.licence} · ${(model.bytes / 1e6).toFixed(1)} MB`;
  item.append(link, does, facts);
  return item;
}
