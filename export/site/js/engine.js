// Asking the worker. Only the newest question waits: whoever drags a slider wants the last answer, not all of them.

export class Engine {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #asked = new Map();
  #next = 0;
  #busy = false;
  #waiting = null;

  constructor() {
    this.#worker.onmessage = ({ data: { id, progress, result, error } }) => {
      const asked = this.#asked.get(id);
      if (progress !== undefined) return asked.tell?.(progress);
      this.#asked.delete(id);
      if (error !== undefined) asked.reject(new Error(error));
      else asked.resolve(result);
    };
    this.#worker.onerror = (event) => {
      for (const asked of this.#asked.values()) asked.reject(new Error(event.message || "the model's thread cannot start"));
      this.#asked.clear();
    };
  }

  // Fetch the runtime and a model of models.json; `tell` hears the share that has come.
  open(model, tell) {
    return this.#ask({ task: "open", url: new URL(model.file, document.baseURI).href, bytes: model.bytes }, tell);
  }

  // {data, dims, milliseconds} of the graph's output; null where a newer question has taken this one's place.
  async run(feeds) {
    this.#waiting?.(false);
    this.#waiting = null;
    while (this.#busy) if (!(await new Promise((go) => (this.#waiting = go)))) return null;
    this.#busy = true;
    try {
      return await this.#ask({ task: "run", feeds });
    } finally {
      this.#busy = false;
      this.#waiting?.(true);
    }
  }

  #ask(message, tell) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject, tell });
      this.#worker.postMessage({ id, ...message });
    });
  }
}
