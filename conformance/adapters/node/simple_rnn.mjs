// Plain recurrent networks in JavaScript, to be checked by rnnzoo: see conformance/PROTOCOL.md.
// Node 20, standard modules only. Every operation is rounded to the model's precision.

import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

const INTRODUCTION = { name: "simple_rnn.mjs", version: "1", language: "JavaScript" };
const DECLARATION = {
  dtypes: ["float32", "float64"],
  cells: ["rnn"],
  variants: ["simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn"],
  nonlinearities: ["tanh", "relu", "sigmoid", "identity"],
  biases: ["none", "single", "double"],
  merges: ["concat", "sum", "average", "multiply"],
  heads: [],
  parts: [],
  takes: ["lengths", "mask", "initial_state"],
  gives: ["results"],
};

// --- safetensors: the header's size, the header in JSON, then the numbers ---

const ARRAYS = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array, BOOL: Uint8Array };

function readArrays(path) {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(bytes.toString("utf8", 8, start));
  const arrays = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    const [from, to] = data_offsets.map((offset) => start + offset);
    // Copied, as an array of numbers has to begin at a multiple of their size.
    arrays[name] = { shape, data: new ARRAYS[dtype](new Uint8Array(bytes.subarray(from, to)).buffer) };
  }
  return arrays;
}

function writeArrays(path, dtype, arrays) {
  const header = {};
  let offset = 0;
  for (const [name, { shape, data }] of Object.entries(arrays)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  const numbers = Object.values(arrays).map(({ data }) => new Uint8Array(data.buffer));
  writeFileSync(path, Buffer.concat([size, text, ...numbers]));
}

// --- the network; a vector is a typed array, which rounds what is stored in it ---

const NONLINEARITIES = {
  tanh: (a) => Math.tanh(a),
  relu: (a) => Math.max(a, 0),
  sigmoid: (a, round) => 1 / round(1 + round(Math.exp(-a))),
  identity: (a) => a,
};
const MERGES = {
  sum: (y, z) => y + z,
  average: (y, z, round) => round(y + z) / 2,
  multiply: (y, z) => y * z,
};

/** Row i of a matrix times a vector, plus an entry of a bias where there is one. */
function affine(matrix, bias, i, x, round) {
  let sum = 0;
  for (let j = 0; j < x.length; j++) sum = round(sum + round(matrix[i * x.length + j] * x[j]));
  return bias ? round(sum + bias[i]) : sum;
}

/** h' = f(p + q), p = W_x x + b of the input, q = W_h h of the state. */
function step(x, h, weights, f, round) {
  return h.map((_, i) => {
    const p = affine(weights.input_weight, weights.bias ?? weights.input_bias, i, x, round);
    const q = affine(weights.recurrent_weight, weights.recurrent_bias, i, h, round);
    return f(round(p + q), round);
  });
}

/** One direction over the steps of a row; an invalid step outputs 0 and keeps the state. */
function direction(steps, valid, backward, state, weights, f, round) {
  const outputs = steps.map(() => new state.constructor(state.length));
  const times = backward ? [...steps.keys()].reverse() : [...steps.keys()];
  for (const t of times.filter((t) => valid[t])) outputs[t] = state = step(steps[t], state, weights, f, round);
  return { outputs, state };
}

function merged(y, z, merge, round) {
  if (merge === "concat") return y.constructor.of(...y, ...z);
  return y.map((value, i) => MERGES[merge](value, z[i], round));
}

/** All layers over one row: the outputs of the top one, and the final state of each layer and direction. */
function runRow(spec, weights, steps, valid, states, round) {
  const finals = [];
  const names = spec.variant.includes("bi_") ? ["forward", "backward"] : ["forward"];
  for (let layer = 0; layer < spec.num_layers; layer++) {
    const found = names.map((name, d) => {
      const index = layer * names.length + d;
      const own = weights(`layers.${layer}.${name}.`);
      return direction(steps, valid, d === 1, states[index], own, NONLINEARITIES[spec.nonlinearity], round);
    });
    finals.push(...found.map(({ state }) => state));
    const [y, z] = found.map(({ outputs }) => outputs);
    steps = z ? y.map((_, t) => merged(y[t], z[t], spec.merge, round)) : y;
  }
  return { outputs: steps, finals };
}

/** Splits an array of numbers into vectors of a size, and puts them together again. */
const split = (data, size) => Array.from({ length: data.length / size }, (_, i) => data.slice(i * size, (i + 1) * size));
const joined = (Numbers, vectors) => Numbers.from(vectors.flatMap((vector) => [...vector]));

function run(spec, dtype, arrays) {
  const round = dtype === "float32" ? Math.fround : (a) => a;
  const { shape: [B, T, I], data: inputs } = arrays.inputs; // prettier-ignore
  const H = spec.hidden_size;
  const LD = spec.num_layers * (spec.variant.includes("bi_") ? 2 : 1);
  const weights = (prefix) =>
    Object.fromEntries(
      Object.entries(arrays)
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, { data }]) => [name.slice(prefix.length), data]),
    );
  const initial = split(arrays.initial_state?.data ?? new inputs.constructor(LD * B * H), H); // index (l*D + d)*B + b
  const isValid = (b, t) => arrays.mask?.data[b * T + t] ?? t < (arrays.lengths?.data[b] ?? T);
  const rows = split(inputs, T * I).map((row, b) => {
    const valid = Array.from({ length: T }, (_, t) => isValid(b, t));
    const states = initial.filter((_, index) => index % B === b);
    return runRow(spec, weights, split(row, I), valid, states, round);
  });
  const finals = rows[0].finals.flatMap((_, index) => rows.map((row) => row.finals[index]));
  const outputs = rows.flatMap((row) => row.outputs);
  return {
    outputs: { shape: [B, T, outputs[0].length], data: joined(inputs.constructor, outputs) },
    "final_state.h": { shape: [LD, B, H], data: joined(inputs.constructor, finals) },
  };
}

// --- the conversation ---

function answer({ command, protocol, spec, dtype, give, read, write }) {
  if (command === "start") return protocol === 1 ? { result: INTRODUCTION } : { unsupported: `protocol ${protocol}` };
  if (command === "describe") return { result: DECLARATION };
  if (command !== "run") return { error: `unknown command ${command}` };
  if (give !== "results") return { unsupported: "only results are computed" };
  writeArrays(write, { float32: "F32", float64: "F64" }[dtype], run(spec, dtype, readArrays(read)));
  return { result: {} };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.command === "stop") process.exit();
  let found;
  try {
    found = answer(request);
  } catch (error) {
    found = { error: String(error.stack) };
  }
  console.log(JSON.stringify({ seq: request.seq, ...found }));
}
