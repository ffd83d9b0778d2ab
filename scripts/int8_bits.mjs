// The logits of scripts/int8_bits in WebAssembly: node int8_bits.mjs FOLDER NAME
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, name] = process.argv.slice(2);
const ort = createRequire(join(process.env.EDGETL_NODE_MODULES, "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(join(folder, "model.onnx")), {
  executionProviders: ["wasm"],
});
const file = readFileSync(join(folder, "pixels.npy"));
const start = 10 + file.readUInt16LE(8); // behind numpy's header
const header = file.subarray(10, start).toString();
const shape = header.match(/\(([^)]*)\)/)[1].split(",").map(Number);
const size = shape[1] * shape[2] * shape[3];
const logits = [];
for (let i = 0; i < shape[0]; i++) {
  const pixels = new Uint8Array(file.subarray(start + i * size, start + (i + 1) * size));
  const resized = new ort.Tensor("uint8", pixels, [1, ...shape.slice(1)]);
  const answer = await session.run({ resized }, ["logits"]);
  logits.push(Buffer.from(new Float32Array(answer.logits.data).buffer));
}
writeFileSync(join(folder, `${name}.logits`), Buffer.concat(logits));
console.log(`${name}: done with onnxruntime-web ${ort.env.versions.web}`);
