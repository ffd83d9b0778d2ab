/** SHA-256: the browser's own where it has one, which is on https and localhost only. */

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<string>}  64 hexadecimal digits
 */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  const digest = subtle
    ? new Uint8Array(await subtle.digest("SHA-256", /** @type {BufferSource} */ (bytes)))
    : sha256InJavaScript(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Fractional bits of square and cube roots of the first primes, as FIPS 180-4 defines them. */
const { STATE, ROUNDS } = (() => {
  const fraction = (/** @type {number} */ x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  /** @type {number[]} */
  const primes = [];
  for (let n = 2; primes.length < 64; n++) {
    if (primes.every((prime) => n % prime)) primes.push(n);
  }
  return {
    STATE: primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime))),
    ROUNDS: Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime))),
  };
})();

/** @param {Uint8Array} bytes */
export function sha256InJavaScript(bytes) {
  const state = Int32Array.from(STATE);
  const words = new Int32Array(64);
  const whole = bytes.length - (bytes.length % 64);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < whole; at += 64) compress(state, words, view, at);

  const rest = bytes.length - whole;
  const padding = new Uint8Array(rest < 56 ? 64 : 128);
  padding.set(bytes.subarray(whole));
  padding[rest] = 0x80;
  const end = new DataView(padding.buffer);
  end.setUint32(padding.length - 8, Math.floor(bytes.length / 2 ** 29));
  end.setUint32(padding.length - 4, bytes.length << 3);
  for (let at = 0; at < padding.length; at += 64) compress(state, words, end, at);

  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setInt32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

/**
 * @param {Int32Array} state  8 words, updated
 * @param {Int32Array} words  64 words of scratch
 * @param {DataView} block
 * @param {number} at  where the 64 bytes of the block start
 */
function compress(state, words, block, at) {
  for (let i = 0; i < 16; i++) words[i] = block.getInt32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const x = words[i - 15];
    const y = words[i - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    words[i] = (words[i - 16] + s0 + words[i - 7] + s1) | 0;
  }
  let a = state[0];
  let b = state[1];
  let c = state[2];
  let d = state[3];
  let e = state[4];
  let f = state[5];
  let g = state[6];
  let h = state[7];
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}
