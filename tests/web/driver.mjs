// Does what a list of requests says, in order, and prints a list of results as JSON.
//   node driver.mjs FOLDER < requests.json     FOLDER holds the module
// Each request names what to do and its arguments; an error becomes {error: {name, message}}.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(`${process.argv[2]}/`);
const load = (name) => import(new URL(name, folder).href);
const { decode } = await load("decode.js");
const { sha256, sha256InJavaScript } = await load("checksum.js");
const { resize } = await load("resize.js");
const { Predictor } = await load("edgetl.js");
const predictors = [];

const summary = ({ data, height, width }) => ({
  sha256: createHash("sha256").update(data).digest("hex"),
  height,
  width,
});
const values = (stages) =>
  Object.fromEntries(
    Object.entries(stages).map(([name, value]) => [
      name,
      value?.data ? summary(value) : ArrayBuffer.isView(value) ? [...value] : value,
    ]),
  );
const bytes = (file) => new Uint8Array(readFileSync(file));

async function pretendedOrt({ module, error }) {
  const ort = await import(module);
  const create = async (model) => {
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    const run = async (...input) => {
      const { logits, ...others } = await session.run(...input);
      return { ...others, logits: { data: logits.data.map((value) => value + error) } };
    };
    const { inputNames, outputNames } = session;
    return { inputNames, outputNames, run, release: () => session.release() };
  };
  return { Tensor: ort.Tensor, env: ort.env, InferenceSession: { create } };
}

const actions = {
  decode: async ({ file, maxPixels }) => summary(await decode(bytes(file), maxPixels)),
  checksums: async ({ file }) => [
    await sha256(bytes(file)),
    Buffer.from(sha256InJavaScript(bytes(file))).toString("hex"),
  ],
  pixels: async ({ file, width, height }) =>
    summary(await decode({ data: bytes(file), width, height })),
  // The same files many times; tells by how many MiB the memory grew after the first fifth.
  many: async ({ files, rounds }) => {
    let errors = 0;
    const decodeAll = async (times) => {
      for (let round = 0; round < times; round++) {
        for (const file of files) await decode(bytes(file)).catch(() => errors++);
      }
      globalThis.gc();
      return process.memoryUsage().rss / 2 ** 20;
    };
    const before = await decodeAll(rounds / 5);
    const after = await decodeAll((rounds * 4) / 5);
    return { errors, grown: after - before };
  },
  resize: async ({ file, width, height, spec, maxPixels }) => {
    const found = resize({ data: bytes(file), width, height }, spec, "photo", maxPixels);
    return { height: found.height, width: found.width, data: [...found.data] };
  },
  // `pretended`: a runtime with this error in its logits, which takes any provider.
  load: async ({ folder, options, pretended }) => {
    const ort = pretended && (await pretendedOrt(pretended));
    const predictor = await Predictor.load(folder, { ...options, ...(ort && { ort }) });
    predictors.push(predictor);
    const { labels, precision, spec, versions } = predictor;
    return { labels, precision, spec, versions };
  },
  predict: async ({ file, top }) => {
    const found = await predictors.at(-1).predict(bytes(file));
    const { label, confidence, index, ood_score, is_unknown, source } = found;
    const { logits, probabilities, embedding } = values(found);
    const best = found.top(top);
    return {
      ...{ label, confidence, index, ood_score, is_unknown, source },
      ...{ logits, probabilities, embedding, top: best },
    };
  },
  stages: async ({ file }) => values(await predictors.at(-1).stages(bytes(file))),
  selftest: async () => {
    const steps = [];
    const progress = (...step) => steps.push(step);
    return { ...(await predictors.at(-1).selftest({ progress })), steps };
  },
  together: async ({ files }) =>
    Promise.all(files.map(async (file) => (await predictors.at(-1).predict(bytes(file))).label)),
  dispose: async () => predictors.pop().dispose(),
};

const results = [];
for (const { do: action, ...options } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    results.push((await actions[action](options)) ?? null);
  } catch (error) {
    const { name, message, hint } = error;
    results.push({ error: { name, message, hint: hint ?? null } });
  }
}
console.log(JSON.stringify(results));
