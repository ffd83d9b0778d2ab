/** Opening a model in onnxruntime-web: where that comes from, and clear errors. */

import { BundleError, EdgetlError, messageOf } from "./errors.js";
import { IS_NODE, readFile } from "./files.js";

/** @typedef {import("./bundle.js").Bundle} Bundle */
/** @typedef {import("./edgetl.js").Ort} Ort */
/** @typedef {import("./edgetl.js").Picture} Picture */
/** @typedef {import("./edgetl.js").Provider} Provider */
/**
 * @typedef {object} OrtBuild  one build of it, in ort.json
 * @property {string} base  URL of its folder; may be relative to the bundle's
 * @property {string} module
 * @property {string} binary
 */

/** Modules from URLs, so that two predictors share one. @type {Map<string, Promise<Ort>>} */
const imported = new Map();

const LOG_FATAL_ONLY = 4; // errors reach the caller as exceptions, not as text in the console

/**
 * onnxruntime-web as the folder's ort.json names it.
 *
 * @param {Bundle} bundle
 * @param {Provider} provider
 * @param {number} threads
 * @returns {Promise<Ort>}
 * @throws {EdgetlError} if it can't be loaded
 */
export async function importOrt(bundle, provider, threads) {
  const pinned = JSON.parse(new TextDecoder().decode(await bundle.read("ort.json")));
  /** @type {OrtBuild} */
  const build = pinned[provider];
  const base = new URL(build.base, bundle.url);
  // The builds for browsers start no threads in Node.
  if (IS_NODE && (base.protocol !== "file:" || threads > 1)) {
    return importPackage(pinned.package, pinned.version);
  }
  const url = new URL(build.module, base).href;
  const load = async () => {
    const [ort, binary] = await Promise.all([
      importChecked(url, pinned.integrity[build.module]),
      readChecked(new URL(build.binary, base), pinned.integrity[build.binary]),
    ]);
    Object.assign(ort.env.wasm, { wasmBinary: binary });
    return ort;
  };
  const found = imported.get(url) ?? load();
  imported.set(url, found);
  try {
    return await found;
  } catch (error) {
    imported.delete(url); // a download may succeed the next time
    throw error;
  }
}

/**
 * From the program's own node_modules.
 *
 * @param {string} name
 * @param {string} version
 * @returns {Promise<Ort>}
 */
async function importPackage(name, version) {
  try {
    return await import(name);
  } catch (error) {
    const hint = `Install it with: npm install ${name}@${version}`;
    throw new EdgetlError(`${name} can't be imported: ${messageOf(error)}`, hint, error);
  }
}

/**
 * @param {URL} url
 * @param {string} integrity  "sha384-…"
 */
async function readChecked(url, integrity) {
  if (url.protocol === "file:") return readFile(url);
  try {
    const response = await fetch(url, { integrity });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    const reason = `onnxruntime-web can't be read from ${url.href}: ${messageOf(error)}`;
    const hint = "Check the network, or export it into the folder with `edgetl export --web --ort DIR`.";
    throw new EdgetlError(reason, hint, error);
  }
}

/**
 * Import a module whose content is verified first where it comes from another server.
 *
 * @param {string} url
 * @param {string} integrity
 * @returns {Promise<Ort>}
 */
async function importChecked(url, integrity) {
  const isOwn = url.startsWith("file:") || new URL(url).origin === globalThis.location?.origin;
  if (isOwn) return import(url);
  const content = await readChecked(new URL(url), integrity);
  const blob = new Blob([/** @type {BlobPart} */ (content)], { type: "text/javascript" });
  return import(URL.createObjectURL(blob)); // kept, since threads are started from it, too
}

/** A model that is ready to run. */
export class Session {
  #ort;
  #session;
  /** Runs one after the other: a session does one at a time. @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * @param {Ort} ort
   * @param {any} session
   * @param {string} path  of the model, for errors
   */
  constructor(ort, session, path) {
    this.#ort = ort;
    this.#session = session;
    this.path = path;
  }

  /**
   * @param {Ort} ort
   * @param {Uint8Array} model
   * @param {string} path
   * @param {Provider} provider
   * @param {number} threads
   * @throws {BundleError} if the model can't be loaded
   */
  static async open(ort, model, path, provider, threads) {
    Object.assign(ort.env.wasm, { numThreads: threads });
    ort.env.logLevel = "fatal";
    const options = { executionProviders: [provider], logSeverityLevel: LOG_FATAL_ONLY };
    try {
      return new Session(ort, await ort.InferenceSession.create(model, options), path);
    } catch (error) {
      const reason = `onnxruntime-web can't load it (${messageOf(error)})`;
      throw new BundleError(path, reason, null, error);
    }
  }

  /** @returns {readonly string[]} */
  get outputs() {
    return this.#session.outputNames;
  }

  /**
   * @param {Picture} resized  the network's input
   * @param {readonly string[]} outputs  names
   * @returns {Promise<Record<string, Float32Array>>}  values of this one photo
   * @throws {BundleError} if the model fails
   */
  run(resized, outputs) {
    const result = this.#last.then(() => this.#run(resized, outputs));
    this.#last = result.catch(() => {});
    return result;
  }

  /**
   * @param {Picture} resized
   * @param {readonly string[]} outputs
   */
  async #run({ data, height, width }, outputs) {
    const tensor = new this.#ort.Tensor("uint8", data, [1, height, width, 3]);
    const [input] = this.#session.inputNames;
    let found;
    try {
      found = await this.#session.run({ [input]: tensor }, outputs);
    } catch (error) {
      throw new BundleError(this.path, `the model failed: ${messageOf(error)}`, null, error);
    }
    return Object.fromEntries(outputs.map((name) => [name, Float32Array.from(found[name].data)]));
  }

  async close() {
    await this.#last;
    await this.#session.release();
  }
}
