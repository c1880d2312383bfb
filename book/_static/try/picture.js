/** A picture to the model's input, as `mcliplib.get_preprocess(model)` makes it: Pillow's resampling, to the bit. */

const MOST_PIXELS = 16_000_000; // some browsers have no larger canvas; Python decodes larger JPEGs reduced, too
const LONGEST = 32; // sides of the square; of longer pictures only the centre is resized
const FIXED = 2 ** 22; // weights are multiples of 1 / FIXED, as Pillow's

/** A fault that is told to the reader in these words. */
export class Fault extends Error {}

/**
 * @typedef {object} Pixels
 * @property {number} width
 * @property {number} height
 * @property {Uint8ClampedArray} data RGBA, opaque
 */

/**
 * Decode a picture: upright by its EXIF data, transparency on white.
 * @param {Blob} file
 * @returns {Promise<Pixels>}
 */
export async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Fault("This is no picture that your browser can read. JPEG, PNG, WebP and GIF work everywhere.");
  }
  try {
    return pixelsOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

/**
 * The pixels of what a canvas can draw.
 * @param {CanvasImageSource} source
 * @param {number} width
 * @param {number} height
 * @returns {Pixels}
 */
export function pixelsOf(source, width, height) {
  if (!width || !height) throw new Fault("This picture has no pixels.");
  const share = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * share));
  canvas.height = Math.max(1, Math.floor(height * share));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Fault("Your browser gives this page no canvas to read the picture with.");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/**
 * The shorter side resized to `size`, the centre cropped.
 * @param {Pixels} picture
 * @param {number} size
 * @param {"bilinear" | "bicubic"} interpolation
 * @returns {Uint8Array} RGB, size * size * 3
 */
export function centralSquare(picture, size, interpolation) {
  const [across, down] = [picture.width, picture.height].map((side) => planOf(side, picture, size));
  const weights = (plan) => weightsOf(plan, size, FILTERS[interpolation]);
  const horizontally = (image) => resampled(image, weights(across), true);
  const vertically = (image) => resampled(image, weights(down), false);
  // Pillow (since 13) resizes the height first where that loses more than twice as many pixels.
  const tall = down.lost > 0 && down.lost > 2 * across.lost;
  const image = { data: picture.data, width: picture.width, height: picture.height, channels: 4 };
  return (tall ? horizontally(vertically(image)) : vertically(horizontally(image))).data;
}

/**
 * How one side becomes `size` pixels: of the source's interval [from, to), which is resized to `resized` pixels, those
 * from number `first` on.
 */
function planOf(side, { width, height }, size) {
  const shorter = Math.min(width, height);
  const resized = side === shorter ? size : Math.floor((size * side) / shorter);
  const first = halfToEven((resized - size) / 2);
  if (Math.max(width, height) <= LONGEST * shorter) return { side, from: 0, to: side, resized, first, lost: side - resized };
  const scale = side / resized;
  const [from, to] = [Math.fround(first * scale), Math.fround(first * scale + size * scale)];
  return { side, from, to, resized: size, first: 0, lost: side - size };
}

/**
 * Bytes to the model's input.
 * @param {Uint8Array} square RGB
 * @param {number[]} mean of each channel
 * @param {number[]} std of each channel
 * @returns {Float32Array} channels first
 */
export function toInput(square, mean, std) {
  const area = square.length / 3;
  const input = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) input[c * area + i] = (Math.fround(square[3 * i + c] / 255) - mean[c]) / std[c];
  }
  return input;
}

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at: (x) => {
      const d = Math.abs(x); // a = -0.5
      if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
      return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
    },
  },
};

/** Python's round(). */
function halfToEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

/**
 * For each of `size` results along one side: the first source pixel, and the weights from there on. A source that is
 * larger widens the filter, so that every one of its pixels counts.
 */
function weightsOf({ side, from, to, resized, first }, size, filter) {
  const scale = (to - from) / resized;
  const wide = Math.max(scale, 1);
  const support = filter.support * wide;
  return Array.from({ length: size }, (_, i) => {
    const centre = from + (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(side, Math.trunc(centre + support + 0.5));
    const exact = Array.from({ length: end - start }, (_, k) => filter.at((start + k - centre + 0.5) * (1 / wide)));
    const total = exact.reduce((sum, weight) => sum + weight, 0);
    return { start, weights: exact.map((weight) => fixed(weight / total)) };
  });
}

function fixed(weight) {
  return Math.sign(weight) * Math.trunc(Math.abs(weight) * FIXED + 0.5);
}

/** An image resized along its rows, or along its columns; the result is RGB. */
function resampled({ data, width, height, channels }, plan, alongRows) {
  const lines = alongRows ? height : width;
  const [step, line] = alongRows ? [channels, width * channels] : [width * channels, channels];
  const made = alongRows ? { width: plan.length, height } : { width, height: plan.length };
  const [madeStep, madeLine] = alongRows ? [3, made.width * 3] : [made.width * 3, 3];
  const result = new Uint8Array(made.width * made.height * 3);
  for (let i = 0; i < plan.length; i++) {
    const { start, weights } = plan[i];
    for (let l = 0; l < lines; l++) {
      for (let c = 0; c < 3; c++) {
        let sum = FIXED / 2;
        for (let k = 0, at = l * line + start * step + c; k < weights.length; k++, at += step) sum += weights[k] * data[at];
        result[i * madeStep + l * madeLine + c] = Math.min(255, Math.max(0, Math.floor(sum / FIXED)));
      }
    }
  }
  return { ...made, data: result, channels: 3 };
}
