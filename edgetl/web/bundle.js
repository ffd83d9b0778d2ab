/** The folder that `edgetl export --web` writes: its manifest and its files, each verified. */

import { sha256 } from "./checksum.js";
import { BundleError, messageOf } from "./errors.js";
import { folderUrl, readFile } from "./files.js";
import { checkedSpec } from "./resize.js";

/** @typedef {import("./edgetl.js").Precision} Precision */
/** @typedef {import("./edgetl.js").Spec} Spec */
/**
 * @typedef {object} Answer  a model's values for one photo
 * @property {number[]} logits
 * @property {number[]} probabilities
 * @property {number} [ood_score]
 * @property {number[]} [embedding]
 */
/**
 * @typedef {object} GoldenValues
 * @property {string} file
 * @property {string} decoded_sha256
 * @property {string} resized_sha256
 * @property {Record<string, Answer>} [own_answers]  by precision
 *
 * @typedef {GoldenValues & Answer} Golden  a photo, and the trained model's answer for it
 */
/**
 * @typedef {object} Card  the trained classifier's description
 * @property {string[]} labels
 * @property {Spec} spec
 * @property {number} temperature
 * @property {{threshold: number, sensitivity: number}} [unknown]
 */
/**
 * @typedef {object} Manifest
 * @property {number} schema
 * @property {Card} card
 * @property {Record<string, string>} models  precision → file
 * @property {Record<string, {sha256: string, bytes: number}>} files
 * @property {Golden[]} golden
 * @property {Record<string, {portable_bits?: boolean}>} [precisions]
 * @property {Record<string, string>} versions
 */

const MANIFEST = "manifest.json";
const SCHEMAS = [1, 2];
const DEFAULT_PRECISION = "fp32";
const REEXPORT = "Export it again with `edgetl export --web`, or copy the folder again.";
const OWN_CHECKSUM = /\n "sha256": "([0-9a-f]{64})",?(?=\n)/;

export class Bundle {
  /** Names of files whose content was verified. @type {Set<string>} */
  #verified = new Set();

  /**
   * @param {URL} url  of the folder
   * @param {Manifest} manifest
   */
  constructor(url, manifest) {
    this.url = url;
    this.manifest = manifest;
  }

  /**
   * @param {string | URL} folder
   * @returns {Promise<Bundle>}
   * @throws {BundleError} if the manifest is missing, damaged, changed or of a later schema
   */
  static async open(folder) {
    const url = await folderUrl(folder);
    const file = new URL(MANIFEST, url);
    const bytes = await readFile(file);
    let manifest;
    const text = new TextDecoder().decode(bytes);
    try {
      manifest = JSON.parse(text);
    } catch (error) {
      const reason = `it is damaged: not the JSON that was written (${messageOf(error)})`;
      throw new BundleError(file.href, reason, REEXPORT, error);
    }
    if (!SCHEMAS.includes(manifest?.schema)) {
      const known = SCHEMAS.join(" and ");
      const reason = `its schema is ${manifest?.schema}; this module reads ${known}`;
      throw new BundleError(file.href, reason, REEXPORT);
    }
    const bare = new TextEncoder().encode(text.replace(OWN_CHECKSUM, ""));
    if (OWN_CHECKSUM.exec(text)?.[1] !== (await sha256(bare))) {
      throw new BundleError(file.href, "it was changed after the export", REEXPORT);
    }
    checkedSpec(manifest.card.spec, file.href);
    return new Bundle(url, manifest);
  }

  /** Of the models, the default first. */
  get precisions() {
    const names = /** @type {Precision[]} */ (Object.keys(this.manifest.models).sort());
    return names.sort((a, b) => Number(b === DEFAULT_PRECISION) - Number(a === DEFAULT_PRECISION));
  }

  /** @param {string} name  of a file in the folder */
  file(name) {
    return new URL(name.split("/").map(encodeURIComponent).join("/"), this.url);
  }

  /**
   * The name of the model's file.
   *
   * @param {Precision} precision
   * @throws {BundleError} if there is none of this precision
   */
  modelName(precision) {
    if (!this.precisions.includes(precision)) {
      const hint = `It holds: ${this.precisions.join(", ")}.`;
      throw new BundleError(this.url.href, `it holds no ${precision} model`, hint);
    }
    return this.manifest.models[precision];
  }

  /**
   * The content of a file, verified against the manifest.
   *
   * @param {string} name
   * @throws {BundleError} if it is missing or damaged
   */
  async read(name) {
    const expected = this.manifest.files[name];
    const url = this.file(name);
    if (!expected) throw new BundleError(url.href, "the manifest does not name it", REEXPORT);
    const bytes = await readFile(url);
    if (bytes.length !== expected.bytes) {
      const reason = `it has ${bytes.length} bytes and should have ${expected.bytes}`;
      throw new BundleError(url.href, reason, REEXPORT);
    }
    if ((await sha256(bytes)) !== expected.sha256) {
      throw new BundleError(url.href, "it is damaged: its SHA-256 is not the manifest's", REEXPORT);
    }
    this.#verified.add(name);
    return bytes;
  }

  /**
   * Files that were not verified yet, without the models, which are when they are loaded.
   *
   * @returns {string[]}
   */
  get unverified() {
    const models = Object.values(this.manifest.models);
    return Object.keys(this.manifest.files).filter(
      (name) => !this.#verified.has(name) && !models.includes(name),
    );
  }
}
