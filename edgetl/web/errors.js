/**
 * Every error that this module throws on purpose, except TypeError for wrong arguments:
 *
 *     EdgetlError      all errors below; has .message and .hint
 *     ├── ImageError   a photo that can't be read; has .source and .reason
 *     └── BundleError  a folder or model that can't be read or trusted; has .path and .reason
 */

export class EdgetlError extends Error {
  /**
   * @param {string} message  what is wrong, and where
   * @param {string | null} [hint]  what to do next
   * @param {unknown} [cause]
   */
  constructor(message, hint = null, cause = undefined) {
    super(message, { cause });
    this.name = new.target.name;
    this.hint = hint;
  }
}

/** A photo that can't be decoded. */
export class ImageError extends EdgetlError {
  /**
   * @param {string} source  the photo's name, or what kind of object it was
   * @param {string} reason
   * @param {string | null} [hint]
   * @param {unknown} [cause]
   */
  constructor(source, reason, hint = null, cause = undefined) {
    super(`${source}: ${reason}`, hint, cause);
    this.source = source;
    this.reason = reason;
  }
}

/** A folder or a model file that is damaged, incomplete or not written by edgetl. */
export class BundleError extends EdgetlError {
  /**
   * @param {string} path  of the file
   * @param {string} reason
   * @param {string | null} [hint]
   * @param {unknown} [cause]
   */
  constructor(path, reason, hint = null, cause = undefined) {
    super(`${path}: ${reason}`, hint, cause);
    this.path = path;
    this.reason = reason;
  }
}

/** @param {unknown} error  whatever was thrown */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
