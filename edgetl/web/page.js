/**
 * The page: photos that are chosen, dropped, pasted or taken, and what the model says of them.
 */

import { EdgetlError, ImageError, Predictor } from "./edgetl.js";
import { answerCard, describeAnswer, failureCard, showAnswer } from "./page-answers.js";
import { startCamera } from "./page-camera.js";

const MOST_ANSWERS = 200; // on the page; older ones go, with their pictures
const NEWER = "There is a newer version of this model: reload the page.";

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));

let isOld = false; // whether a newer version has come since the page was opened
noticeNewer(); // before anything is fetched: the browser looks for it by itself, too
const loading = start();
loading.catch((error) => showError("The model can't be loaded.", error));
takePhotos(loading);

async function start() {
  /** @type {any} */ // an unknown one is refused with a list of those that there are
  const precision = new URLSearchParams(location.search).get("precision") ?? undefined;
  const [manifest, ort] = await Promise.all(["manifest.json", "ort.json"].map(readJson));
  byId("name").textContent = document.title = manifest.name;
  byId("labels").textContent = listed(manifest.card.labels);
  const began = performance.now();
  const threads = isOwn(ort) && globalThis.crossOriginIsolated ? processors() : 1;
  const predictor = await Predictor.load("./", { precision, threads });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  setStatus(isOld ? NEWER : `Ready, loaded in ${seconds} s`);
  byId("about").replaceChildren(...aboutEntries(manifest, ort, predictor));
  useCamera(predictor);
  offerSelfTest(predictor, manifest);
  keepForOffline();
  return predictor;
}

/** @param {string} name */
async function readJson(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} can't be read: ${response.status}`);
  return response.json();
}

/** @param {any} ort */
function isOwn(ort) {
  return new URL(ort.wasm.base, location.href).host === location.host;
}

/** As many as a network of this size makes use of. */
function processors() {
  return Math.min(navigator.hardwareConcurrency ?? 1, 4);
}

/** @param {string[]} labels */
function listed(labels) {
  const most = 12;
  const more = labels.length > most ? ` … and ${labels.length - most} more` : "";
  return `Tells apart: ${labels.slice(0, most).join(", ")}${more}`;
}

/** @param {string} text */
function setStatus(text) {
  byId("status").textContent = text;
}

/** @param {string} what @param {unknown} error */
function showError(what, error) {
  const known = error instanceof EdgetlError;
  const hint = known && error.hint ? `\n${error.hint}` : "";
  byId("error").textContent = `${what}\n${error instanceof Error ? error.message : error}${hint}`;
  byId("error").hidden = false;
  setStatus(what);
}

/** @param {Promise<Predictor>} loading  photos that come earlier wait for it */
function takePhotos(loading) {
  /** One photo after the other, in the order in which they came. @type {Promise<unknown>} */
  let turn = loading;
  /** @param {Iterable<File>} files */
  const add = (files) => {
    for (const file of files) {
      turn = turn.then(async () => classify(await loading, file, file.name, file));
      turn.catch(() => {}); // that the model can't be loaded stands on the page already
    }
  };
  for (const id of ["files", "snapshot"]) {
    const input = /** @type {HTMLInputElement} */ (byId(id));
    loading.then(() => (input.disabled = false)).catch(() => {});
    input.addEventListener("change", () => {
      add([...(input.files ?? [])]);
      input.value = ""; // so that the same photo can be chosen again
    });
  }
  document.addEventListener("paste", (event) => add(event.clipboardData?.files ?? []));
  acceptDrops(add);
  byId("clear").addEventListener("click", () => {
    byId("answers").replaceChildren();
    byId("results").hidden = true;
    byId("files").focus();
  });
}

/** @param {(files: Iterable<File>) => void} add */
function acceptDrops(add) {
  const shade = byId("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    shade.hidden = !event.dataTransfer?.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) shade.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    shade.hidden = true;
    add(event.dataTransfer?.files ?? []);
  });
}

/**
 * @param {Predictor} predictor
 * @param {Blob | HTMLCanvasElement} photo
 * @param {string} name
 * @param {Blob} shown  the photo as a file, for the page
 */
async function classify(predictor, photo, name, shown) {
  setStatus(`Classifying ${name} …`);
  const began = performance.now();
  try {
    const prediction = await predictor.predict(photo);
    addCard(answerCard(shown, name, prediction, performance.now() - began));
    setStatus(`${name}: ${describeAnswer(prediction)}`);
  } catch (error) {
    addCard(failureCard(name, reasonOf(error)));
    setStatus(`${name}: not classified`);
  }
}

/** @param {unknown} error  @returns {string}  without the photo's name, which stands above it */
function reasonOf(error) {
  if (error instanceof ImageError) {
    return error.hint === null ? error.reason : `${error.reason}. ${error.hint}`;
  }
  return error instanceof Error ? error.message : String(error);
}

/** @param {HTMLElement} card */
function addCard(card) {
  const list = byId("answers");
  list.prepend(card);
  while (list.childElementCount > MOST_ANSWERS) list.lastElementChild?.remove();
  byId("results").hidden = false;
}

/** @param {Predictor} predictor */
function useCamera(predictor) {
  const button = /** @type {HTMLButtonElement} */ (byId("camera"));
  if (!navigator.mediaDevices) {
    // Without https, a page gets no camera; a phone still takes a photo for a file input.
    button.hidden = true;
    byId("snapshot-label").hidden = false;
    return;
  }
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await startCamera({
        section: byId("live"),
        video: byId("video"),
        take: byId("take"),
        stop: byId("stop"),
        onFrame: async (video) => showAnswer(byId("live-answer"), await predictor.predict(video)),
        // The canvas itself is classified: the module notices where it may not be read exactly.
        onPicture: async (canvas) => classify(predictor, canvas, "Camera", await asFile(canvas)),
      });
    } catch (error) {
      showError("The camera can't be used.", error);
    }
    button.disabled = false;
    button.focus();
  });
}

/** @param {HTMLCanvasElement} canvas @returns {Promise<Blob>} */
function asFile(canvas) {
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? new Blob())));
}

/**
 * @param {Predictor} predictor
 * @param {any} manifest
 */
function offerSelfTest(predictor, manifest) {
  const button = /** @type {HTMLButtonElement} */ (byId("selftest"));
  const [verdict, failures] = [byId("verdict"), byId("failures")];
  if (manifest.golden.length === 0) {
    verdict.textContent = "This model came without photos to test with.";
    return;
  }
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    failures.hidden = true;
    verdict.className = "";
    verdict.textContent = "Testing …";
    try {
      const result = await predictor.selftest();
      const failed = result.photos.filter((photo) => !photo.passed);
      verdict.className = result.passed ? "passed" : "failed";
      verdict.textContent = result.passed
        ? `Passed: ${result.photos.length} photos give the trained network's answers.`
        : "Failed: don't trust the answers of this page in this browser.";
      failures.replaceChildren(...failed.map(failureEntry));
      failures.hidden = failed.length === 0;
    } catch (error) {
      verdict.className = "failed";
      verdict.textContent = `Failed: ${reasonOf(error)}`;
    }
    button.disabled = false;
    button.textContent = "Run it again";
  });
}

/** @param {{ file: string, reason?: string }} photo */
function failureEntry(photo) {
  const entry = document.createElement("li");
  entry.textContent = `${photo.file}: ${photo.reason}`;
  return entry;
}

/**
 * @param {any} manifest
 * @param {any} ort
 * @param {Predictor} predictor
 */
function aboutEntries(manifest, ort, predictor) {
  const { host } = new URL(ort.wasm.base, location.href);
  const source = isOwn(ort)
    ? "from this server"
    : `from ${host}, only if its checksum is the pinned one`;
  const others = Object.keys(manifest.models).filter((name) => name !== predictor.precision);
  const entries = [
    ["Model", `${manifest.name}, ${manifest.card.backbone}`],
    ["Precision", predictor.precision],
    ["Exported", `${manifest.created.slice(0, 10)} by edgetl ${manifest.versions.edgetl}`],
    ["Runs with", `${ort.package} ${ort.version}, ${source}`],
  ];
  const parts = entries.flatMap(([term, text]) => described(term, text));
  return others.length === 0 ? parts : [...parts, ...described("Also as", links(others))];
}

/** @param {string[]} precisions */
function links(precisions) {
  const list = document.createElement("span");
  for (const precision of precisions) {
    const link = document.createElement("a");
    link.href = `?precision=${precision}`;
    link.textContent = precision;
    list.append(list.childNodes.length ? " · " : "", link);
  }
  return list;
}

/** @param {string} term @param {string | Node} text */
function described(term, text) {
  const [name, value] = [document.createElement("dt"), document.createElement("dd")];
  name.append(term);
  value.append(text);
  return [name, value];
}

/** Say so when a page that was kept for offline is no longer the newest. */
function noticeNewer() {
  const workers = navigator.serviceWorker;
  if (!workers?.controller) return;
  workers.addEventListener("controllerchange", () => {
    isOld = true;
    setStatus(NEWER);
  });
}

/** Let the page work without a network from the next visit on, where the browser allows that. */
async function keepForOffline() {
  const workers = navigator.serviceWorker; // only with https, or on this machine
  await workers?.register("service-worker.js").catch(() => {}); // as in a private window
}
