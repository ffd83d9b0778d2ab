/** What a model answers for one photo. */

/** @typedef {{label: string, confidence: number}} Score  a label and its probability, 0..1 */
/**
 * @typedef {object} Outputs  of a model, for one photo
 * @property {Float32Array} logits
 * @property {Float32Array} probabilities
 * @property {Float32Array} [ood_score]
 * @property {Float32Array} [embedding]
 */

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
    /** One for each label. */
    this.logits = outputs.logits;
    /** One for each label, 0..1, sum 1. */
    this.probabilities = outputs.probabilities;
    /** The higher, the less like the training photos; null where the model can't tell. */
    this.ood_score = outputs.ood_score?.[0] ?? null;
    /** The score is above the model's threshold: the label is only the nearest one. */
    this.is_unknown =
      this.ood_score === null || threshold === undefined ? null : this.ood_score > threshold;
    /** The photo's place among the training photos, or null. */
    this.embedding = outputs.embedding ?? null;
  }

  /** Position of the most probable class; of equal ones, the first. */
  get index() {
    return this.probabilities.indexOf(Math.max(...this.probabilities));
  }

  /** Name of the most probable class. */
  get label() {
    return this.labels[this.index];
  }

  /** Probability of the most probable class, 0..1. */
  get confidence() {
    return this.probabilities[this.index];
  }

  /**
   * The most probable classes, best first.
   *
   * @param {number} [count]
   * @returns {Score[]}
   */
  top(count = 5) {
    return this.labels
      .map((label, i) => ({ label, confidence: this.probabilities[i] }))
      .sort((a, b) => b.confidence - a.confidence)
      .slice(0, Math.max(count, 0));
  }
}
