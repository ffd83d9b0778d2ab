/**
 * Does this device give the trained model's answers? The golden photos go through the decoder, the
 * resize and the model, and each step is compared with what the manifest has.
 */

import { sha256 } from "./checksum.js";
import { BundleError, EdgetlError, ImageError, messageOf } from "./errors.js";

/** @typedef {import("./bundle.js").Bundle} Bundle */
/** @typedef {import("./bundle.js").Answer} Answer */
/** @typedef {import("./bundle.js").Golden} Golden */
/** @typedef {import("./edgetl.js").Picture} Picture */
/** @typedef {import("./prediction.js").Outputs} Outputs */
/** @typedef {{decoded: Picture, resized: Picture, outputs: Outputs}} Answered */
/** @typedef {import("./edgetl.js").PhotoResult} PhotoResult */
/** @typedef {import("./edgetl.js").SelfTest} SelfTest */
/** @typedef {import("./edgetl.js").Stage} Stage */

/** Largest difference of a probability from the trained network's, by precision. */
const PROBABILITY_TOLERANCES = { fp32: 1e-4, fp16: 2.5e-2, int8: 0.25 };
/** The same, from this model's own answers where it was exported. */
const SAME_MODEL_TOLERANCES = { fp32: 1e-4, fp16: 2.5e-2, int8: 5e-2 };

/**
 * @typedef {object} Rules  what is compared
 * @property {number} tolerance
 * @property {boolean} exact  logits must be equal, bit by bit
 * @property {number} temperature
 * @property {number | undefined} sensitivity  of the score, where the model has one
 */

/**
 * @param {Bundle} bundle
 * @param {string} precision
 * @param {(photo: Uint8Array) => Promise<Answered>} answer  what the predictor computes
 * @param {(done: number, total: number) => void} progress
 * @returns {Promise<SelfTest>}
 * @throws {BundleError} if there is nothing to compare
 */
export async function selfTest(bundle, precision, answer, progress) {
  const { golden, card, precisions } = bundle.manifest;
  if (!golden.length) {
    const hint = "Export it with golden photos (`edgetl export`, without `--golden 0`).";
    throw new BundleError(bundle.url.href, "it has no golden photos to test with", hint);
  }
  const own = golden.every((photo) => photo.own_answers?.[precision]);
  const tolerances = own ? SAME_MODEL_TOLERANCES : PROBABILITY_TOLERANCES;
  const rules = {
    tolerance: tolerances[/** @type {"fp32"} */ (precision)],
    exact: own && precisions?.[precision]?.portable_bits === true,
    temperature: card.temperature,
    sensitivity: card.unknown?.sensitivity,
  };
  const files = bundle.unverified.filter((name) => !golden.some(({ file }) => file === name));
  const total = files.length + golden.length;
  /** @type {PhotoResult[]} */
  const photos = [];
  let done = 0;
  for (const name of files) {
    const damage = await damageOf(bundle, name);
    if (damage) photos.push(failed(name, "files", damage));
    progress(++done, total);
  }
  for (const photo of golden) {
    const expected = (own && photo.own_answers?.[precision]) || photo;
    photos.push(await test(bundle, photo, expected, answer, rules));
    progress(++done, total);
  }
  const stage = photos.find((photo) => photo.stage)?.stage ?? null;
  return { passed: stage === null, stage, tolerance: rules.tolerance, photos };
}

/**
 * @param {string} file
 * @param {Stage} stage
 * @param {string} detail
 * @returns {PhotoResult}
 */
function failed(file, stage, detail) {
  return { file, passed: false, stage, detail, reason: `${stage}: ${detail}` };
}

/**
 * @param {Bundle} bundle
 * @param {string} name
 * @returns {Promise<string | null>}
 */
async function damageOf(bundle, name) {
  try {
    await bundle.read(name);
    return null;
  } catch (error) {
    if (error instanceof BundleError) return error.reason;
    throw error;
  }
}

/**
 * @param {Bundle} bundle
 * @param {Golden} photo
 * @param {Answer} expected
 * @param {(photo: Uint8Array) => Promise<Answered>} answer
 * @param {Rules} rules
 * @returns {Promise<PhotoResult>}
 */
async function test(bundle, photo, expected, answer, rules) {
  /** @type {Stage} */
  let stage = "files";
  try {
    const content = await bundle.read(photo.file);
    stage = "logits"; // unless the error below says that it was the decoder
    const { decoded, resized, outputs } = await answer(content);
    if ((await sha256(decoded.data)) !== photo.decoded_sha256) {
      return failed(photo.file, "decode", "this decoder's pixels are not the reference's");
    }
    if ((await sha256(resized.data)) !== photo.resized_sha256) {
      return failed(photo.file, "resized", "its pixels after the resize are not the reference's");
    }
    return compare(photo.file, outputs, expected, rules);
  } catch (error) {
    if (!(error instanceof EdgetlError)) throw error;
    if (error instanceof ImageError) return failed(photo.file, "decode", error.reason);
    return failed(photo.file, stage, messageOf(error));
  }
}

/**
 * @param {string} file
 * @param {Outputs} outputs
 * @param {Answer} expected
 * @param {Rules} rules
 * @returns {PhotoResult}
 */
function compare(file, outputs, expected, { tolerance, exact, temperature, sensitivity }) {
  const size = Math.max(temperature, ...expected.logits.map(Math.abs));
  /** @type {[Stage, number, number][]} */
  const differences = [
    ["logits", largest(outputs.logits, expected.logits), exact ? 0 : 2 * tolerance * size],
    ["probabilities", largest(outputs.probabilities, expected.probabilities), tolerance],
  ];
  if (sensitivity !== undefined) {
    const { embedding = [], ood_score = NaN } = expected;
    const score = largest(outputs.ood_score ?? [], [ood_score]);
    differences.push(["embedding", largest(outputs.embedding ?? [], embedding), 2 * tolerance]);
    differences.push(["ood_score", score, 2 * tolerance * sensitivity]);
  }
  const by = differences.map(([name, value]) => `${name} by up to ${value.toPrecision(2)}`);
  const detail = `differences: ${by.join(", ")}`;
  // "not <=" rather than ">": NaN fails, too.
  const stage = differences.find(([, value, limit]) => !(value <= limit))?.[0];
  return stage ? failed(file, stage, detail) : { file, passed: true, stage: null, detail };
}

/**
 * The largest difference; infinite if there are not as many values.
 *
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} expected
 */
function largest(values, expected) {
  if (values.length !== expected.length) return Infinity;
  return Math.max(0, ...Array.from(values, (value, i) => Math.abs(value - expected[i])));
}
