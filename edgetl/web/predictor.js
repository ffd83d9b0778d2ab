/**
 * The predictor that pages and programs use: a photo in, a label and probabilities out.
 * edgetl.d.ts describes its methods.
 */

import { Bundle } from "./bundle.js";
import { Codecs } from "./codecs.js";
import { MAX_PIXELS, decode, describe } from "./decode.js";
import { BundleError, EdgetlError } from "./errors.js";
import { Prediction } from "./prediction.js";
import { resize } from "./resize.js";
import { selfTest } from "./self-test.js";
import { Session, importOrt } from "./session.js";
import { withOutput } from "./model-outputs.js";

/** @typedef {import("./edgetl.js").Options} Options */
/** @typedef {import("./edgetl.js").Ort} Ort */
/** @typedef {import("./edgetl.js").Predictor} Public */
/** @typedef {import("./edgetl.js").Source} Source */
/** @typedef {import("./edgetl.js").Stages} Stages */
/** @typedef {import("./prediction.js").Outputs} Outputs */
/** @typedef {import("./self-test.js").Answered} Answered */

/** Times the pixels of the network's input: a resize to so many is allowed in any case. */
const MIN_RESIZE_LIMIT = 16;

const ISOLATE =
  "Leave out threads, or serve the page with the headers Cross-Origin-Opener-Policy: same-origin " +
  "and Cross-Origin-Embedder-Policy: require-corp.";

const ANSWERS = ["logits", "probabilities"];
const SCORES = ["ood_score", "embedding"];
const NORMALIZED = "normalized";

/** @implements {Public} */
export class Predictor {
  #bundle;
  #ort;
  #session;
  #options;
  /** The model with a further output, for `stages`. @type {Promise<Session | null> | undefined} */
  #normalizing;

  /**
   * @param {Bundle} bundle
   * @param {Ort} ort
   * @param {Session} session
   * @param {Required<Omit<Options, "ort">>} options
   */
  constructor(bundle, ort, session, options) {
    this.#bundle = bundle;
    this.#ort = ort;
    this.#session = session;
    this.#options = options;
  }

  /**
   * @param {string | URL} folder
   * @param {Options} [options]
   */
  static async load(folder, options = {}) {
    const { provider = "wasm", threads = 1, maxPixels = MAX_PIXELS } = options;
    const bundle = await Bundle.open(folder);
    const { precision = bundle.precisions[0] } = options;
    const name = bundle.modelName(precision);
    if (provider === "webgpu" && precision !== "fp32") {
      const reason = `WebGPU gives other answers for ${precision}; it is used for fp32 only.`;
      throw new EdgetlError(reason, 'Leave out provider: "webgpu".');
    }
    if (threads > 1 && globalThis.crossOriginIsolated === false) {
      throw new EdgetlError("Several threads need a page that is cross-origin isolated.", ISOLATE);
    }
    const [ort, model] = await Promise.all([
      options.ort ?? importOrt(bundle, provider, threads),
      bundle.read(name),
      Codecs.load(), // here, so that the first photo does not wait for them
    ]);
    const path = bundle.file(name).href;
    const session = await Session.open(ort, model, path, provider, threads);
    const chosen = { precision, provider, threads, maxPixels };
    const predictor = new Predictor(bundle, ort, session, chosen);
    if (provider === "webgpu") await predictor.#proveProvider();
    return predictor;
  }

  get labels() {
    return this.#card.labels;
  }

  get precision() {
    return this.#options.precision;
  }

  get spec() {
    return this.#card.spec;
  }

  get versions() {
    return this.#bundle.manifest.versions;
  }

  /** @param {Source} source */
  async predict(source) {
    const { outputs } = await this.#answer(source);
    return new Prediction(describe(source), this.labels, outputs, this.#card.unknown?.threshold);
  }

  /**
   * @param {Source} source
   * @returns {Promise<Stages>}
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

  /** @param {{progress?: (done: number, total: number) => void}} [options] */
  selftest({ progress = () => {} } = {}) {
    return selfTest(this.#bundle, this.precision, (photo) => this.#answer(photo), progress);
  }

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
    const { precision, provider, threads } = this.#options;
    const model = withOutput(await this.#bundle.read(this.#bundle.modelName(precision)), NORMALIZED);
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
