/** The student in the browser: its towers in ONNX Runtime's WebAssembly, on one thread, which needs no special headers. */

import { Fault, centralSquare, toInput } from "./picture.js";
import { Tokenizer } from "./tokenizer.js";

const RUNTIME = new URL("../vendor/onnxruntime/", import.meta.url);
const MOST_TEXTS = 500; // whose features are kept

/**
 * @typedef {object} Gallery
 * @property {string[]} captions
 * @property {number} columns of the sheet of thumbnails
 * @property {number} rows
 */

/** Two towers, their tokenizer, and the features of the gallery. */
export class Model {
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** @type {Map<string, Float32Array>} */
  #texts = new Map();

  constructor(ort, config, sessions, tokenizer, features) {
    this.ort = ort;
    this.config = config;
    this.sessions = sessions;
    this.tokenizer = tokenizer;
    this.features = features;
  }

  /**
   * The features of a picture.
   * @param {import("./picture.js").Pixels} picture
   * @returns {Promise<Float32Array>} of length 1
   */
  async encodePicture(picture) {
    const { size, interpolation, mean, std } = this.config;
    const input = toInput(centralSquare(picture, size, interpolation), mean, std);
    return this.#run("image", new this.ort.Tensor("float32", input, [1, 3, size, size]));
  }

  /**
   * The features of texts; those of a text that was asked for lately are kept.
   * @param {string[]} texts
   * @returns {Promise<Float32Array[]>}
   */
  async encodeTexts(texts) {
    const found = new Map(texts.map((text) => [text, this.#texts.get(text)]));
    const asked = [...found.keys()].filter((text) => !found.get(text));
    if (asked.length) {
      const length = this.tokenizer.contextLength;
      const tokens = BigInt64Array.from(asked.flatMap((text) => this.tokenizer.encode(text)), BigInt);
      const all = await this.#run("text", new this.ort.Tensor("int64", tokens, [asked.length, length]));
      const { dim } = this.config;
      asked.forEach((text, i) => found.set(text, all.slice(i * dim, (i + 1) * dim)));
    }
    for (const [text, features] of found) this.#texts.delete(text), this.#texts.set(text, features);
    for (const text of this.#texts.keys()) if (this.#texts.size > MOST_TEXTS) this.#texts.delete(text);
    return texts.map((text) => found.get(text));
  }

  /**
   * How probable each text is for a picture, if one of them is right.
   * @param {Float32Array} picture features
   * @param {Float32Array[]} texts features
   * @returns {number[]}
   */
  probabilities(picture, texts) {
    const logits = texts.map((text) => this.config.scale * dot(picture, text, 0));
    const most = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp(logit - most));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights.map((weight) => weight / total);
  }

  /**
   * The gallery's pictures by their cosine to a query, the nearest first.
   * @param {Float32Array} query features
   * @param {number} count
   * @returns {{ index: number, cosine: number }[]}
   */
  nearest(query, count) {
    const number = this.config.gallery.captions.length;
    const all = Array.from({ length: number }, (_, index) => ({ index, cosine: dot(query, this.features, index) }));
    return all.sort((a, b) => b.cosine - a.cosine).slice(0, count);
  }

  /** A session runs one input at a time. */
  #run(tower, tensor) {
    const session = this.sessions[tower];
    const run = this.#last.then(async () => {
      const results = await session.run({ [session.inputNames[0]]: tensor });
      return results[session.outputNames[0]].data;
    });
    this.#last = run.catch(() => undefined);
    return run;
  }
}

/**
 * Fetch and start everything.
 * @param {URL} files the folder that `book/_tools/try_it.py` made
 * @param {(message: string) => void} told hears what is done, for the reader
 * @returns {Promise<Model>}
 */
export async function load(files, told) {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
    throw new Fault("Your browser is too old for this page, or forbids WebAssembly. Any browser of 2023 or later will do.");
  }
  const config = JSON.parse(await text(new URL("model.json", files), "no-cache"));
  const made = (name) => new URL(`${name}?${config.version.slice(0, 12)}`, files);
  const size = { total: 0, whole: 0 };
  let waiting = true;
  const arrived = (bytes, whole) => {
    if (!waiting) return;
    size.total += bytes;
    size.whole += whole;
    told(`Loading the model: ${(size.total / 1e6).toFixed(1)} of ${(size.whole / 1e6).toFixed(1)} MB …`);
  };
  const names = ["image.onnx.gz", "text.onnx.gz", "merges.bin.gz", "gallery.bin"];
  const [ort, runtime, tables, image, words, merges, features] = await Promise.all([
    import(new URL("ort.wasm.bundle.min.js", RUNTIME).href),
    bytes(new URL("ort-wasm-simd-threaded.wasm.gz", RUNTIME), arrived),
    text(made("tokenizer.json")),
    ...names.map((name) => bytes(made(name), arrived)),
  ]).finally(() => (waiting = false));
  told("Starting the model …");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = runtime;
  ort.env.logLevel = "error";
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  const sessions = {
    image: await ort.InferenceSession.create(new Uint8Array(image), options),
    text: await ort.InferenceSession.create(new Uint8Array(words), options),
  };
  const tokenizer = new Tokenizer(JSON.parse(tables), new Uint16Array(merges));
  const model = new Model(ort, config, sessions, tokenizer, fromHalf(new Uint16Array(features)));
  await model.encodePicture({ width: 1, height: 1, data: new Uint8ClampedArray(4) }); // the first run of each is slower
  await model.encodeTexts([""]);
  return model;
}

async function answer(address, cache) {
  let response;
  try {
    response = await fetch(address, { cache });
  } catch {
    throw new Fault("A file of the page could not be fetched. Is the book's server still there? (Opened as a file, without a server, a browser fetches nothing.)");
  }
  if (!response.ok) throw new Fault(`A file of the page is missing (${address.pathname.split("/").pop()}): the book was built without it.`);
  return response;
}

async function text(address, cache = "default") {
  return (await answer(address, cache)).text();
}

/** The bytes of a file, inflated where they are compressed; a server may have inflated them already. */
async function bytes(address, arrived) {
  const response = await answer(address, "default");
  const reader = response.body.getReader();
  const parts = [];
  arrived(0, Number(response.headers.get("Content-Length")));
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    arrived(part.value.length, 0);
  }
  const file = new Blob(parts);
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return file.arrayBuffer();
  return new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** float16 to float32. */
function fromHalf(halves) {
  return Float32Array.from(halves, (half) => {
    const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
}

/** The product of a vector and row number `row` of a matrix. */
function dot(vector, matrix, row) {
  let sum = 0;
  for (let i = 0, at = row * vector.length; i < vector.length; i++, at++) sum += vector[i] * matrix[at];
  return sum;
}
