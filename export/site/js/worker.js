// The model, on a thread of its own, so that the page answers while it computes.

import * as ort from "../ort/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
const WASM = { url: new URL("../ort/ort-wasm-simd-threaded.wasm", import.meta.url).href, bytes: 14239897 };
let session = null, newest = null, opening = Promise.resolve();

self.onmessage = async ({ data: { id, task, ...given } }) => {
  try {
    const [result, moved] = task === "open" ? [await open(given, id), []] : await run(given);
    self.postMessage({ id, result }, moved);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};

// The names of the model's inputs, or null where another was chosen before this one had come: the newest is what runs.
async function open({ url, bytes }, id) {
  newest = id;
  const total = WASM.bytes + bytes, come = [0, 0];
  const tell = (index) => (count) => {
    come[index] = count;
    self.postMessage({ id, progress: Math.min(1, (come[0] + come[1]) / total) });
  };
  const [wasm, graph] = await Promise.all([fetched(WASM.url, tell(0)), fetched(url, tell(1))]);
  ort.env.wasm.wasmBinary = wasm.buffer;
  const opened = opening.then(() => (id === newest ? replace(graph) : null)); // one after the other
  opening = opened.catch(() => {});
  return opened;
}

async function replace(graph) {
  await session?.release();
  session = null;
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  return session.inputNames;
}

async function fetched(url, tell) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${new URL(url).pathname} cannot be read (${answer.status})`);
  const parts = [], reader = answer.body.getReader();
  let count = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    tell((count += part.value.length));
  }
  const whole = new Uint8Array(count);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

async function run({ feeds }) {
  const tensors = Object.entries(feeds).map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]);
  const began = performance.now();
  const found = await session.run(Object.fromEntries(tensors));
  const [output] = Object.values(found);
  return [{ data: output.data, dims: output.dims, milliseconds: performance.now() - began }, [output.data.buffer]];
}
