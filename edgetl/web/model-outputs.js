/** A model with one more output, so that a value inside it can be looked at. */

// Tags of protobuf: a field's number in onnx.proto, and 2 for "has a length".
const GRAPH = (7 << 3) | 2; // of the model
const OUTPUT = (12 << 3) | 2; // of the graph
const NAME = (1 << 3) | 2; // of the output

/**
 * A second graph at the end of the file is merged into the first by every reader of protobuf, and
 * lists are joined: so the output is added without a parser. The runtime infers its type.
 *
 * @param {Uint8Array} model  a serialized ONNX model
 * @param {string} name  of a value in its graph, at most 100 ASCII letters
 * @returns {Uint8Array}
 */
export function withOutput(model, name) {
  const letters = new TextEncoder().encode(name);
  const value = [NAME, letters.length, ...letters];
  const graph = [OUTPUT, value.length, ...value];
  const added = [GRAPH, graph.length, ...graph];
  const result = new Uint8Array(model.length + added.length);
  result.set(model);
  result.set(added, model.length);
  return result;
}
