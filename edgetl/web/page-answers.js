/**
 * How the page shows an answer: label, confidence, and a bar for each of the likeliest classes.
 */

/** @typedef {import("./edgetl.js").Prediction} Prediction */

const BARS = 5;

/** @param {Prediction} prediction @returns {string}  in words, as a screen reader says it */
export function describeAnswer(prediction) {
  const label = `${prediction.label}, ${percent(prediction.confidence)}`;
  return prediction.is_unknown ? `unknown, nearest is ${label}` : label;
}

/**
 * @param {Blob} photo
 * @param {string} name
 * @param {Prediction} prediction
 * @param {number} milliseconds
 */
export function answerCard(photo, name, prediction, milliseconds) {
  const card = element("li", "answer");
  const picture = /** @type {HTMLImageElement} */ (element("img", ""));
  picture.alt = "";
  picture.src = URL.createObjectURL(photo);
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
  const answer = element("div", "");
  showAnswer(answer, prediction);
  const time = element("p", "time", `${milliseconds.toFixed(0)} ms`);
  answer.prepend(element("p", "file", name));
  answer.append(time);
  card.append(picture, answer);
  return card;
}

/** @param {string} name @param {string} reason */
export function failureCard(name, reason) {
  const [card, text] = [element("li", "answer"), element("div", "")];
  text.append(element("p", "file", name), element("p", "label unread", "Not classified"));
  text.append(element("p", "note", reason.charAt(0).toUpperCase() + reason.slice(1)));
  card.append(text);
  return card;
}

/** @param {HTMLElement} place @param {Prediction} prediction */
export function showAnswer(place, prediction) {
  const parts = [];
  if (prediction.is_unknown) {
    parts.push(element("p", "label unknown", "Unknown"));
    parts.push(element("p", "note", "Unlike the photos that the model was trained on. Nearest:"));
  } else {
    parts.push(element("p", "label", prediction.label));
  }
  place.replaceChildren(...parts, bars(prediction));
}

/** @param {Prediction} prediction */
function bars(prediction) {
  const list = element("ul", "bars");
  for (const { label, confidence } of prediction.top(BARS)) {
    const [entry, bar, filled] = [element("li", ""), element("i", ""), element("b", "")];
    filled.style.setProperty("--share", `${100 * confidence}%`);
    bar.append(filled);
    bar.setAttribute("aria-hidden", "true");
    entry.append(element("span", "", label), element("span", "", percent(confidence)), bar);
    list.append(entry);
  }
  return list;
}

/** @param {number} share */
function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** @param {string} tag @param {string} className @param {string} [text] */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
