"use strict";

const element = (id) => document.getElementById(id);
const percent = (share) => (share > 0.99 ? "over 99 %" : `${Math.round(100 * share)} %`);
const photos = (count) => `${count} ${count === 1 ? "photo" : "photos"}`;

let items = []; // what the server knows: file, label, answer, label_error, state, new_label
let skipped = []; // numbers of items, in the order in which they were skipped
let decided = []; // in this page: numbers of items, in the order in which they were dealt with
let current = null; // the number of the photo that is shown
let upcoming = { index: null, image: null }; // loaded while the photo before it is looked at
let busy = false;

async function start() {
  const state = await (await fetch("state")).json();
  items = state.items;
  element("name").textContent = state.name;
  document.title = `Doubtful labels of ${state.name}`;
  for (const label of state.labels) element("classes").add(new Option(label));
  show();
}

const isOpen = (index) => items[index].state === "open" && !skipped.includes(index);
const next = (after) => items.findIndex((_, index) => index > after && isOpen(index));

function show(index = next(-1)) {
  current = index < 0 ? null : index;
  const done = items.filter((_, number) => !isOpen(number)).length;
  element("count").textContent = `${done} of ${items.length}`;
  element("progress").max = Math.max(items.length, 1);
  element("progress").value = items.length ? done : 1;
  element("review").hidden = current === null;
  element("summary").hidden = current !== null;
  if (current === null) summarize();
  else showPhoto(items[current]);
}

function showPhoto(item) {
  element("photo").replaceWith(upcoming.index === current ? upcoming.image : load(current));
  element("file").textContent = item.file;
  element("label").textContent = item.label;
  element("answer").textContent = item.answer;
  element("wrong").textContent = percent(item.label_error);
  element("move").firstElementChild.textContent = `Move to ${item.answer}`;
  element("keep").firstElementChild.textContent = `Keep ${item.label}`;
  const following = next(current);
  if (following >= 0) upcoming = { index: following, image: load(following) };
}

function load(index) {
  const { file, label } = items[index];
  const alt = `Photo ${index + 1}, labelled ${label}: ${file}`;
  return Object.assign(new Image(), { id: "photo", alt, src: `photos/${index}` });
}

function summarize() {
  const total = (state) => items.filter((item) => item.state === state).length;
  element("heading").textContent = items.length ? "All photos seen" : "No label looks wrong";
  element("totals").replaceChildren(...[
    `${photos(total("moved"))} moved to another class`,
    `${photos(total("kept"))} kept`,
    `${photos(skipped.length)} skipped`,
  ].map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  element("advice").textContent =
    "Ctrl-C in the terminal ends the review, and says how to train on the corrected labels.";
  element("again").hidden = !skipped.length;
  element("heading").focus();
}

async function send(path, body) {
  if (busy) return null;
  busy = true;
  try {
    const response = await fetch(path, { method: "POST", body });
    const text = await response.text();
    if (!response.ok) throw new Error(text);
    element("error").hidden = true;
    return JSON.parse(text);
  } catch (error) {
    fail(error);
    return null;
  } finally {
    busy = false;
  }
}

function fail(error) {
  const ended = error instanceof TypeError; // of fetch: nobody answers
  element("error").textContent = ended ? "The review has ended in the terminal." : error.message;
  element("error").hidden = false;
}

function say(text) {
  element("status").textContent = text;
}

async function decide(action, label) {
  const index = current;
  if (index === null) return;
  const answer = await send(`photos/${index}/${action}`, label);
  if (!answer) return;
  items[index] = answer.item;
  decided.push(index);
  say(action === "keep" ? `Kept as ${answer.item.label}.` : `Moved to ${label}.`);
  show();
}

function skip() {
  if (current === null) return;
  skipped.push(current);
  decided.push(current);
  say("Skipped.");
  show();
}

async function undo() {
  const last = decided.at(-1);
  if (last !== undefined && skipped.includes(last)) {
    skipped = skipped.filter((index) => index !== last);
    decided.pop();
    say("No longer skipped.");
    show(last);
    return;
  }
  const answer = await send("undo");
  if (!answer) return;
  decided.pop();
  if (answer.index === null) {
    say("A decision of an earlier run was taken back.");
    show();
    return;
  }
  items[answer.index] = answer.item;
  say(`Back to ${answer.item.label}.`);
  show(answer.index);
}

function pick() {
  if (current === null) return;
  const { label, answer } = items[current];
  for (const option of element("classes").options) option.disabled = option.value === label;
  element("classes").value = answer;
  element("picker").showModal();
  element("classes").focus();
}

function picked() {
  const label = element("classes").value;
  element("picker").close();
  if (label) decide("move", label);
}

const actions = {
  move: () => current !== null && decide("move", items[current].answer),
  keep: () => decide("keep"),
  other: pick,
  skip,
  undo,
};
for (const [id, action] of Object.entries(actions)) element(id).addEventListener("click", action);
element("undo-last").addEventListener("click", undo);
element("pick").addEventListener("click", picked);
element("cancel").addEventListener("click", () => element("picker").close());
element("classes").addEventListener("dblclick", picked);
element("classes").addEventListener("keydown", (event) => event.key === "Enter" && picked());
element("again").addEventListener("click", () => {
  decided = decided.filter((index) => !skipped.includes(index));
  skipped = [];
  say("");
  show();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (element("picker").open) return;
  const key = CSS.escape(event.key.toLowerCase());
  const button = document.querySelector(`main:not([hidden]) [aria-keyshortcuts="${key}"]`);
  if (!button) return;
  event.preventDefault();
  button.click();
});

start().catch(fail);
