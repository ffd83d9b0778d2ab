/**
 * edgetl in a browser and in Node: a photo in, the trained model's answer out.
 *
 *     import { Predictor } from "./edgetl.js";
 *     const predictor = await Predictor.load(".");
 *     const prediction = await predictor.predict(photo);  // a Blob, bytes, a canvas, a video …
 *     console.log(prediction.label, prediction.confidence);
 */

export { BundleError, EdgetlError, ImageError } from "./errors.js";
export { Prediction } from "./prediction.js";
export { Predictor } from "./predictor.js";
