/**
 * edgetl in a browser and in Node: a photo in, the trained model's answer out.
 *
 *     import { Predictor } from "./edgetl.js";
 *     const predictor = await Predictor.load(".");
 *     const prediction = await predictor.predict(photo);  // a Blob, bytes, a canvas, a video …
 *     console.log(prediction.label, prediction.confidence);
 */

import { Predictor as Implementation } from "./predictor.js";

export { BundleError, EdgetlError, ImageError } from "./errors.js";

/** @type {typeof import("./edgetl.js").Predictor} */
export const Predictor = Implementation;
