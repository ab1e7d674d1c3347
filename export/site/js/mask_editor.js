// A canvas over a picture on which patches are hidden and shown: by pointer, or by the arrow keys and the space bar.

export class MaskEditor {
  #canvas; #change; #say;
  #grid = [1, 1];
  #mask = new Uint8Array(1);
  #at = 0; // the patch that the keys have reached
  #painting = null; // what a stroke paints: 1 hides, 0 shows

  // change hears every mask painted; say hears what a screen reader should.
  constructor(canvas, change, say) {
    this.#canvas = canvas, this.#change = change, this.#say = say;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#paint(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.#painting = null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const moved of ["focus", "blur"]) canvas.addEventListener(moved, () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(mask, grid) {
    this.#mask = Uint8Array.from(mask), this.#grid = grid;
    this.#at = Math.min(this.#at, mask.length - 1);
    this.draw();
  }

  #begin(event) {
    const patch = this.#patchOf(event);
    if (event.button !== 0 || patch === null) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#painting = this.#mask[patch] ? 0 : 1;
    this.#set(patch, this.#painting);
  }

  #paint(event) {
    const patch = this.#painting === null ? null : this.#patchOf(event);
    if (patch !== null) this.#set(patch, this.#painting);
  }

  #patchOf(event) {
    const box = this.#canvas.getBoundingClientRect(), [h, w] = this.#grid;
    const row = Math.floor(((event.clientY - box.top) / box.height) * h);
    const column = Math.floor(((event.clientX - box.left) / box.width) * w);
    return row >= 0 && row < h && column >= 0 && column < w ? row * w + column : null;
  }

  #set(patch, value) {
    this.#at = patch;
    if (this.#mask[patch] !== value) {
      this.#mask[patch] = value;
      this.#change(Uint8Array.from(this.#mask));
    }
    this.draw();
  }

  #key(event) {
    const [h, w] = this.#grid, row = Math.floor(this.#at / w), column = this.#at % w;
    const moves = {
      ArrowUp: [Math.max(0, row - 1), column], ArrowDown: [Math.min(h - 1, row + 1), column],
      ArrowLeft: [row, Math.max(0, column - 1)], ArrowRight: [row, Math.min(w - 1, column + 1)],
    };
    if (event.key in moves) this.#at = moves[event.key][0] * w + moves[event.key][1];
    else if (event.key === " " || event.key === "Enter") this.#set(this.#at, this.#mask[this.#at] ? 0 : 1);
    else return;
    event.preventDefault();
    const [line, place] = [Math.floor(this.#at / w) + 1, (this.#at % w) + 1];
    this.#say(`row ${line}, column ${place}: ${this.#mask[this.#at] ? "hidden" : "visible"}`);
    this.draw();
  }

  // Lines between the patches, and a frame around the one the keys have reached.
  draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas, scale = devicePixelRatio || 1, [h, w] = this.#grid;
    Object.assign(this.#canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    context.strokeStyle = "rgb(255 255 255 / 0.28)";
    context.lineWidth = 1;
    context.beginPath();
    for (let i = 1; i < w; i++) context.moveTo((i * width) / w, 0), context.lineTo((i * width) / w, height);
    for (let i = 1; i < h; i++) context.moveTo(0, (i * height) / h), context.lineTo(width, (i * height) / h);
    context.stroke();
    if (document.activeElement !== this.#canvas || !this.#canvas.matches(":focus-visible")) return;
    const box = [((this.#at % w) * width) / w, (Math.floor(this.#at / w) * height) / h, width / w, height / h];
    for (const [colour, thick] of [["black", 4], ["white", 2]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: thick });
      context.strokeRect(...box);
    }
  }
}
