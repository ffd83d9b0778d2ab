/** The preprocessing contract, version 1: geometry and resampling, in the contract's integers. */

import { BundleError, ImageError } from "./errors.js";
import { MAX_PIXELS } from "./decode.js";

/** @typedef {import("./edgetl.js").Picture} Picture */
/** @typedef {import("./edgetl.js").Spec} Spec */
/**
 * @typedef {object} Axis  how one axis is resized
 * @property {Int32Array} first  the first pixel of each output
 * @property {Int32Array} weights  22 fractional bits; those of output i start at i × taps
 * @property {number} taps  the largest number of pixels that an output is made of
 * @property {Int32Array} counts  how many pixels each output is made of
 */

const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1);
const VERSION = 1;

const FILTERS = {
  bilinear: { support: 1, weight: (/** @type {number} */ x) => Math.max(1 - Math.abs(x), 0) },
  bicubic: { support: 2, weight: bicubic },
};

/** @param {number} x */
function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/**
 * Check a manifest's preprocessing.
 *
 * @param {any} values
 * @param {string} path  of the manifest
 * @returns {Spec}
 * @throws {BundleError} if this module can't compute it
 */
export function checkedSpec(values, path) {
  if (values?.version !== VERSION) {
    const reason = `preprocessing version ${values?.version} is not known; this is ${VERSION}`;
    throw new BundleError(path, reason, "Export it again with the same edgetl.");
  }
  const { resize, size, interpolation, crop } = values;
  const isLength = (/** @type {unknown} */ n) =>
    typeof n === "number" && Number.isInteger(n) && n >= 1 && n <= 65536;
  const isPair = (/** @type {unknown} */ pair) =>
    Array.isArray(pair) && pair.length === 2 && pair.every(isLength);
  const isSize = resize === "squash" ? isPair(size) : resize === "shorter_side" && isLength(size);
  const [height, width] = Array.isArray(size) ? size : [size, size];
  const isCrop = crop === null || (isPair(crop) && crop[0] <= height && crop[1] <= width);
  if (!isSize || !isCrop || !Object.hasOwn(FILTERS, interpolation)) {
    throw new BundleError(path, "its preprocessing can't be used");
  }
  return values;
}

/**
 * Resize and crop as the contract says: the value `resized` of the models.
 *
 * @param {Picture} picture
 * @param {Spec} spec
 * @param {string} name  what errors call the picture
 * @param {number} [maxPixels]  that the resize may take
 * @returns {Picture}
 * @throws {ImageError} for a picture so long and thin that its resize would take more
 */
export function resize(picture, spec, name, maxPixels = MAX_PIXELS) {
  const [fullHeight, fullWidth] = resizedSize(spec, picture.height, picture.width);
  const largest = fullWidth * Math.max(picture.height, fullHeight);
  if (largest > maxPixels) {
    const reason = `resizing ${picture.width}×${picture.height} takes ${largest} pixels`;
    throw new ImageError(name, `${reason}; the limit is ${maxPixels}`);
  }
  const [height, width] = spec.crop ?? [fullHeight, fullWidth];
  const top = halfToEven(fullHeight - height);
  const left = halfToEven(fullWidth - width);
  const columns = axis(picture.width, fullWidth, left, width, spec.interpolation);
  const rows = axis(picture.height, fullHeight, top, height, spec.interpolation);
  // Only the rows that the vertical pass reads.
  const start = rows.first[0];
  const end = rows.first[height - 1] + rows.counts[height - 1];
  const narrow = horizontal(picture, columns, width, start, end);
  return { data: vertical(narrow, rows, 3 * width, height, start), height, width };
}

/**
 * @param {Spec} spec
 * @param {number} height
 * @param {number} width
 * @returns {[number, number]}  (height, width) before the crop
 */
export function resizedSize(spec, height, width) {
  if (Array.isArray(spec.size)) return spec.size;
  if (height <= width) return [spec.size, Math.trunc((spec.size * width) / height)];
  return [Math.trunc((spec.size * height) / width), spec.size];
}

/** @param {number} difference  of two lengths, at least 0 */
function halfToEven(difference) {
  const half = Math.floor(difference / 2);
  return difference % 2 ? half + (half % 2) : half;
}

/**
 * The weights for outputs `start` to `start + count` of an axis of `from` pixels resized to `to`.
 *
 * @param {number} from
 * @param {number} to
 * @param {number} start
 * @param {number} count
 * @param {"bilinear" | "bicubic"} interpolation
 * @returns {Axis}
 */
function axis(from, to, start, count, interpolation) {
  const first = new Int32Array(count);
  const counts = new Int32Array(count);
  if (from === to) {
    first.forEach((_, i) => (first[i] = start + i));
    const weights = new Int32Array(count).fill(2 * HALF);
    return { first, counts: counts.fill(1), taps: 1, weights };
  }
  const filter = FILTERS[interpolation];
  const scale = from / to;
  const filterScale = Math.max(scale, 1);
  const support = filter.support * filterScale;
  const taps = Math.ceil(support) * 2 + 1;
  const weights = new Int32Array(count * taps);
  const exact = new Float64Array(taps);
  for (let i = 0; i < count; i++) {
    const centre = (start + i + 0.5) * scale;
    first[i] = Math.max(Math.trunc(centre - support + 0.5), 0);
    counts[i] = Math.min(Math.trunc(centre + support + 0.5), from) - first[i];
    let total = 0;
    for (let k = 0; k < counts[i]; k++) {
      exact[k] = filter.weight((first[i] + k - centre + 0.5) * (1 / filterScale));
      total += exact[k];
    }
    for (let k = 0; k < counts[i]; k++) {
      const scaled = (exact[k] / total) * 2 ** FRACTION_BITS;
      weights[i * taps + k] = Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    }
  }
  return { first, counts, taps, weights };
}

/**
 * @param {Picture} picture
 * @param {Axis} columns
 * @param {number} width  of the result
 * @param {number} start  first row
 * @param {number} end  row after the last
 * @returns {Uint8ClampedArray}  RGB, (end - start) × width × 3
 */
function horizontal({ data, width: fromWidth }, columns, width, start, end) {
  const result = new Uint8ClampedArray(3 * width * (end - start));
  const { first, counts, taps, weights } = columns;
  for (let y = start, to = 0; y < end; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let from = 3 * (y * fromWidth + first[x]);
      const stop = x * taps + counts[x];
      for (let k = x * taps; k < stop; k++, from += 3) {
        const weight = weights[k];
        red = (red + data[from] * weight) | 0;
        green = (green + data[from + 1] * weight) | 0;
        blue = (blue + data[from + 2] * weight) | 0;
      }
      result[to] = red >> FRACTION_BITS;
      result[to + 1] = green >> FRACTION_BITS;
      result[to + 2] = blue >> FRACTION_BITS;
    }
  }
  return result;
}

/**
 * @param {Uint8ClampedArray} data
 * @param {Axis} rows
 * @param {number} stride  values in a row
 * @param {number} height  of the result
 * @param {number} start  the row of the picture that `data` starts with
 * @returns {Uint8Array}
 */
function vertical(data, rows, stride, height, start) {
  const result = new Uint8ClampedArray(stride * height);
  const { first, counts, taps, weights } = rows;
  const sums = new Int32Array(stride);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    let from = (first[y] - start) * stride;
    for (let k = y * taps; k < y * taps + counts[y]; k++) {
      const weight = weights[k];
      for (let i = 0; i < stride; i++, from++) sums[i] += data[from] * weight;
    }
    for (let i = 0, to = y * stride; i < stride; i++, to++) result[to] = sums[i] >> FRACTION_BITS;
  }
  return new Uint8Array(result.buffer);
}
