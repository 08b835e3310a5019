// What all clients share: where the node is, who pays, and what is deployed.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import solc from "solc";

const require = createRequire(import.meta.url);

export const HTTP = process.env.PARSEC_HTTP ?? "http://127.0.0.1:8545";
export const WS = process.env.PARSEC_WS ?? HTTP.replace(/^http/, "ws");
export const MNEMONIC =
  process.env.PARSEC_MNEMONIC ?? "test test test test test test test test test test test junk";

/** The contracts of this directory, compiled with the solc of npm: nothing is downloaded. What was compiled once is kept. */
export function compile() {
  const directory = new URL("./contracts/", import.meta.url);
  const sources = Object.fromEntries(
    readdirSync(directory).map((name) => [name, { content: readFileSync(new URL(name, directory), "utf8") }]),
  );
  const settings = {
    optimizer: { enabled: true, runs: 200 },
    evmVersion: "prague",
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  };
  const input = JSON.stringify({ language: "Solidity", sources, settings });
  const lock = readFileSync(new URL("./package-lock.json", import.meta.url));
  const cache = new URL(`./node_modules/.cache/${createHash("sha256").update(input).update(lock).digest("hex")}.json`, import.meta.url);
  try {
    return JSON.parse(readFileSync(cache, "utf8"));
  } catch {
    // Not compiled yet.
  }
  const find = (path) => ({ contents: readFileSync(require.resolve(path), "utf8") });
  const output = JSON.parse(solc.compile(input, { import: find }));
  const errors = (output.errors ?? []).filter((error) => error.severity === "error");
  if (errors.length > 0) throw new Error(errors.map((error) => error.formattedMessage).join("\n"));
  const contracts = {};
  for (const name of Object.keys(sources)) {
    for (const [contract, { abi, evm }] of Object.entries(output.contracts[name])) {
      contracts[contract] = { abi, bytecode: `0x${evm.bytecode.object}` };
    }
  }
  mkdirSync(new URL(".", cache), { recursive: true });
  writeFileSync(cache, JSON.stringify(contracts));
  return contracts;
}

/** A contract that its authors published ready compiled. */
export function published(path) {
  const { abi, bytecode, evm } = JSON.parse(readFileSync(require.resolve(path), "utf8"));
  const code = bytecode ?? evm.bytecode.object;
  return { abi, bytecode: code.startsWith("0x") ? code : `0x${code}` };
}

export const UNISWAP = {
  factory: () => published("@uniswap/v2-core/build/UniswapV2Factory.json"),
  pair: () => published("@uniswap/v2-core/build/UniswapV2Pair.json"),
  router: () => published("@uniswap/v2-periphery/build/UniswapV2Router02.json"),
  weth: () => published("@uniswap/v2-periphery/build/WETH9.json"),
};
