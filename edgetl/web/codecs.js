/**
 * The decoders in codecs/codecs.wasm: libjpeg-turbo, libpng and libwebp, whose pixels are those of
 * Pillow. What the browser itself decodes is not: colour profiles are applied, alpha is rounded,
 * and a protection against fingerprints changes pixels without a word.
 */

import { sha256 } from "./checksum.js";
import { BundleError, ImageError, messageOf } from "./errors.js";
import { readFile } from "./files.js";

/** Of codecs/codecs.wasm; scripts/web_codecs keeps it up to date. */
const CODECS_SHA256 = "7ba3e55809cb4c38792a0daac8c69a5b96b2244b4973f1114a70411a270d89fd";

/** An instance that has grown beyond this is dropped: memory of WebAssembly never shrinks. */
const KEPT_MEMORY = 64 * 2 ** 20;

/** Bytes of inflated text that may hold an orientation; Pillow takes as much. */
const MAX_TEXT = 2 ** 20;

/**
 * @typedef {object} Exports  what web_codecs.c exports
 * @property {WebAssembly.Memory} memory
 * @property {(size: number) => number} allocate
 * @property {(bytes: number, size: number) => void} open_picture
 * @property {() => number} width
 * @property {() => number} height
 * @property {() => number} next_row
 * @property {(bytes: number) => void} close_picture
 * @property {(data: number, size: number, target: number, capacity: number) => number} inflate_text
 */

/**
 * @typedef {object} OpenPicture  a file whose header is read
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array[]} exif  chunks of it, in the order of the file
 * @property {Uint8Array[]} xmp
 * @property {(data: Uint8Array) => Uint8Array} inflate  of a text; empty if it is damaged
 * @property {() => Uint8Array} nextRow  RGB, width × 3; valid until the next call
 */

/** What the decoder says of a file. */
class Failure extends Error {}

export class Codecs {
  /** @type {Promise<Codecs> | undefined} */
  static #loaded;

  /**
   * The decoders, loaded once.
   *
   * @throws {BundleError} if their file is missing or damaged
   */
  static load() {
    Codecs.#loaded ??= Codecs.#load().catch((error) => {
      Codecs.#loaded = undefined; // a download may succeed the next time
      throw error;
    });
    return Codecs.#loaded;
  }

  static async #load() {
    const url = new URL("codecs/codecs.wasm", import.meta.url);
    const bytes = await readFile(url);
    if ((await sha256(bytes)) !== CODECS_SHA256) {
      throw new BundleError(url.href, "it is damaged: its SHA-256 is not the module's");
    }
    return new Codecs(await WebAssembly.compile(/** @type {BufferSource} */ (bytes)));
  }

  #module;
  /** @type {Exports | undefined} */
  #instance;
  /** @type {(kind: string, data: Uint8Array) => void} */
  #onMetadata = () => {};

  /** @param {WebAssembly.Module} module */
  constructor(module) {
    this.#module = module;
  }

  /**
   * Decode a JPEG, PNG or WebP file.
   *
   * @template Result
   * @param {Uint8Array} bytes
   * @param {string} name  what errors call the file
   * @param {(picture: OpenPicture) => Result} read  reads the rows
   * @returns {Result}
   * @throws {ImageError} if the file is damaged, or `read` throws one
   */
  decode(bytes, name, read) {
    try {
      const codecs = (this.#instance ??= this.#instantiate());
      const file = copied(codecs, bytes);
      const result = read(this.#open(codecs, file, bytes.length));
      codecs.close_picture(file);
      if (codecs.memory.buffer.byteLength > KEPT_MEMORY) this.#instance = undefined;
      return result;
    } catch (error) {
      this.#instance = undefined; // it was left in the middle of its work
      if (error instanceof ImageError) throw error;
      throw new ImageError(name, reasonOf(error), null, error);
    }
  }

  /**
   * @param {Exports} codecs
   * @param {number} file
   * @param {number} size
   * @returns {OpenPicture}
   */
  #open(codecs, file, size) {
    /** @type {Record<string, Uint8Array[]>} */
    const found = { exif: [], xmp: [] };
    this.#onMetadata = (kind, data) => found[kind].push(data);
    codecs.open_picture(file, size);
    const width = codecs.width() >>> 0;
    return {
      width,
      height: codecs.height() >>> 0,
      exif: found.exif,
      xmp: found.xmp,
      inflate: (data) => inflated(codecs, data),
      nextRow: () => {
        const at = codecs.next_row() >>> 0; // first, since it may replace the buffer
        return new Uint8Array(codecs.memory.buffer, at, 3 * width);
      },
    };
  }

  #instantiate() {
    const view = (/** @type {number} */ at, /** @type {number} */ size) =>
      new Uint8Array(/** @type {Exports} */ (this.#instance).memory.buffer, at >>> 0, size >>> 0);
    const text = (/** @type {number} */ at, /** @type {number} */ size) =>
      new TextDecoder().decode(view(at, size));
    /** @type {(kind: number, data: number, size: number) => void} */
    const metadata = (kind, data, size) => {
      const bytes = view(kind, 8);
      this.#onMetadata(text(kind, bytes.indexOf(0)), view(data, size).slice());
    };
    const env = {
      metadata,
      failed: (/** @type {number} */ at, /** @type {number} */ size) => {
        throw new Failure(text(at, size));
      },
    };
    // Referred to by the C library, never called.
    const files = { fd_close: () => 52, fd_seek: () => 52, fd_write: () => 52 };
    const imports = { env, wasi_snapshot_preview1: files };
    const { exports } = new WebAssembly.Instance(this.#module, imports);
    return /** @type {Exports} */ (/** @type {unknown} */ (exports));
  }
}

/**
 * Copy bytes into the decoders' memory.
 *
 * @param {Exports} codecs
 * @param {Uint8Array} bytes
 */
function copied(codecs, bytes) {
  const at = codecs.allocate(bytes.length) >>> 0;
  new Uint8Array(codecs.memory.buffer, at, bytes.length).set(bytes);
  return at;
}

/**
 * @param {Exports} codecs
 * @param {Uint8Array} data
 */
function inflated(codecs, data) {
  const from = copied(codecs, data);
  const to = codecs.allocate(MAX_TEXT) >>> 0;
  const size = codecs.inflate_text(from, data.length, to, MAX_TEXT);
  return new Uint8Array(codecs.memory.buffer, to, size).slice();
}

/** @param {unknown} error */
function reasonOf(error) {
  if (error instanceof RangeError) return "there is not enough memory to decode it";
  if (!(error instanceof Failure)) return `it can't be decoded (${messageOf(error)})`;
  return /^(it|there) /.test(error.message) ? error.message : `it is damaged (${error.message})`;
}
