/* Keeps a copy of the page, the module and the model, so that the page works without a network.
 *
 * An export writes the version below. Another version is another file, by which a browser notices
 * that there is a new one: it fetches all of it before it uses any of it.
 */
const VERSION = "";
const SCOPE = new URL("./", location).href;
const OWN = `edgetl ${SCOPE} `;
const CACHE = OWN + VERSION;

self.addEventListener("install", (event) => {
  event.waitUntil(fill().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(removeOldCopies());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

async function fill() {
  const [manifest, ort] = await Promise.all(["manifest.json", "ort.json"].map(readJson));
  const models = Object.values(manifest.models);
  const unused = new Set(models.filter((name) => name !== defaultModel(manifest.models)));
  const names = Object.keys(manifest.files).filter((name) => !unused.has(name));
  const { base, module, binary } = ort.wasm;
  const urls = new Set(["manifest.json", ...names, base + module, base + binary]);
  const cache = await caches.open(CACHE);
  // The page has just fetched most of them: the browser asks whether they changed since.
  await cache.addAll([...urls].map((url) => new Request(url, { cache: "no-cache" })));
}

async function readJson(url) {
  return (await fetch(url, { cache: "no-cache" })).json();
}

function defaultModel(models) {
  return models.fp32 ?? Object.values(models)[0];
}

async function removeOldCopies() {
  const old = (await caches.keys()).filter((name) => name.startsWith(OWN) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function answer(request) {
  const url = request.url.split(/[?#]/)[0];
  const cache = await caches.open(CACHE);
  const cached = await cache.match(url === SCOPE ? `${SCOPE}index.html` : url);
  if (cached) return cached;
  const response = await fetch(request);
  if (response.ok && url.startsWith(SCOPE) && url.endsWith(".onnx")) {
    await cache.put(url, response.clone()); // of another precision
  }
  return response;
}
