/** What programs use of edgetl.js. The module's own files are checked against these types. */

/** The bytes of a JPEG, PNG or WebP file, or pixels: RGBA of which alpha is composited on white. */
export type Source =
  | Blob
  | ArrayBuffer
  | Uint8Array
  | ImageData
  | HTMLVideoElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | VideoFrame;

/** Upright RGB pixels, height × width × 3. */
export interface Picture {
  data: Uint8Array;
  height: number;
  width: number;
}

/** The preprocessing contract, version 1, as the manifest has it. */
export interface Spec {
  version: number;
  resize: "squash" | "shorter_side";
  /** Pixels: [height, width] for "squash", else the shorter side. */
  size: number | [number, number];
  interpolation: "bilinear" | "bicubic";
  /** Centre crop [height, width]. */
  crop: [number, number] | null;
  /** Per channel R, G, B, for pixels scaled to 0..1. */
  mean: [number, number, number];
  std: [number, number, number];
}

export type Precision = "fp32" | "fp16" | "int8";
export type Provider = "wasm" | "webgpu";

/** What is used of the module onnxruntime-web. */
export interface Ort {
  InferenceSession: { create(model: Uint8Array, options: object): Promise<any> };
  Tensor: new (type: "uint8", data: Uint8Array, dims: number[]) => object;
  env: { wasm: object; logLevel?: any };
}

export interface Options {
  /** Which of the folder's models; its default if it is left out. */
  precision?: Precision;
  /** onnxruntime-web, already imported; else the one that the folder's ort.json names. */
  ort?: Ort;
  /** "webgpu" for fp32 only, and only if the golden photos pass on this device. "wasm" if left out. */
  provider?: Provider;
  /**
   * 1 if it is left out; the first predictor decides for all. More need a page that is cross-origin
   * isolated, or in Node the package onnxruntime-web.
   */
  threads?: number;
  /** The largest photo that is decoded, height × width; 100 million if it is left out. */
  maxPixels?: number;
}

/** A label and its probability, 0..1. */
export interface Score {
  label: string;
  confidence: number;
}

/** What a model answers for one photo. */
export interface Prediction {
  /** The photo's name, or what kind of object it was. */
  readonly source: string;
  /** In the order of the outputs. */
  readonly labels: readonly string[];
  /** One for each label. */
  readonly logits: Float32Array;
  /** One for each label, 0..1, sum 1. */
  readonly probabilities: Float32Array;
  /** Position of the most probable class; of equal ones, the first. */
  readonly index: number;
  /** Name of the most probable class. */
  readonly label: string;
  /** Its probability, 0..1. */
  readonly confidence: number;
  /** The higher, the less like the training photos; null where the model can't tell. */
  readonly ood_score: number | null;
  /** The score is above the model's threshold: the label is only the nearest one. */
  readonly is_unknown: boolean | null;
  /** The photo's place among the training photos, or null. */
  readonly embedding: Float32Array | null;
  /** The most probable classes, best first; 5 if `count` is left out. */
  top(count?: number): Score[];
}

/** Every value of one photo on its way to the answer. */
export interface Stages {
  decoded: Picture;
  resized: Picture;
  /** [3, h, w]: the network's input; null: this model has no such value. */
  normalized: Float32Array | null;
  logits: Float32Array;
  probabilities: Float32Array;
  ood_score: number | null;
  embedding: Float32Array | null;
}

export type Stage =
  | "files"
  | "decode"
  | "resized"
  | "logits"
  | "probabilities"
  | "embedding"
  | "ood_score";

/** The result of a golden photo, or of another file that is damaged. */
export interface PhotoResult {
  file: string;
  passed: boolean;
  /** The first one that differs; null: none does. */
  stage: Stage | null;
  detail: string;
  /** Why it did not pass. */
  reason?: string;
}

export interface SelfTest {
  /** Whether every golden photo agrees, and no file is damaged. */
  passed: boolean;
  /** The first stage that failed. */
  stage: Stage | null;
  /** Largest difference of a probability that passes, 0..1. */
  tolerance: number;
  photos: PhotoResult[];
}

export interface Predictor {
  /** Class names in the order of the outputs. */
  readonly labels: readonly string[];
  readonly precision: Precision;
  readonly spec: Spec;
  /** Packages that the model was made with, name → version. */
  readonly versions: Readonly<Record<string, string>>;

  /**
   * Classify one photo.
   *
   * @throws {ImageError} if it is not one whole photo
   * @throws {BundleError} if the model fails
   */
  predict(source: Source): Promise<Prediction>;

  /**
   * Every value of one photo on its way to the answer, to compare with another runtime's.
   *
   * @throws {ImageError} {BundleError} as `predict` does
   */
  stages(source: Source): Promise<Stages>;

  /**
   * Run the golden photos, and compare with the trained model's answers.
   *
   * @throws {BundleError} if there are no golden photos to compare with
   */
  selftest(options?: { progress?: (done: number, total: number) => void }): Promise<SelfTest>;

  /** Free the model's memory. The predictor can't be used afterwards. */
  dispose(): Promise<void>;
}

export const Predictor: {
  /**
   * Load a folder that `edgetl export --web` wrote.
   *
   * @param folder  its URL; in a browser it may be relative to the page, in Node it may be a path
   * @throws {BundleError} if the folder or its model is damaged, or not what was exported
   * @throws {EdgetlError} if onnxruntime-web can't be loaded, or WebGPU gives other answers
   */
  load(folder: string | URL, options?: Options): Promise<Predictor>;
};

/** Every error that the module throws on purpose, except TypeError for wrong arguments. */
export class EdgetlError extends Error {
  constructor(message: string, hint?: string | null, cause?: unknown);
  /** What to do next. */
  hint: string | null;
}

/** A photo that can't be decoded. */
export class ImageError extends EdgetlError {
  constructor(source: string, reason: string, hint?: string | null, cause?: unknown);
  source: string;
  reason: string;
}

/** A folder or a model file that is damaged, incomplete or not written by edgetl. */
export class BundleError extends EdgetlError {
  constructor(path: string, reason: string, hint?: string | null, cause?: unknown);
  path: string;
  reason: string;
}
