// Builds the contracts of `src/` with the compiler and the libraries that package-lock.json pins,
// and writes what Parsec deploys to `NAME.json` beside this script.
//
//   node build.mjs           build, and write the files
//   node build.mjs --check   build, and fail unless the files are exactly what was built
//
// No path, time or hash of the sources goes into the bytecode (settings.json leaves the metadata
// out), so everyone who builds gets the same bytes.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(fileURLToPath(import.meta.url));
const CONTRACTS = ["Token", "Mintable", "Pool", "Nft"];

const check = parseArguments(process.argv.slice(2));
const dependencies = readJson("package.json").dependencies;
install();
const settings = readJson("settings.json");
const built = CONTRACTS.map((name) => [`${name}.json`, describe(name, compile(name))]);
const stale = built.filter(([file, text]) => !check || read(file) !== text);
for (const [file, text] of stale) {
  if (check) console.error(`${file} is not what the sources compile to: run 'node build.mjs'`);
  else writeFileSync(join(ROOT, file), text);
}
if (check && stale.length > 0) process.exit(1);
console.log(`${built.map(([file]) => file).join(", ")}: ${check ? "up to date" : "written"}`);

/** Whether to check; ends the process on anything that is not understood. */
function parseArguments(words) {
  if (words.length === 0) return false;
  if (words.length === 1 && words[0] === "--check") return true;
  console.error("usage: node build.mjs [--check]");
  process.exit(2);
}

/** The text of a file beside this script, or null if it is absent. */
function read(file) {
  const path = join(ROOT, file);
  return existsSync(path) ? readFileSync(path, "utf8") : null;
}

function readJson(file) {
  const text = read(file);
  if (text === null) throw new Error(`${file} is missing beside build.mjs`);
  return JSON.parse(text);
}

/** Installs what package-lock.json pins, unless it is there already. */
function install() {
  const installed = (name) => {
    const text = read(join("node_modules", name, "package.json"));
    return text === null ? null : JSON.parse(text).version;
  };
  if (Object.entries(dependencies).every(([name, pin]) => installed(name) === pin)) return;
  const arguments_ = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
  const { status } = spawnSync("npm", arguments_, { cwd: ROOT, stdio: "inherit" });
  if (status !== 0) throw new Error("npm ci failed: the packages of package-lock.json are needed");
}

/** Compiles `src/NAME.sol` and returns the contract NAME of it. */
function compile(name) {
  const solc = createRequire(import.meta.url)("solc");
  const source = `src/${name}.sol`;
  const input = {
    language: "Solidity",
    sources: { [source]: { content: read(source) } },
    settings,
  };
  const load = (path) => {
    const text = read(join("node_modules", path));
    return text === null ? { error: `${path} is in no installed package` } : { contents: text };
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: load }));
  const problems = (output.errors ?? []).filter(({ severity }) => severity !== "info");
  if (problems.length > 0) {
    throw new Error(problems.map((problem) => problem.formattedMessage).join("\n"));
  }
  return output.contracts[source][name];
}

/** The text of NAME.json: one ABI item a line, so that a change of one shows as such. */
function describe(name, { abi, evm }) {
  const { outputSelection, ...shown } = settings;
  const items = abi.map((item) => `    ${JSON.stringify(item)}`).join(",\n");
  const fields = [
    `"contract": ${JSON.stringify(name)}`,
    `"versions": ${JSON.stringify(dependencies)}`,
    `"settings": ${JSON.stringify(shown)}`,
    `"abi": [\n${items}\n  ]`,
    `"bytecode": ${JSON.stringify(`0x${evm.bytecode.object}`)}`,
  ];
  return `{\n  ${fields.join(",\n  ")}\n}\n`;
}
