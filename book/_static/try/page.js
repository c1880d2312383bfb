/** The page "Try it": what the reader does on one side, the model on the other. */

import { Camera } from "./camera.js";
import { load } from "./model.js";
import { Fault, readPicture } from "./picture.js";

const FILES = new URL("./", import.meta.url);
const TYPING = 80; // milliseconds without a key after which the model is asked
const SPEAKING = 900; // and after which a screen reader is told the answer
const SHOWN = 12; // pictures of the gallery
const PREVIEW = 240; // pixels of the longer side of the picture that is shown
const MOST_LABELS = 100;

/** @param {string} id */
const at = (id) => document.getElementById(`try-${id}`);

/** Text for the reader's eyes, and for a screen reader. */
function say(place, message) {
  if (place.textContent !== message) place.textContent = message;
}

/** Call `action` once nothing has happened for a while. */
function later(action, milliseconds) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), milliseconds);
  };
}

/** Run what the reader asked for; a fault is told in words. */
async function attempt(place, action) {
  say(place, "");
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Fault)) console.error(error);
    say(place, error instanceof Fault ? error.message : `Something went wrong: ${error.message}`);
  }
}

/** Labels of a text: one a line, or with commas between them. */
export function labelsOf(text) {
  const labels = text.split(/[\n,;]/).map((label) => label.trim());
  return [...new Set(labels.filter(Boolean))].slice(0, MOST_LABELS);
}

const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

/** A new element, its properties and its children. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The first half of the page: one picture, some labels, their probabilities. */
class Classify {
  constructor(model) {
    this.model = model;
    this.features = null;
    this.pictureTime = 0;
    this.asked = 0;
    this.camera = new Camera(at("video"));
    this.speak = later((message) => say(at("answer"), message), SPEAKING);
    at("labels").addEventListener("input", later(() => this.update(), TYPING));
    at("file").addEventListener("change", () => this.take(at("file").files[0], "your picture"));
    at("camera").addEventListener("click", () => attempt(at("error"), () => this.useCamera()));
    at("camera-off").addEventListener("click", () => this.closeCamera());
    this.drawSamples();
  }

  drawSamples() {
    const folder = new URL("samples/", FILES);
    for (const { file, name, credit } of this.model.config.samples) {
      const picture = element("img", { src: new URL(file, folder).href, alt: name, width: 56, height: 56 });
      const button = element("button", { type: "button", title: `${name} (${credit})` }, picture);
      button.addEventListener("click", () => this.sample(new URL(file, folder), name));
      at("samples").append(button);
    }
  }

  sample(address, name) {
    return attempt(at("error"), async () => {
      const response = await fetch(address);
      await this.look(await readPicture(await response.blob()), `a sample picture: ${name}`);
    });
  }

  take(file, name) {
    at("file").value = ""; // so that the same file can be chosen again
    if (file) attempt(at("error"), async () => this.look(await readPicture(file), name));
  }

  async useCamera() {
    if (this.camera.stream) {
      const picture = this.camera.look();
      this.closeCamera();
      return this.look(picture, "the camera's picture");
    }
    await this.openCamera();
    if (!this.camera.stream) return undefined; // the reader chose a picture meanwhile
    at("video").hidden = at("camera-off").hidden = false;
    at("preview").hidden = true;
    at("camera").textContent = "Take the picture";
    return undefined;
  }

  /** Start the camera, once: without its button, as the reader may wait long before the browser's question. */
  async openCamera() {
    const button = at("camera");
    const focused = document.activeElement === button;
    button.disabled = true;
    try {
      await this.camera.start();
    } finally {
      button.disabled = false;
      if (focused && document.activeElement === document.body) button.focus(); // a disabled button loses it
    }
  }

  closeCamera() {
    this.camera.stop();
    at("video").hidden = at("camera-off").hidden = true;
    at("preview").hidden = false;
    at("camera").textContent = "Use the camera";
  }

  /** Show a picture and ask the model about it. */
  async look(picture, name) {
    this.closeCamera();
    show(picture, name);
    const began = performance.now();
    this.features = await this.model.encodePicture(picture);
    this.pictureTime = performance.now() - began;
    at("similar").disabled = false;
    await this.update();
  }

  async update() {
    const labels = labelsOf(at("labels").value);
    if (!this.features || !labels.length) {
      at("bars").replaceChildren();
      return say(at("time"), labels.length ? "Choose a picture." : "Type a label.");
    }
    const asked = ++this.asked;
    const began = performance.now();
    const texts = await this.model.encodeTexts(labels);
    if (asked !== this.asked) return undefined; // another key came meanwhile
    const seconds = performance.now() - began;
    const shares = this.model.probabilities(this.features, texts);
    this.draw(labels.map((label, i) => ({ label, share: shares[i] })).sort((a, b) => b.share - a.share));
    const alone = labels.length === 1 ? " One label alone always gets 100%: add others." : "";
    return say(at("time"), `The picture took ${milliseconds(this.pictureTime)}, the texts ${milliseconds(seconds)}.${alone}`);
  }

  draw(answers) {
    const rows = answers.map(({ label, share }) => {
      const bar = element("span", { className: "try-bar", ariaHidden: "true" });
      bar.style.setProperty("--share", String(share));
      const value = element("span", { className: "try-value" }, `${(100 * share).toFixed(1)}%`);
      const row = element("li", {}, element("span", { className: "try-label" }, label), " ", value, bar);
      row.dataset.share = String(share);
      return row;
    });
    at("bars").replaceChildren(...rows);
    const [best] = answers;
    this.speak(`${best.label}: ${Math.round(100 * best.share)} percent`);
  }
}

function show(picture, name) {
  const share = PREVIEW / Math.max(picture.width, picture.height);
  const canvas = at("preview");
  canvas.width = Math.max(1, Math.round(picture.width * share));
  canvas.height = Math.max(1, Math.round(picture.height * share));
  const whole = document.createElement("canvas");
  [whole.width, whole.height] = [picture.width, picture.height];
  whole.getContext("2d").putImageData(picture, 0, 0);
  canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
  canvas.setAttribute("aria-label", `Looked at: ${name}`);
}

/** The second half: the gallery, searched with words or with a picture. */
class Search {
  constructor(model, classify) {
    this.model = model;
    this.asked = 0;
    this.speak = later((message) => say(at("found"), message), SPEAKING);
    at("query").addEventListener("input", later(() => this.words(), TYPING));
    at("query-file").addEventListener("change", () => this.picture(at("query-file").files[0]));
    at("similar").addEventListener("click", () => this.show(classify.features, "the picture above"));
  }

  async words() {
    const query = at("query").value.trim();
    if (!query) return;
    const asked = ++this.asked;
    const began = performance.now();
    const [features] = await this.model.encodeTexts([query]);
    if (asked === this.asked) this.show(features, `“${query}”`, began);
  }

  picture(file) {
    at("query-file").value = "";
    if (!file) return;
    attempt(at("query-error"), async () => {
      const picture = await readPicture(file);
      const [asked, began] = [++this.asked, performance.now()];
      const features = await this.model.encodePicture(picture);
      if (asked === this.asked) this.show(features, "your picture", began);
    });
  }

  /** A picture of the gallery as the query. */
  like(index) {
    this.asked++;
    const { dim, gallery } = this.model.config;
    this.show(this.model.features.slice(index * dim, (index + 1) * dim), `the picture “${gallery.captions[index]}”`);
    at("results").querySelector("button").focus();
  }

  show(features, query, began = performance.now()) {
    const nearest = this.model.nearest(features, SHOWN);
    const { captions } = this.model.config.gallery;
    at("results").replaceChildren(...nearest.map((one) => this.result(one)));
    say(at("search-time"), `Nearest to ${query}; it took ${milliseconds(performance.now() - began)}.`);
    this.speak(`Nearest to ${query}: ${nearest.slice(0, 3).map(({ index }) => captions[index]).join(", ")}`);
  }

  result({ index, cosine }) {
    const { captions, columns, rows } = this.model.config.gallery;
    const thumbnail = element("span", { className: "try-thumbnail", ariaHidden: "true" });
    const share = (place, count) => `${count > 1 ? (100 * place) / (count - 1) : 0}%`;
    thumbnail.style.backgroundImage = `url("${new URL(`gallery.webp?${this.model.config.version.slice(0, 12)}`, FILES).href}")`;
    thumbnail.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    thumbnail.style.backgroundPosition = `${share(index % columns, columns)} ${share(Math.floor(index / columns), rows)}`;
    const button = element("button", { type: "button", title: "Find similar pictures" }, thumbnail, captions[index], " ");
    button.append(element("span", { className: "try-value" }, cosine.toFixed(2)));
    button.addEventListener("click", () => this.like(index));
    return element("li", {}, button);
  }
}

/** Start the model, then the page. */
async function start() {
  const status = at("status");
  try {
    const model = await load(FILES, (message) => say(status, message));
    const classify = new Classify(model);
    const search = new Search(model, classify);
    for (const field of document.querySelectorAll(".try [data-waits]")) field.disabled = false;
    say(status, "The model is ready. It runs on your machine; nothing that you show or type leaves it.");
    const { samples } = model.config;
    await classify.sample(new URL(`samples/${samples[0].file}`, FILES), samples[0].name);
    await search.words();
    globalThis.tryIt = { model, readPicture, labelsOf }; // for the curious, and for the tests
    document.querySelector(".try").dataset.state = "ready";
  } catch (error) {
    if (!(error instanceof Fault)) console.error(error);
    say(status, error instanceof Fault ? error.message : `The model could not be started: ${error.message}`);
    document.querySelector(".try").dataset.state = "failed";
  }
}

start();
