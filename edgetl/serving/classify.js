"use strict";

const TOP = 5; // labels shown of each photo
const byId = (id) => document.getElementById(id);
const AWAY = "The service can't be reached. Is it still running?";
let token = null; // kept only as long as the page is open

function headers() {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

async function start() {
  let status;
  try {
    const models = Object.keys((await (await fetch("healthz")).json()).models);
    byId("model").replaceChildren(...models.map((name) => new Option(name)));
    byId("which").hidden = models.length < 2;
    ({ status } = await fetch("metrics", { method: "HEAD", headers: headers() }));
  } catch {
    return showProblem(AWAY);
  }
  showProblem(status === 401 && token !== null ? "This is not the service's token." : "");
  byId("login").hidden = status !== 401;
  byId("classify").hidden = status === 401;
  if (status !== 401) return;
  byId("token").focus();
  byId("token").select();
}

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = text === "";
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function row(label, share) {
  const tr = document.createElement("tr");
  const th = tr.appendChild(document.createElement("th"));
  th.scope = "row";
  th.textContent = label;
  const bar = tr.insertCell().appendChild(document.createElement("progress"));
  bar.value = share;
  bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
  const cell = tr.insertCell();
  cell.className = "share";
  cell.textContent = percent(share);
  return tr;
}

function show(file, answer, note) {
  const item = byId("answer").content.cloneNode(true);
  const image = item.querySelector("img");
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => image.remove(); // a format that this browser can't show
  const [heading, reason, found] = described(answer);
  item.querySelector("h2").textContent = heading;
  item.querySelector(".reason").textContent = reason;
  item.querySelector(".reason").hidden = reason === "";
  if (answer.error !== undefined) item.querySelector("li").className = "failed";
  if (answer.unknown) item.querySelector("li").className = "unknown";
  // JavaScript puts labels that are numbers first.
  const best = Object.entries(answer.probabilities ?? {}).sort(([, a], [, b]) => b - a);
  const rows = best.map(([label, share]) => row(label, share));
  item.querySelector("tbody").append(...rows);
  item.querySelector(".note").textContent = [file.name, note].filter(Boolean).join(" · ");
  byId("answers").prepend(item);
  return found;
}

// The heading of an answer, what is below it, and both in words.
function described({ error, label, unknown }) {
  if (error !== undefined) {
    return ["Not classified", error[0].toUpperCase() + error.slice(1), "not classified"];
  }
  if (!unknown) return [label, "", label];
  const reason = "Unlike the photos that the model was trained on. Nearest:";
  return ["Unknown", reason, `unknown, nearest is ${label}`];
}

async function classify(file) {
  const query = new URLSearchParams({ top: TOP, model: byId("model").value });
  const type = { "Content-Type": "application/octet-stream" };
  byId("status").textContent = `Classifying ${file.name} …`;
  try {
    const request = { method: "POST", body: file, headers: { ...headers(), ...type } };
    const response = await fetch(`predict?${query}`, request);
    if (response.status === 401) {
      byId("status").textContent = `${file.name}: not classified`;
      return start();
    }
    const time = /total;dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
    const found = show(file, await response.json(), time && `${Number(time[1]).toFixed(1)} ms`);
    byId("status").textContent = `${file.name}: ${found}`;
  } catch {
    byId("status").textContent = AWAY;
  }
}

async function classifyAll(files) {
  for (const file of files) await classify(file);
}

for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", async (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // the same photo may be chosen again
    await classifyAll(files);
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  classifyAll([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => classifyAll([...event.clipboardData.files]));
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  start();
});
start();
