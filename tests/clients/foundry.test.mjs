// cast and forge against `parsec dev`, and against anvil, which must tell the same of the same.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { HTTP, compile } from "./world.mjs";

const NODES = { parsec: HTTP, anvil: process.env.ANVIL_HTTP ?? "http://127.0.0.1:8546" };
const KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const ALICE = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const BOB = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const FRESH = { key: `0x${"5a".repeat(32)}`, address: undefined };
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const project = mkdtempSync(join(tmpdir(), "parsec-forge-"));

/** The program itself, without the script of npm's that looks for it each time. */
const binary = (name) => here(`foundry/node_modules/@foundry-rs/${name}-${process.platform}-${process.arch === "x64" ? "amd64" : process.arch}/bin/${name}`);

function run(program, args, url, directory) {
  // No proxy between a client and the machine that it is on; and nothing is looked up elsewhere.
  const env = { ...process.env, ETH_RPC_URL: url, NO_PROXY: "*", FOUNDRY_OFFLINE: "true", FOUNDRY_DISABLE_NIGHTLY_WARNING: "1" };
  return new Promise((resolve) => {
    const options = { env, cwd: directory ?? project, maxBuffer: 1 << 26, timeout: 60_000 };
    const child = execFile(binary(program), args, options, (error, stdout, stderr) =>
      resolve({ failed: Boolean(error), out: stdout.trim(), err: error?.killed ? `took too long: ${args.join(" ")}` : stderr.trim() }),
    );
    // Some commands read what they are not given.
    child.stdin.end();
  });
}

const both = (ask) => Promise.all([ask(NODES.parsec), ask(NODES.anvil)]);

/** What cast says on both nodes, which must succeed on both. */
async function cast(...args) {
  const told = await both((url) => run("cast", args, url));
  for (const [n, name] of Object.keys(NODES).entries()) assert.ok(!told[n].failed, `cast ${args.join(" ")} on ${name}: ${told[n].err}`);
  return told.map(({ out }) => out);
}

/** What cast says, which must be the same on both nodes. */
async function same(...args) {
  const [parsec, anvil] = await cast(...args);
  assert.equal(parsec, anvil, `cast ${args.join(" ")}`);
  return parsec;
}

/** Fields of an object that cast tells of, which must be the same on both nodes. */
async function fields(names, ...args) {
  const told = (await cast(...args, "--json")).map((text) => JSON.parse(text));
  const [parsec, anvil] = told.map((all) => Object.fromEntries(names.map((name) => [name, all[name]])));
  assert.deepEqual(parsec, anvil, `cast ${args.join(" ")}`);
  for (const name of names) assert.notEqual(parsec[name], undefined, `${name} of cast ${args.join(" ")}`);
  return told[0];
}

/** Why cast fails, which it must on both nodes. */
async function refusal(...args) {
  const told = await both((url) => run("cast", args, url));
  for (const [n, name] of Object.keys(NODES).entries()) assert.ok(told[n].failed, `cast ${args.join(" ")} on ${name}: ${told[n].out}`);
  return told.map(({ err }) => err);
}

const RECEIPT = ["status", "type", "from", "to", "contractAddress", "gasUsed", "cumulativeGasUsed", "blockNumber", "transactionIndex", "logsBloom"];
const contracts = compile();
let token;

before(async () => {
  FRESH.address = await same("wallet", "address", FRESH.key);
  const supply = (await same("abi-encode", "f(uint256)", "1000000")).slice(2);
  const receipt = await fields(RECEIPT, "send", "--private-key", KEY, "--create", contracts.Token.bytecode + supply);
  assert.equal(receipt.status, "0x1");
  token = receipt.contractAddress;
});
after(() => rmSync(project, { recursive: true, force: true }));

test("the chain, its blocks and accounts", async () => {
  assert.equal(await same("chain-id"), "31337");
  assert.equal(await same("block-number"), "1");
  await same("chain");
  await same("balance", BOB);
  await same("balance", BOB, "--ether", "--block", "0");
  assert.equal(await same("nonce", ALICE), "1");
  await same("code", token);
  await same("codesize", token);
  // The factory of CREATE2 that forge deploys libraries with.
  await same("code", "0x4e59b44847b379578588920ca78fbf26c0b4956c");
  await same("storage", token, "2");
  await same("find-block", "1");
  await same("tx-pool", "status");
  await same("tx-pool", "content");
  await same("compute-address", ALICE, "--nonce", "0");
  await fields(["number", "gasLimit", "gasUsed", "logsBloom", "transactionsRoot", "receiptsRoot", "miner", "difficulty", "withdrawalsRoot", "transactions"], "block", "latest");
  const [client] = await cast("client");
  assert.match(client, /^anvil-compatible\/parsec/);
  for (const what of ["gas-price", "base-fee", "age"]) await cast(what);
});

test("Ether and a token are sent, and what became of it is told", async () => {
  for (const kind of [["--legacy"], [], ["--access-list"]]) {
    const receipt = await fields(RECEIPT, "send", "--private-key", KEY, token, "transfer(address,uint256)", BOB, "5", ...kind);
    assert.equal(receipt.status, "0x1");
  }
  const sent = await fields(RECEIPT, "send", "--private-key", KEY, BOB, "--value", "1ether");
  const hash = sent.transactionHash;
  assert.equal(await run("cast", ["tx", hash, "value"], NODES.parsec).then(({ out }) => out), "1000000000000000000");
  assert.equal(await run("cast", ["receipt", hash, "gasUsed"], NODES.parsec).then(({ out }) => out), "21000");
  assert.equal(await same("call", token, "balanceOf(address)(uint256)", BOB), "15");
  assert.equal(await same("call", token, "balanceOf(address)(uint256)", BOB, "--block", "1"), "0");
  await same("erc20-token", "balance", token, BOB);
  const [ours] = await cast("logs", "--from-block", "0", "--address", token, "Transfer(address indexed,address indexed,uint256)", "--json");
  assert.equal(JSON.parse(ours).length, 4);
  const unlocked = await fields(RECEIPT, "send", "--unlocked", "--from", BOB, ALICE, "--value", "3");
  assert.equal(unlocked.type, "0x2");
  const [signed] = await cast("mktx", "--private-key", KEY, BOB, "--value", "7", "--gas-limit", "21000", "--gas-price", "5gwei", "--priority-gas-price", "1gwei");
  await fields(["status", "gasUsed"], "publish", signed);
});

test("gas, access lists and calls without effect", async () => {
  await same("estimate", "--from", ALICE, token, "transfer(address,uint256)", BOB, "5");
  await same("estimate", "--from", ALICE, BOB, "--value", "1");
  await same("access-list", "--from", ALICE, token, "transfer(address,uint256)", BOB, "5");
  await same("call", token, "totalSupply()(uint256)");
  await same("call", token, "--override-balance", `${token}:0x10`, "totalSupply()(uint256)");
  await same("call", "--trace", "--from", ALICE, token, "transfer(address,uint256)", BOB, "5");
  await same("rpc", "eth_getBlockTransactionCountByNumber", "0x1");
});

test("a transaction that was mined is executed again", async () => {
  const transactions = await both((url) => run("cast", ["send", "--private-key", KEY, token, "transfer(address,uint256)", BOB, "1", "--json"], url));
  const hashes = transactions.map(({ out }) => JSON.parse(out).transactionHash);
  const ran = await Promise.all(Object.values(NODES).map((url, n) => run("cast", ["run", hashes[n]], url)));
  for (const { failed, err } of ran) assert.ok(!failed, err);
  assert.equal(ran[0].out, ran[1].out);
  assert.match(ran[0].out, /Transaction successfully executed/);
});

test("refusals are told in words", async () => {
  const [custom] = await refusal("call", "--from", FRESH.address, token, "transfer(address,uint256)", BOB, "5");
  assert.match(custom, /execution reverted.*0xe450d38c/s);
  assert.match((await refusal("call", token, "fail(string)", "for a reason"))[0], /for a reason/);
  const transfer = ["--private-key", FRESH.key, BOB, "--value", "1"];
  assert.match((await refusal("send", ...transfer, "--gas-limit", "21000"))[0], /insufficient funds/i);
  assert.match((await refusal("send", "--private-key", KEY, BOB, "--nonce", "0", "--value", "1", "--gas-limit", "21000"))[0], /nonce too low/);
  assert.match((await refusal("send", "--private-key", KEY, BOB, "--gas-limit", "20000"))[0], /intrinsic gas too low/);
  assert.match((await refusal("rpc", "eth_noSuchMethod"))[0], /-32601/);
  assert.match((await refusal("rpc", "eth_getBalance", "0x12", "latest"))[0], /-32602/);
  const proof = await run("cast", ["proof", token, "0"], NODES.parsec);
  assert.ok(!proof.failed, proof.err);
  assert.equal(JSON.parse(proof.out).storageProof.length, 1);
});

test("an account delegates (EIP-7702)", async () => {
  const receipt = await fields(["contractAddress", "status"], "send", "--private-key", KEY, "--create", contracts.Delegate.bytecode);
  await cast("send", "--private-key", KEY, FRESH.address, "--value", "1ether");
  const authorization = await same("wallet", "sign-auth", receipt.contractAddress, "--private-key", FRESH.key);
  await fields(["status", "type", "gasUsed"], "send", "--private-key", KEY, FRESH.address, "--auth", authorization);
  assert.equal(await same("code", FRESH.address), `0xef0100${receipt.contractAddress.slice(2).toLowerCase()}`);
});

test("the chain is driven over JSON-RPC", async () => {
  const [snapshot] = await cast("rpc", "evm_snapshot");
  await cast("rpc", "anvil_setBalance", BOB, "0x1");
  assert.equal(await same("balance", BOB), "1");
  await cast("rpc", "anvil_impersonateAccount", token);
  await cast("rpc", "anvil_setBalance", token, "0xde0b6b3a7640000");
  await fields(RECEIPT, "send", "--unlocked", "--from", token, BOB, "--value", "1");
  await cast("rpc", "evm_increaseTime", "100");
  await cast("rpc", "anvil_mine", "0x3");
  await same("block-number");
  assert.equal((await cast("rpc", "evm_revert", JSON.parse(snapshot)))[0], "true");
  for (const balance of await cast("balance", BOB)) assert.notEqual(balance, "1");
});

test("a state that one node dumped is loaded by the other", async () => {
  const [parsec, anvil] = (await cast("rpc", "anvil_dumpState")).map((text) => JSON.parse(text));
  const rpc = async (url, ...args) => {
    const { failed, out, err } = await run("cast", ["rpc", ...args], url);
    assert.ok(!failed, err);
    return out;
  };
  const saved = await Promise.all(Object.values(NODES).map((url) => rpc(url, "evm_snapshot")));
  await cast("rpc", "anvil_setStorageAt", token, `0x${"0".repeat(63)}2`, `0x${"0".repeat(64)}`);
  await rpc(NODES.anvil, "anvil_loadState", parsec);
  await rpc(NODES.parsec, "anvil_loadState", anvil);
  assert.match(await same("call", token, "totalSupply()(uint256)"), /^1000000 /);
  await Promise.all(Object.values(NODES).map((url, n) => rpc(url, "evm_revert", JSON.parse(saved[n]))));
});

test("forge deploys a contract, and runs a script", async () => {
  cpSync(here("contracts/Counter.sol"), join(project, "src/Counter.sol"), { recursive: true });
  writeFileSync(join(project, "foundry.toml"), `[profile.default]\nsolc = ${JSON.stringify(here("solc.mjs"))}\nevm_version = "prague"\nremappings = ["@openzeppelin/=${here("node_modules/@openzeppelin/")}"]\nallow_paths = [${JSON.stringify(here("node_modules"))}]\n`);
  const script = `// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;
interface Vm { function startBroadcast(uint256 key) external; function stopBroadcast() external; }
contract Box { uint256 public content; event Put(uint256 content); function put(uint256 what) external { content = what; emit Put(what); } }
contract Fill {
  bool public IS_SCRIPT = true;
  function run() external {
    Vm vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    vm.startBroadcast(${KEY});
    Box box = new Box();
    box.put(41);
    box.put(42);
    vm.stopBroadcast();
  }
}`;
  writeFileSync(join(project, "src/Fill.s.sol"), script);
  // One after the other: they share a project.
  const told = [];
  for (const url of Object.values(NODES)) {
    const created = await run("forge", ["create", "--broadcast", "--private-key", KEY, "src/Fill.s.sol:Box", "--json"], url);
    assert.ok(!created.failed, created.err + created.out);
    const { deployedTo } = JSON.parse(created.out.slice(created.out.indexOf("{")));
    const ran = await run("forge", ["script", "--broadcast", "--rpc-url", url, "src/Fill.s.sol:Fill", "--slow"], url);
    assert.ok(!ran.failed, ran.err + ran.out);
    assert.match(ran.out, /ONCHAIN EXECUTION COMPLETE & SUCCESSFUL/);
    const box = (await run("cast", ["logs", "--from-block", "0", "Put(uint256)", "--json"], url)).out;
    const [first] = JSON.parse(box);
    told.push({ deployedTo, box: first.address, content: (await run("cast", ["call", first.address, "content()(uint256)"], url)).out });
  }
  assert.equal(told[0].content, "42");
  assert.deepEqual(told[0], told[1]);
});
