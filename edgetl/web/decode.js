/**
 * One decoding policy for every runtime of edgetl: a photo → upright RGB.
 *
 * | input                      | what happens                                                     |
 * |----------------------------|------------------------------------------------------------------|
 * | EXIF orientation           | applied; EXIF that can't be read counts as none                  |
 * | grayscale, palette         | to RGB                                                           |
 * | alpha, transparency        | composited on white                                              |
 * | 16 bits a channel          | the high byte                                                    |
 * | CMYK, YCCK                 | to RGB; colour profiles are not applied                          |
 * | animated                   | the first picture                                                |
 * | truncated, corrupt, empty  | ImageError                                                       |
 * | more pixels than the limit | ImageError before decoding                                       |
 * | other formats              | ImageError that names the format                                 |
 */

import { Codecs } from "./codecs.js";
import { ImageError } from "./errors.js";
import { orientation, startsWith } from "./orientation.js";

/** @typedef {import("./codecs.js").OpenPicture} OpenPicture */
/** @typedef {import("./edgetl.js").Picture} Picture */
/** @typedef {import("./edgetl.js").Source} Source */

export const MAX_PIXELS = 100_000_000;

/** What is named when it is refused, by how the file starts. */
const OTHER_FORMATS = [
  ["GIF", "GIF8"],
  ["BMP", "BM"],
  ["TIFF", "II*\0"],
  ["TIFF", "MM\0*"],
  ["JPEG 2000", "\0\0\0\x0cjP  "],
  ["JPEG 2000", "\xff\x4f\xff\x51"],
  ["JPEG XL", "\xff\x0a"],
  ["JPEG XL", "\0\0\0\x0cJXL "],
  ["ICO", "\0\0\x01\0"],
  ["SVG or another text", "<"],
];
const BRANDS = new Map([
  ...["avif", "avis"].map((brand) => /** @type {const} */ ([brand, "AVIF"])),
  ...["heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1"].map(
    (brand) => /** @type {const} */ ([brand, "HEIC"]),
  ),
]);
const ACCEPTED = "pass a Blob, bytes, ImageData, a canvas, a video or a video frame";
const CONVERT = "Convert it to JPEG, PNG or WebP.";

/**
 * Decode a photo by the policy above.
 *
 * @param {Source} source
 * @param {number} [maxPixels]  the largest height × width that is decoded
 * @returns {Promise<Picture>}
 * @throws {ImageError} for anything that is not one whole photo
 * @throws {BundleError} if the decoders can't be loaded
 */
export async function decode(source, maxPixels = MAX_PIXELS) {
  const name = describe(source);
  const bytes = await bytesOf(source, name);
  if (!bytes) return fromPixels(source, name, maxPixels);
  if (!bytes.length) throw new ImageError(name, "it is empty (0 bytes)");
  const isWebp = startsWith(bytes, "RIFF") && startsWith(bytes.subarray(8), "WEBP");
  if (!startsWith(bytes, "\xff\xd8\xff") && !startsWith(bytes, "\x89PNG\r\n\x1a\n") && !isWebp) {
    throw otherFormat(bytes, name);
  }
  const codecs = await Codecs.load();
  return codecs.decode(bytes, name, (picture) => {
    checkSize(picture.width, picture.height, name, maxPixels);
    return upright(picture, orientation(bytes, picture));
  });
}

/**
 * How errors name a photo: its file's name, or what kind of object it is.
 *
 * @param {Source} source
 */
export function describe(source) {
  if (typeof source !== "object" || source === null) {
    throw new TypeError(`a photo can't be read from ${source}; ${ACCEPTED}`);
  }
  if ("name" in source && typeof source.name === "string") return source.name;
  if (source instanceof Blob) return `<${source.size} bytes>`;
  if (source instanceof Uint8Array || source instanceof ArrayBuffer) {
    return `<${source.byteLength} bytes>`;
  }
  return `<${source.constructor.name}>`;
}

/**
 * @param {Source} source
 * @param {string} name
 * @returns {Promise<Uint8Array | null>}  null: it is pixels already
 */
async function bytesOf(source, name) {
  if (source instanceof Uint8Array) return source;
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (!(source instanceof Blob)) return null;
  try {
    return new Uint8Array(await source.arrayBuffer());
  } catch (error) {
    throw new ImageError(name, "it can't be read", null, error);
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {string} name
 */
function otherFormat(bytes, name) {
  const isContainer = startsWith(bytes.subarray(4), "ftyp");
  const brand = isContainer ? String.fromCharCode(...bytes.subarray(8, 12)) : "";
  const start = OTHER_FORMATS.find(([, start]) => startsWith(bytes, start));
  const format = BRANDS.get(brand) ?? start?.[0];
  const reason = format
    ? `it is ${format}, which is not decoded here`
    : "it is not an image, or of a format that is not read here";
  return new ImageError(name, reason, CONVERT);
}

/**
 * @param {number} width
 * @param {number} height
 * @param {string} name
 * @param {number} maxPixels
 */
function checkSize(width, height, name, maxPixels) {
  if (!width || !height) throw new ImageError(name, `it has no pixels (${width}×${height})`);
  if (width * height > maxPixels) {
    const count = (width * height).toLocaleString("en");
    const limit = maxPixels.toLocaleString("en");
    const reason = `it has ${width}×${height} = ${count} pixels; the limit is ${limit}`;
    const hint = "Raise the limit with maxPixels if such photos are expected.";
    throw new ImageError(name, reason, hint);
  }
}

/**
 * Read the rows of a picture to where its orientation puts them.
 *
 * @param {OpenPicture} picture
 * @param {number} turn  1 to 8
 * @returns {Picture}
 */
function upright({ width, height, nextRow }, turn) {
  const isSwapped = turn >= 5;
  const [toWidth, toHeight] = isSwapped ? [height, width] : [width, height];
  const data = new Uint8Array(3 * width * height);
  // Where the rows and columns of the file run to: backwards for these orientations.
  const isMirrored = [2, 3, 7, 8].includes(turn);
  const isFlipped = [3, 4, 6, 7].includes(turn);
  const across = (isMirrored ? -3 : 3) * (isSwapped ? toWidth : 1);
  const down = (isFlipped ? -3 : 3) * (isSwapped ? 1 : toWidth);
  const start = (isMirrored ? -across * (width - 1) : 0) + (isFlipped ? -down * (height - 1) : 0);
  for (let y = 0; y < height; y++) {
    const row = nextRow();
    let to = start + y * down;
    if (across === 3) {
      data.set(row, to);
      continue;
    }
    for (let from = 0; from < row.length; from += 3, to += across) {
      data[to] = row[from];
      data[to + 1] = row[from + 1];
      data[to + 2] = row[from + 2];
    }
  }
  return { data, width: toWidth, height: toHeight };
}

/**
 * @param {Source} source
 * @param {string} name
 * @param {number} maxPixels
 * @returns {Picture}
 */
function fromPixels(source, name, maxPixels) {
  const { data: rgba, width, height } = rgbaOf(source, name, maxPixels);
  const data = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const alpha = rgba[from + 3];
    for (let c = 0; c < 3; c++) {
      data[to + c] = alpha === 255 ? rgba[from + c] : onWhite(rgba[from + c], alpha);
    }
  }
  return { data, width, height };
}

/**
 * @param {number} value  0..255
 * @param {number} alpha  0..255
 */
function onWhite(value, alpha) {
  const rounded = 255 * (255 - alpha) + value * alpha + 128;
  return ((rounded >> 8) + rounded) >> 8;
}

/**
 * @param {Source} source
 * @param {string} name
 * @param {number} maxPixels
 * @returns {{data: ArrayLike<number>, width: number, height: number}}
 */
function rgbaOf(source, name, maxPixels) {
  const pixels = /** @type {{data?: unknown, width: number, height: number}} */ (source);
  if (pixels.data instanceof Uint8ClampedArray || pixels.data instanceof Uint8Array) {
    const { data, width, height } = pixels;
    if (data.length !== 4 * width * height) {
      throw new ImageError(name, `${data.length} bytes are not ${width}×${height} RGBA pixels`);
    }
    checkSize(width, height, name, maxPixels);
    return { data, width, height };
  }
  const { width, height } = sizeOf(source, name);
  checkSize(width, height, name, maxPixels);
  const context = contextOf(width, height, name);
  context.drawImage(/** @type {CanvasImageSource} */ (source), 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/**
 * A canvas to read pixels from.
 *
 * @param {number} width
 * @param {number} height
 * @param {string} name
 * @throws {ImageError} if the browser has none, or changes its pixels against fingerprinting
 */
function contextOf(width, height, name) {
  const canvas = new OffscreenCanvas(Math.max(width, 16), Math.max(height, 16));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new ImageError(name, "this browser gives no canvas to read it from");
  const known = new ImageData(16, 16);
  known.data.forEach((_, i) => (known.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256));
  context.putImageData(known, 0, 0);
  const found = context.getImageData(0, 0, 16, 16).data;
  if (found.some((value, i) => value !== known.data[i])) {
    const reason = "this browser changes pixels that a page reads, against fingerprinting";
    throw new ImageError(name, reason, "Allow this page to read canvases, or pass image files.");
  }
  context.clearRect(0, 0, 16, 16);
  return context;
}

/**
 * Width and height of a frame of a video, or of a canvas.
 *
 * @param {Source} source
 * @param {string} name
 */
function sizeOf(source, name) {
  if ("videoWidth" in source) return { width: source.videoWidth, height: source.videoHeight };
  if ("displayWidth" in source) return { width: source.displayWidth, height: source.displayHeight };
  if ("getContext" in source) return { width: source.width, height: source.height };
  throw new TypeError(`a photo can't be read from ${name}; ${ACCEPTED}`);
}
