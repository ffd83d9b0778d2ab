/** The predictor that pages and programs use: a photo in, a label and probabilities out. */

import { Bundle } from "./bundle.js";
import { MAX_PIXELS, decode, describe } from "./decode.js";
import { BundleError, EdgetlError } from "./errors.js";
import { Prediction } from "./prediction.js";
import { resize } from "./resize.js";
import { selfTest } from "./self-test.js";
import { Session, importOrt } from "./session.js";
import { withOutput } from "./model-outputs.js";

/** @typedef {import("./decode.js").Source} Source */
/** @typedef {import("./decode.js").Picture} Picture */
/** @typedef {import("./session.js").Ort} Ort */
/** @typedef {import("./session.js").Provider} Provider */
/** @typedef {import("./prediction.js").Outputs} Outputs */
/** @typedef {import("./self-test.js").SelfTest} SelfTest */
/** @typedef {import("./self-test.js").Answered} Answered */
/**
 * @typedef {object} Options
 * @property {string} [precision]  "fp32", "fp16" or "int8"; the folder's default if it is left out
 * @property {Ort} [ort]  onnxruntime-web, already imported
 * @property {Provider} [provider]  "webgpu" for fp32 only, and only if the golden photos pass
 * @property {number} [threads]  more than one needs a page that is cross-origin isolated
 * @property {number} [maxPixels]  the largest photo that is decoded, height × width
 */
/**
 * @typedef {object} Stages  every value of one photo on its way to the answer
 * @property {Picture} decoded
 * @property {Picture} resized
 * @property {Float32Array | null} normalized  [3, h, w]; null: this model has no such value
 * @property {Float32Array} logits
 * @property {Float32Array} probabilities
 * @property {number | null} ood_score
 * @property {Float32Array | null} embedding
 */

/** Times the pixels of the network's input: a resize to so many is allowed in any case. */
const MIN_RESIZE_LIMIT = 16;

const ANSWERS = ["logits", "probabilities"];
const SCORES = ["ood_score", "embedding"];
const NORMALIZED = "normalized";

export class Predictor {
  #bundle;
  #ort;
  #model;
  #session;
  #options;
  /** The model with a further output, for `stages`. @type {Promise<Session | null> | undefined} */
  #normalizing;

  /**
   * Made by `Predictor.load`.
   *
   * @param {Bundle} bundle
   * @param {Ort} ort
   * @param {Uint8Array} model
   * @param {Session} session
   * @param {Required<Omit<Options, "ort">>} options
   */
  constructor(bundle, ort, model, session, options) {
    this.#bundle = bundle;
    this.#ort = ort;
    this.#model = model;
    this.#session = session;
    this.#options = options;
  }

  /**
   * Load a folder that `edgetl export --web` wrote.
   *
   * @param {string | URL} folder  its URL; in a browser it may be relative, in Node a path
   * @param {Options} [options]
   * @returns {Promise<Predictor>}
   * @throws {BundleError} if the folder or its model is damaged, or not what was exported
   * @throws {EdgetlError} if onnxruntime-web can't be loaded, or WebGPU gives other answers
   */
  static async load(folder, options = {}) {
    const { provider = "wasm", threads = 1, maxPixels = MAX_PIXELS } = options;
    const bundle = await Bundle.open(folder);
    const precision = options.precision ?? bundle.precisions[0];
    const name = bundle.modelName(precision);
    if (provider === "webgpu" && precision !== "fp32") {
      const reason = `WebGPU gives other answers for ${precision}; it is used for fp32 only.`;
      throw new EdgetlError(reason, 'Leave out provider: "webgpu".');
    }
    const [ort, model] = await Promise.all([
      options.ort ?? importOrt(bundle, provider),
      bundle.read(name),
    ]);
    const path = bundle.file(name).href;
    const session = await Session.open(ort, model, path, provider, threads);
    const chosen = { precision, provider, threads, maxPixels };
    const predictor = new Predictor(bundle, ort, model, session, chosen);
    if (provider === "webgpu") await predictor.#proveProvider();
    return predictor;
  }

  /** Class names in the order of the outputs. */
  get labels() {
    return this.#card.labels;
  }

  /** "fp32", "fp16" or "int8". */
  get precision() {
    return this.#options.precision;
  }

  /** The preprocessing contract, as JSON values. */
  get spec() {
    return this.#card.spec;
  }

  /** Packages that the model was made with, name → version. */
  get versions() {
    return this.#bundle.manifest.versions;
  }

  /**
   * Classify one photo.
   *
   * @param {Source} source
   * @returns {Promise<Prediction>}
   * @throws {ImageError} if it is not one whole photo
   * @throws {BundleError} if the model fails
   */
  async predict(source) {
    const { outputs } = await this.#answer(source);
    return new Prediction(describe(source), this.labels, outputs, this.#card.unknown?.threshold);
  }

  /**
   * Every value of one photo on its way to the answer, to compare with another runtime's.
   *
   * @param {Source} source
   * @returns {Promise<Stages>}
   * @throws {ImageError} {BundleError} as `predict` does
   */
  async stages(source) {
    const { outputs, ...pictures } = await this.#answer(source);
    const session = await (this.#normalizing ??= this.#openNormalizing());
    const values = await session?.run(pictures.resized, [NORMALIZED]);
    return {
      ...pictures,
      normalized: values?.[NORMALIZED] ?? null,
      logits: outputs.logits,
      probabilities: outputs.probabilities,
      ood_score: outputs.ood_score?.[0] ?? null,
      embedding: outputs.embedding ?? null,
    };
  }

  /**
   * Run the golden photos, and compare with the trained model's answers.
   *
   * @param {{progress?: (done: number, total: number) => void}} [options]
   * @returns {Promise<SelfTest>}
   * @throws {BundleError} if there are no golden photos to compare with
   */
  selftest({ progress = () => {} } = {}) {
    return selfTest(this.#bundle, this.precision, (photo) => this.#answer(photo), progress);
  }

  /** Free the model's memory. The predictor can't be used afterwards. */
  async dispose() {
    await this.#session.close();
    await (await this.#normalizing)?.close();
  }

  get #card() {
    return this.#bundle.manifest.card;
  }

  get #outputNames() {
    return this.#card.unknown ? [...ANSWERS, ...SCORES] : ANSWERS;
  }

  /**
   * @param {Source} source
   * @returns {Promise<Answered>}
   */
  async #answer(source) {
    const decoded = await decode(source, this.#options.maxPixels);
    const [height, width] = [this.spec.size].flat();
    const input = MIN_RESIZE_LIMIT * height * (width ?? height);
    const limit = Math.min(Math.max(this.#options.maxPixels, input), MAX_PIXELS);
    const resized = resize(decoded, this.spec, describe(source), limit);
    const outputs = /** @type {any} */ (await this.#session.run(resized, this.#outputNames));
    this.#checkValues(outputs, describe(source));
    return { decoded, resized, outputs };
  }

  /**
   * @param {Outputs} outputs
   * @param {string} name  of the photo
   * @throws {BundleError} if there is not one number for each label
   */
  #checkValues(outputs, name) {
    for (const output of ANSWERS) {
      const count = outputs[/** @type {"logits"} */ (output)].length;
      if (count !== this.labels.length) {
        const reason = `it gives ${count} ${output} for ${this.labels.length} labels`;
        throw new BundleError(this.#session.path, reason);
      }
    }
    if (Object.values(outputs).some((values) => !values.every(Number.isFinite))) {
      const reason = `its answers for ${name} are not finite numbers`;
      throw new BundleError(this.#session.path, reason, "Run the self-test.");
    }
  }

  /** @returns {Promise<Session | null>}  null: the model has no such value */
  async #openNormalizing() {
    const model = withOutput(this.#model, NORMALIZED);
    const { provider, threads } = this.#options;
    try {
      return await Session.open(this.#ort, model, this.#session.path, provider, threads);
    } catch (error) {
      if (error instanceof BundleError) return null;
      throw error;
    }
  }

  async #proveProvider() {
    const { passed, photos } = await this.selftest();
    if (passed) return;
    const reason = photos.find((photo) => !photo.passed)?.reason;
    await this.dispose();
    throw new EdgetlError(
      `WebGPU does not give the model's answers on this device (${reason}).`,
      'Leave out provider: "webgpu".',
    );
  }
}
