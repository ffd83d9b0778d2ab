/** Reading files: over the network in a browser, from the disk or the network in Node. */

import { BundleError, messageOf } from "./errors.js";

export const IS_NODE = typeof globalThis.process?.versions?.node === "string";

/**
 * The URL of a folder, with a slash at its end.
 *
 * @param {string | URL} folder  a URL; in a browser it may be relative to the page, in Node a path
 */
export async function folderUrl(folder) {
  const text = String(folder).replace(/\/?$/, "/");
  if (/^[a-z][a-z0-9+.-]+:/i.test(text)) return new URL(text); // one letter is a drive of Windows
  if (!IS_NODE) return new URL(text, globalThis.location?.href);
  const { pathToFileURL } = await import("node:url");
  return pathToFileURL(text);
}

/**
 * @param {URL} url
 * @returns {Promise<Uint8Array>}
 * @throws {BundleError} if there is no such file, or it can't be read
 */
export async function readFile(url) {
  try {
    if (url.protocol === "file:" && IS_NODE) {
      const { readFile: read } = await import("node:fs/promises");
      return new Uint8Array(await read(url));
    }
    // Asks the server whether it changed: after an export, one old file among new ones is an error.
    const response = await fetch(url, { cache: "no-cache" });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new BundleError(url.href, `it can't be read (${messageOf(error)})`, null, error);
  }
}
