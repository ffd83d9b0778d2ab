// Answers photos with their stages, as stage_stream.py says: on a page through its server, in Node
// through stdin and stdout.
//   node web_module.mjs WEB_FOLDER PRECISION

const encoder = new TextEncoder();

/** The answer for one photo's bytes: a list of Uint8Arrays. */
async function answer(module, predictor, content) {
  try {
    return encode(await predictor.stages(content));
  } catch (error) {
    if (error instanceof module.ImageError) return [line("refused", error.reason)];
    return [line("failed", error)];
  }
}

function line(word, reason) {
  return encoder.encode(`${word} ${String(reason).replace(/\s+/g, " ")}\n`);
}

function encode(stages) {
  const parts = [];
  const add = (name, data, shape) => {
    if (data === null || data === undefined) return;
    const values = typeof data === "number" ? new Float32Array([data]) : data;
    const kind = values instanceof Float32Array ? "float32" : "uint8";
    parts.push(encoder.encode([name, kind, ...shape].join(" ") + "\n"));
    parts.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  };
  const { decoded, resized } = stages;
  for (const [name, image] of Object.entries({ decoded, resized }))
    add(name, image.data, [image.height, image.width, 3]);
  add("normalized", stages.normalized, [3, resized.height, resized.width]);
  for (const name of ["logits", "probabilities", "embedding"])
    add(name, stages[name], [stages[name]?.length]);
  add("ood_score", stages.ood_score, []);
  return parts;
}

/** Without a module that works, every photo is answered with why. */
async function open(moduleUrl, folder, precision) {
  try {
    const module = await import(moduleUrl);
    const predictor = await module.Predictor.load(folder, { precision, threads: 1 });
    return (content) => answer(module, predictor, content);
  } catch (error) {
    return () => [line("failed", error)];
  }
}

async function servePage() {
  const precision = new URL(import.meta.url).searchParams.get("precision");
  const reply = await open(new URL("edgetl.js", import.meta.url).href, "./", precision);
  for (;;) {
    const job = await fetch("job");
    if (job.status === 204) continue; // none yet
    const body = new Blob(await reply(new Uint8Array(await job.arrayBuffer())));
    await fetch("answer", { method: "POST", body });
  }
}

async function servePipe(folder, precision) {
  const { pathToFileURL } = await import("node:url");
  const url = pathToFileURL(folder + "/");
  const reply = await open(new URL("edgetl.js", url).href, url.href, precision);
  let pending = Buffer.alloc(0);
  for await (const part of process.stdin) {
    pending = Buffer.concat([pending, part]);
    while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32LE(0)) {
      const size = pending.readUInt32LE(0);
      const parts = await reply(new Uint8Array(pending.subarray(4, 4 + size)));
      pending = pending.subarray(4 + size);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(parts.reduce((sum, one) => sum + one.length, 0));
      for (const one of [length, ...parts]) process.stdout.write(one);
    }
  }
}

if (typeof process === "undefined") await servePage();
else await servePipe(process.argv[2], process.argv[3]);
