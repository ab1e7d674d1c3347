// Photos: those that ship with the page, and the reader's own, which are decoded here and go nowhere.

const MOST_BYTES = 64 * 2 ** 20, MOST_PIXELS = 120e6;
const ROWS = 256; // read from the canvas at a time: some browsers refuse large ones

export class PhotoError extends Error {}

// A row of photos to choose from, with room for the reader's own. `pick` hears {name, blob} of every choice, the blob
// as a promise; name is null for the reader's own.
export class PhotoStrip {
  #list; #pick;

  constructor(element, pick) {
    this.#list = element, this.#pick = pick;
    const input = element.querySelector("input[type=file]");
    input.addEventListener("change", () => { this.#own(input.files[0]); input.value = ""; });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => { event.preventDefault(); this.#own(event.dataTransfer.files[0]); });
    addEventListener("paste", (event) => this.#own(event.clipboardData.files[0]));
  }

  // Show the shipped ones; their names.
  async fill() {
    const photos = (await (await fetch("photos/ATTRIBUTION.json")).json()).sort((a, b) => (a.file < b.file ? -1 : 1));
    const upload = this.#list.querySelector(".upload");
    for (const photo of photos) upload.before(this.#button(photo));
    return photos.map(({ file }) => nameOf(file));
  }

  #button({ file, license, credit }) {
    const button = document.createElement("button"), image = new Image();
    Object.assign(button, { type: "button", title: `${spoken(file)}, ${credit}, ${license}` });
    Object.assign(image, { src: `photos/${file}`, alt: spoken(file), width: 96, height: 72 });
    button.dataset.name = nameOf(file);
    button.setAttribute("aria-pressed", "false");
    button.append(image);
    button.addEventListener("click", () => this.choose(nameOf(file)));
    return button;
  }

  choose(name) {
    return this.#pick({ name, blob: fetch(`photos/${name}.jpg`).then((answer) => answer.blob()) });
  }

  #own(file) {
    if (file) this.#pick({ name: null, blob: Promise.resolve(file) });
  }

  // Show which photo is looked at.
  mark({ name }) {
    for (const button of this.#list.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.name === name));
    this.#list.querySelector(".upload").classList.toggle("chosen", name === null);
  }
}

const nameOf = (file) => file.replace(/\.jpg$/, "");
const spoken = (file) => nameOf(file).replace(/_/g, " ");

// A blob as {height, width, data}: upright, RGB, transparency laid on white. Raises PhotoError.
export async function decoded(blob) {
  if (blob.size > MOST_BYTES) throw new PhotoError(`this file has ${Math.round(blob.size / 2 ** 20)} MB; 64 are read`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new PhotoError("this file is no picture that your browser can read; try a JPEG, PNG or WebP");
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new PhotoError(`this picture has ${width}×${height} pixels; at most 120 million are read`);
  const data = new Uint8Array(width * height * 3);
  const canvas = Object.assign(document.createElement("canvas"), { width, height: Math.min(ROWS, height) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += ROWS) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, ROWS);
    context.drawImage(bitmap, 0, -top);
    const rows = Math.min(ROWS, height - top), rgba = context.getImageData(0, 0, width, rows).data;
    for (let i = 0, to = top * width * 3; i < rows * width; i++) {
      data[to++] = rgba[i * 4];
      data[to++] = rgba[i * 4 + 1];
      data[to++] = rgba[i * 4 + 2];
    }
  }
  bitmap.close();
  return { height, width, data };
}
