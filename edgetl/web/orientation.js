/** How a photo must be turned to be upright, read from EXIF and XMP as Pillow reads them. */

/** @typedef {import("./codecs.js").OpenPicture} OpenPicture */

const latin1 = new TextDecoder("latin1");

/** Bytes of one value of each EXIF type; 0: there is no such type. */
const SIZES = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8];
const WHOLE_NUMBERS = new Set([3, 4, 6, 8, 9, 13]);
const ORIENTATION = 0x0112;
const TIFF_HEADERS = ["MM\0*", "II*\0", "MM*\0", "II\0*"];
const EXIF_PREFIX = "Exif\0\0";

/**
 * @param {Uint8Array} file  the whole file
 * @param {OpenPicture} picture
 * @returns {number}  1 to 8, as EXIF has it; 1 where nothing is known
 */
export function orientation(file, picture) {
  const { exif, xmp } = file[0] === 0x89 ? pngMetadata(file, picture) : picture;
  return exifOrientation(joined(exif)) || xmpOrientation(xmp.at(-1)) || 1;
}

/**
 * EXIF that is longer than one marker goes on in the next, with the prefix again.
 *
 * @param {Uint8Array[]} chunks
 */
function joined(chunks) {
  const parts = chunks.map((chunk, i) => (i ? chunk.subarray(EXIF_PREFIX.length) : chunk));
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * @param {Uint8Array} data  a TIFF structure
 * @returns {number}  1 to 8; 0 if it says nothing
 */
function exifOrientation(data) {
  for (let i = 0; i < 2 && startsWith(data, EXIF_PREFIX); i++) data = data.subarray(6);
  if (!data.length) return 0;
  if (data.length < 8 || !TIFF_HEADERS.some((header) => startsWith(data, header))) return 1;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const little = !startsWith(data, "MM");
  let at = view.getUint32(4, little);
  if (at + 2 > data.length) return 0;
  let count = view.getUint16(at, little);
  let needed = 0;
  for (at += 2; count-- && at + 12 <= data.length; at += 12) {
    const type = view.getUint16(at + 2, little);
    const unit = SIZES[type] ?? 0;
    const size = view.getUint32(at + 4, little) * unit;
    if (!size) continue;
    let value = at + 8;
    if (size > 4) {
      needed += size;
      if (needed > data.length) continue;
      value = view.getUint32(at + 8, little);
      if (value + size > data.length) return 0; // Pillow stops reading here
    }
    if (view.getUint16(at, little) !== ORIENTATION) continue;
    if (!WHOLE_NUMBERS.has(type) || size !== unit) return 1;
    const found = wholeNumber(view, value, unit, little);
    return found >= 1 && found <= 8 ? found : 1;
  }
  return 0;
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {number} size  bytes: 1, 2 or 4
 * @param {boolean} little
 */
function wholeNumber(view, at, size, little) {
  if (size === 1) return view.getUint8(at);
  return size === 2 ? view.getUint16(at, little) : view.getUint32(at, little);
}

/** @param {Uint8Array | undefined} xmp */
function xmpOrientation(xmp) {
  const found = xmp && /tiff:Orientation(?:="|>)([0-9])/.exec(latin1.decode(xmp));
  return found ? Number(found[1]) : 0;
}

/**
 * Of several texts the last one counts, and only that one is inflated: a small file may hold
 * thousands that are large.
 *
 * @param {Uint8Array} file
 * @param {OpenPicture} picture
 */
function pngMetadata(file, picture) {
  /** @type {Uint8Array | undefined} */
  let exif;
  let profile = () => new Uint8Array();
  /** @type {(() => Uint8Array) | undefined} */
  let xmp;
  for (const { type, data } of pngChunks(file)) {
    const key = latin1.decode(data.subarray(0, 24)).split("\0")[0];
    const rest = data.subarray(key.length + 1);
    if (type === "eXIf") {
      exif = data;
    } else if (key === "Raw profile type exif" && (type === "tEXt" || type === "zTXt")) {
      profile = () => rawProfile(type === "tEXt" ? rest : picture.inflate(rest.subarray(1)));
    } else if (key === "XML:com.adobe.xmp" && type === "iTXt" && rest.length > 2) {
      const text = afterNull(afterNull(rest.subarray(2))); // language and translated key
      xmp = () => (rest[0] ? picture.inflate(text) : text);
    }
  }
  return { exif: [exif ?? profile()], xmp: xmp ? [xmp()] : [] };
}

/** @param {Uint8Array} file */
function* pngChunks(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  for (let at = 8; at + 12 <= file.length; ) {
    const size = view.getUint32(at);
    const type = latin1.decode(file.subarray(at + 4, at + 8));
    yield { type, data: file.subarray(at + 8, at + 8 + size) };
    at += 12 + size;
  }
}

/** @param {Uint8Array} bytes */
function afterNull(bytes) {
  return bytes.subarray(bytes.indexOf(0) + 1);
}

/**
 * EXIF as ImageMagick keeps it in a text: three lines, then hexadecimal digits.
 *
 * @param {Uint8Array} text
 */
function rawProfile(text) {
  const digits = latin1.decode(text).split("\n").slice(3).join("").replace(/[^0-9a-f]/gi, "");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/**
 * @param {Uint8Array} data
 * @param {string} prefix  of Latin-1 letters
 */
export function startsWith(data, prefix) {
  for (let i = 0; i < prefix.length; i++) if (data[i] !== prefix.charCodeAt(i)) return false;
  return true;
}
