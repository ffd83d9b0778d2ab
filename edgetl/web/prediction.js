/** What a model answers for one photo; edgetl.d.ts describes it. */

/** @typedef {import("./edgetl.js").Prediction} Public */
/**
 * @typedef {object} Outputs  of a model, for one photo
 * @property {Float32Array} logits
 * @property {Float32Array} probabilities
 * @property {Float32Array} [ood_score]
 * @property {Float32Array} [embedding]
 */

/** @implements {Public} */
export class Prediction {
  /**
   * @param {string} source  the photo's name, or what kind of object it was
   * @param {readonly string[]} labels  in the order of the outputs
   * @param {Outputs} outputs
   * @param {number} [threshold]  above this score a photo is unknown
   */
  constructor(source, labels, outputs, threshold) {
    this.source = source;
    this.labels = labels;
    this.logits = outputs.logits;
    this.probabilities = outputs.probabilities;
    this.ood_score = outputs.ood_score?.[0] ?? null;
    this.is_unknown =
      this.ood_score === null || threshold === undefined ? null : this.ood_score > threshold;
    this.embedding = outputs.embedding ?? null;
  }

  get index() {
    return this.probabilities.indexOf(Math.max(...this.probabilities));
  }

  get label() {
    return this.labels[this.index];
  }

  get confidence() {
    return this.probabilities[this.index];
  }

  /** @param {number} [count] */
  top(count = 5) {
    return this.labels
      .map((label, i) => ({ label, confidence: this.probabilities[i] }))
      .sort((a, b) => b.confidence - a.confidence)
      .slice(0, Math.max(count, 0));
  }
}
