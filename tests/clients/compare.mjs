// The same requests, well- and ill-formed, to `parsec dev` (PARSEC_HTTP) and to anvil (ANVIL_HTTP), started alike. Lists where the
// answers differ in shape or code, or in value where the value must be the same. Every difference is either a bug or stands in
// DIFFERENCES with its reason; one that stands there and is not found fails the run, too.
import { setTimeout as sleep } from "node:timers/promises";
import { ethers } from "ethers";
import { DIFFERENCES } from "./differences.mjs";
import { HTTP, MNEMONIC, compile } from "./world.mjs";

const NODES = { parsec: HTTP, anvil: process.env.ANVIL_HTTP ?? "http://127.0.0.1:8546" };
const KEYS = [0, 1, 2].map((n) => ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${n}`));
const [ALICE, BOB] = KEYS.map((wallet) => wallet.address.toLowerCase());
const NOBODY = "0x00000000000000000000000000000000000000aa";
const HASH = `0x${"12".repeat(32)}`;
const GWEI = 10n ** 9n;
const contracts = compile();
const token = new ethers.Interface(contracts.Token.abi);

/** Posts a body; the status, and the JSON if there is some. */
async function post(url, body, type = "application/json") {
  const response = await fetch(url, { method: "POST", headers: { "content-type": type }, body });
  const text = await response.text();
  try {
    return { status: response.status, json: text === "" ? undefined : JSON.parse(text) };
  } catch {
    return { status: response.status, text };
  }
}

async function ask(url, method, params) {
  const { json, status } = await post(url, JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
  return json ?? { error: { code: `HTTP ${status}` } };
}

// What stands on both chains before anything is compared. Nothing in it depends on the time but hashes of blocks.
async function prepare(url) {
  const call = async (method, ...params) => {
    const { result, error } = await ask(url, method, params);
    if (error) throw new Error(`${url} ${method}: ${error.message}`);
    return result;
  };
  // anvil answers before its block is there: how long before depends on what else the machine does.
  const sent = async (transaction) => {
    const hash = await call("eth_sendTransaction", { from: ALICE, ...transaction });
    for (const until = Date.now() + 30_000; Date.now() < until; await sleep(10)) {
      const receipt = await call("eth_getTransactionReceipt", hash);
      if (receipt !== null) return receipt;
    }
    throw new Error(`${url}: ${hash} is in no block after 30 s`);
  };
  const supply = ethers.AbiCoder.defaultAbiCoder().encode(["uint256"], [10n ** 24n]).slice(2);
  const deployed = await sent({ data: contracts.Token.bytecode + supply });
  const address = deployed.contractAddress;
  const paid = await sent({ to: address, data: token.encodeFunctionData("transfer", [BOB, 5n]) });
  const plain = await sent({ to: BOB, value: "0x1", gas: "0x5208" });
  const failed = await sent({ to: address, data: token.encodeFunctionData("fail", ["for a reason"]), gas: "0x186a0" });
  const empty = await (async () => { await call("evm_mine"); return call("eth_getBlockByNumber", "latest", false); })();
  return { address, deployed, paid, plain, failed, empty };
}

/** Signs for both, with what the chain needs. */
const sign = (transaction, key = KEYS[0]) =>
  new ethers.Wallet(key.privateKey).signTransaction({ chainId: 31337, gasLimit: 21_000n, to: BOB, value: 1n, maxFeePerGas: 5n * GWEI, maxPriorityFeePerGas: GWEI, type: 2, nonce: 4, ...transaction });

/** All requests: a name, a method, and parameters. `w` is what `prepare` made on the chain that is asked. */
async function requests(w) {
  const block = w.paid.blockHash;
  const number = w.paid.blockNumber;
  const transfer = { from: ALICE, to: w.address, data: token.encodeFunctionData("transfer", [BOB, 1n]) };
  const tooMuch = { from: BOB, to: w.address, data: token.encodeFunctionData("transfer", [ALICE, 10n ** 20n]) };
  const reason = { to: w.address, data: token.encodeFunctionData("fail", ["for a reason"]) };
  const [latest, get] = [[NOBODY, "latest"], (name, ...params) => [name, name, params]];
  const bad = (name, what, ...params) => [`${name} (${what})`, name, params];
  const call = (what, ...params) => [`eth_call (${what})`, "eth_call", params];
  const estimate = (what, ...params) => [`eth_estimateGas (${what})`, "eth_estimateGas", params];
  const raw = (what, bytes) => [`eth_sendRawTransaction (${what})`, "eth_sendRawTransaction", [bytes]];
  const send = (what, transaction) => [`eth_sendTransaction (${what})`, "eth_sendTransaction", [transaction]];
  const logs = (what, filter) => [`eth_getLogs (${what})`, "eth_getLogs", [filter]];
  const good = await sign({});
  return [
    // What a client asks first.
    get("eth_chainId"), get("net_version"), get("net_listening"), get("eth_syncing"), get("eth_accounts"), get("eth_blockNumber"),
    get("eth_gasPrice"), get("eth_maxPriorityFeePerGas"), get("eth_blobBaseFee"), get("eth_coinbase"), get("eth_mining"),
    get("eth_hashrate"), get("eth_protocolVersion"), get("net_peerCount"), get("web3_clientVersion"), get("web3_sha3", "0x68656c6c6f"),
    get("eth_config"), get("eth_requestAccounts"), get("eth_pendingTransactions"), get("txpool_status"), get("txpool_content"), get("txpool_inspect"),
    // Blocks, transactions, receipts.
    bad("eth_getBlockByNumber", "hashes", number, false), bad("eth_getBlockByNumber", "whole", number, true),
    bad("eth_getBlockByNumber", "pending", "pending", false), bad("eth_getBlockByNumber", "earliest", "earliest", false),
    bad("eth_getBlockByNumber", "safe", "safe", false), bad("eth_getBlockByNumber", "finalized", "finalized", false),
    bad("eth_getBlockByNumber", "not there", "0x99999", false), bad("eth_getBlockByNumber", "no flag", number),
    bad("eth_getBlockByHash", "whole", block, true), bad("eth_getBlockByHash", "not there", HASH, false),
    get("eth_getBlockReceipts", number), bad("eth_getBlockReceipts", "not there", "0x99999"),
    get("eth_getBlockTransactionCountByNumber", number), get("eth_getBlockTransactionCountByHash", block),
    bad("eth_getBlockTransactionCountByHash", "not there", HASH), get("eth_getUncleCountByBlockNumber", number),
    get("eth_getUncleCountByBlockHash", block), get("eth_getUncleByBlockNumberAndIndex", number, "0x0"), get("eth_getUncleByBlockHashAndIndex", block, "0x0"),
    get("eth_getTransactionByHash", w.paid.transactionHash), bad("eth_getTransactionByHash", "not there", HASH),
    bad("eth_getTransactionByHash", "that creates", w.deployed.transactionHash),
    get("eth_getTransactionByBlockNumberAndIndex", number, "0x0"), bad("eth_getTransactionByBlockNumberAndIndex", "not there", number, "0x5"),
    get("eth_getTransactionByBlockHashAndIndex", block, "0x0"), get("eth_getTransactionReceipt", w.paid.transactionHash),
    bad("eth_getTransactionReceipt", "created", w.deployed.transactionHash), bad("eth_getTransactionReceipt", "failed", w.failed.transactionHash),
    bad("eth_getTransactionReceipt", "not there", HASH), bad("eth_getRawTransactionByHash", "not there", HASH),
    get("eth_getRawTransactionByHash", w.plain.transactionHash), get("eth_getRawTransactionByBlockNumberAndIndex", number, "0x0"),
    get("eth_getRawTransactionByBlockHashAndIndex", block, "0x0"), get("eth_getHeaderByNumber", number), get("eth_getHeaderByHash", block),
    // State.
    get("eth_getBalance", BOB, "latest"), bad("eth_getBalance", "of nobody", ...latest), bad("eth_getBalance", "no block", BOB), bad("eth_getBalance", "at a hash", BOB, { blockHash: block }),
    bad("eth_getBalance", "at a number", BOB, { blockNumber: number }), bad("eth_getBalance", "at an unknown hash", BOB, { blockHash: HASH }),
    bad("eth_getBalance", "at the future", BOB, "0x99999"), bad("eth_getBalance", "null block", BOB, null),
    get("eth_getCode", w.address, "latest"), bad("eth_getCode", "of nobody", ...latest), get("eth_getTransactionCount", ALICE, "latest"), bad("eth_getTransactionCount", "pending", ALICE, "pending"),
    bad("eth_getTransactionCount", "past", ALICE, "0x1"), get("eth_getStorageAt", w.address, "0x0", "latest"), bad("eth_getStorageAt", "padded", w.address, HASH, "latest"),
    get("eth_getAccountInfo", ALICE, "latest"), get("eth_getAccount", ALICE, "latest"), get("eth_getProof", w.address, ["0x0"], "latest"),
    // Calls.
    call("balanceOf", { to: w.address, data: token.encodeFunctionData("balanceOf", [BOB]) }, "latest"), call("no block", { to: w.address, data: token.encodeFunctionData("balanceOf", [BOB]) }),
    call("input", { to: w.address, input: token.encodeFunctionData("balanceOf", [BOB]) }, "latest"), call("custom error", tooMuch, "latest"), call("reason", reason, "latest"),
    call("nobody", { to: NOBODY, data: "0x1234" }, "latest"), call("null fields", { from: null, to: w.address, data: "0x18160ddd", gas: null, value: null }, "latest"),
    call("override of a balance", { from: NOBODY, to: BOB, value: "0x1" }, "latest", { [NOBODY]: { balance: "0x10" } }), call("override of code", { to: NOBODY }, "latest", { [NOBODY]: { code: "0x602a5f5260205ff3" } }),
    call("override of a slot", { to: NOBODY }, "latest", { [NOBODY]: { code: "0x5f545f5260205ff3", stateDiff: { [`0x${"0".repeat(64)}`]: `0x${"0".repeat(62)}2a` } } }),
    call("override of the time", { data: "0x425f5260205ff3" }, "latest", {}, { time: "0xffffffff" }), call("too poor", { from: NOBODY, to: BOB, value: "0x1" }, "latest"), call("creation", { data: "0x602a5f5260205ff3" }, "latest"),
    call("out of gas", { ...transfer, gas: "0x5300" }, "latest"), call("less than the least gas", { ...transfer, gas: "0x100" }, "latest"), call("invalid opcode", { data: "0xfe" }, "latest"), call("at the future", transfer, "0x99999"),
    call("fee below the base fee", { ...transfer, gasPrice: "0x1" }, "latest"), call("both fees", { ...transfer, gasPrice: "0x77359400", maxFeePerGas: "0x77359400" }, "latest"),
    call("tip above fee", { ...transfer, maxFeePerGas: "0x77359400", maxPriorityFeePerGas: "0x87359400" }, "latest"), call("data and input differ", { to: w.address, data: "0x18160ddd", input: "0x12345678" }, "latest"),
    estimate("Ether", { from: ALICE, to: BOB, value: "0x1" }), estimate("Ether with data", { from: ALICE, to: BOB, data: "0x1234" }), estimate("transfer", transfer), estimate("custom error", tooMuch), estimate("reason", reason),
    estimate("creation", { from: ALICE, data: contracts.Token.bytecode + "0".repeat(64) }), estimate("too poor", { from: NOBODY, to: BOB, value: "0x1" }), estimate("no sender", { to: BOB }), estimate("at latest", transfer, "latest"), estimate("at pending", transfer, "pending"),
    estimate("too little gas", { ...transfer, gas: "0x5300" }), get("eth_createAccessList", transfer, "latest"), bad("eth_createAccessList", "reverts", tooMuch, "latest"),
    get("eth_simulateV1", { blockStateCalls: [{ calls: [transfer] }] }, "latest"),
    // Fees.
    get("eth_feeHistory", "0x2", "latest", [25, 75]), bad("eth_feeHistory", "number", 2, "latest", []), bad("eth_feeHistory", "no percentiles", "0x2", "latest"), bad("eth_feeHistory", "none", "0x0", "latest", []),
    bad("eth_feeHistory", "more than there are", "0x400", "latest", []), bad("eth_feeHistory", "above 100", "0x2", "latest", [101]), bad("eth_feeHistory", "falling", "0x2", "latest", [50, 20]), bad("eth_feeHistory", "future", "0x2", "0x99999", []),
    // Logs and filters.
    logs("all", { fromBlock: "0x0" }), logs("address", { fromBlock: "0x0", address: w.address }), logs("addresses", { fromBlock: "0x0", address: [w.address, NOBODY] }), logs("topic", { fromBlock: "0x0", topics: [token.getEvent("Transfer").topicHash] }),
    logs("topics", { fromBlock: "0x0", topics: [[token.getEvent("Transfer").topicHash, HASH], null] }), logs("hash", { blockHash: block }), logs("unknown hash", { blockHash: HASH }), logs("hash and range", { blockHash: block, fromBlock: "0x0" }),
    logs("backwards", { fromBlock: "0x3", toBlock: "0x1" }), logs("beyond", { fromBlock: "0x99990", toBlock: "0x99999" }), logs("nothing", {}), logs("null", { fromBlock: null, address: null, topics: null }),
    logs("five topics", { fromBlock: "0x0", topics: [null, null, null, null, HASH] }), logs("short topic", { topics: ["0x12"] }), logs("bad address", { address: "0x12" }),
    get("eth_newFilter", { fromBlock: "0x0" }), get("eth_newBlockFilter"), get("eth_newPendingTransactionFilter"), bad("eth_getFilterChanges", "unknown", "0x1234567"), bad("eth_getFilterLogs", "unknown", "0x1234567"), bad("eth_uninstallFilter", "unknown", "0x1234567"),
    // Traces.
    get("debug_traceTransaction", w.paid.transactionHash, { tracer: "callTracer" }), bad("debug_traceTransaction", "prestate", w.paid.transactionHash, { tracer: "prestateTracer" }), bad("debug_traceTransaction", "diff", w.paid.transactionHash, { tracer: "prestateTracer", tracerConfig: { diffMode: true } }),
    bad("debug_traceTransaction", "4byte", w.paid.transactionHash, { tracer: "4byteTracer" }), bad("debug_traceTransaction", "steps", w.plain.transactionHash, {}), bad("debug_traceTransaction", "not there", HASH), bad("debug_traceTransaction", "failed", w.failed.transactionHash, { tracer: "callTracer" }),
    get("debug_traceCall", transfer, "latest", { tracer: "callTracer" }), get("debug_traceBlockByNumber", number, { tracer: "callTracer" }), get("debug_traceBlockByHash", block, { tracer: "callTracer" }), bad("debug_traceTransaction", "unknown tracer", w.paid.transactionHash, { tracer: "noTracer" }),
    get("debug_getRawTransaction", w.paid.transactionHash), get("debug_getRawBlock", number), get("debug_getRawHeader", number), get("debug_getRawReceipts", number), get("debug_codeByHash", ethers.keccak256(contracts.Token.bytecode)),
    get("trace_transaction", w.paid.transactionHash), get("trace_block", number), get("trace_filter", { fromBlock: "0x0", toBlock: "latest" }),
    // Otterscan.
    get("ots_getApiLevel"), get("ots_hasCode", w.address, "latest"), get("ots_getBlockDetails", number), get("ots_getTransactionError", w.failed.transactionHash), get("ots_getContractCreator", w.address), get("ots_getInternalOperations", w.paid.transactionHash),
    get("ots_traceTransaction", w.paid.transactionHash), get("ots_searchTransactionsBefore", BOB, 0, 5), get("ots_searchTransactionsAfter", BOB, 0, 5), get("ots_getBlockTransactions", number, 0, 5), get("ots_getTransactionBySenderAndNonce", ALICE, 0),
    // Transactions that are refused.
    raw("empty", "0x"), raw("garbage", "0x1234"), raw("type unknown", "0x7f00"), raw("cut short", good.slice(0, -2)), raw("nonce too low", await sign({ nonce: 0 })), raw("wrong chain", await sign({ chainId: 1 })), raw("too poor", await sign({ value: 10n ** 30n })),
    raw("too little gas", await sign({ gasLimit: 20_000n })), raw("more gas than a block", await sign({ gasLimit: 10n ** 9n })),
    raw("fee below base fee", await sign({ maxFeePerGas: 1n, maxPriorityFeePerGas: 1n })), raw("nonce too high waits", await sign({ nonce: 100 })), raw("known", await sign({ nonce: 100 })), raw("underpriced", await sign({ nonce: 100, value: 2n })), raw("replacement", await sign({ nonce: 100, maxFeePerGas: 10n * GWEI, maxPriorityFeePerGas: 2n * GWEI })),
    send("no signer", { from: NOBODY, to: BOB, value: "0x1" }), send("too poor", { from: BOB, to: ALICE, value: "0xffffffffffffffffffffffff" }), send("both fees", { from: BOB, to: ALICE, gasPrice: "0x77359400", maxFeePerGas: "0x77359400" }), send("nonce too low", { from: ALICE, to: BOB, nonce: "0x0" }),
    send("more gas than a block", { from: BOB, to: ALICE, gas: "0xfffffffff" }), send("no fields", {}), send("negative value", { from: BOB, to: ALICE, value: "-0x1" }), send("reverts", tooMuch),
    get("eth_sign", BOB, "0x1234"), bad("eth_sign", "no signer", NOBODY, "0x1234"), get("personal_sign", "0x1234", BOB), get("eth_signTransaction", { from: BOB, to: ALICE, value: "0x1", gas: "0x5208", nonce: "0x0", maxFeePerGas: "0x77359400", maxPriorityFeePerGas: "0x1" }),
    get("eth_fillTransaction", { from: BOB, to: ALICE, value: "0x1", gas: "0x5208" }), bad("eth_signTypedData_v4", "no types", BOB, {}),
    // What is no parameter.
    bad("eth_getBalance", "no parameter"), bad("eth_getBalance", "short address", "0x12", "latest"), bad("eth_getBalance", "number", 12, "latest"), bad("eth_getBalance", "text", "bob", "latest"), bad("eth_getBalance", "no tag", BOB, "newest"), bad("eth_getBalance", "too many", BOB, "latest", 1),
    bad("eth_getBalance", "no prefix", BOB.slice(2), "latest"), bad("eth_getBalance", "padded block", BOB, "0x01"), bad("eth_getBalance", "negative block", BOB, "-0x1"), bad("eth_getBalance", "decimal block", BOB, "1"), bad("eth_getBalance", "number as block", BOB, 1), bad("eth_getBalance", "huge block", BOB, `0x${"f".repeat(20)}`),
    bad("eth_getStorageAt", "long slot", w.address, `0x${"0".repeat(70)}`, "latest"), bad("eth_getStorageAt", "no slot", w.address, "xyz", "latest"), bad("eth_getBlockByHash", "short hash", "0x12", false), bad("eth_getBlockByNumber", "flag is text", number, "true"), bad("eth_getTransactionByHash", "null", null),
    bad("eth_getTransactionByHash", "an object", {}), bad("eth_getTransactionReceipt", "no parameter"), call("no object", "0x12", "latest"), call("negative value", { to: BOB, value: "-0x1" }, "latest"), call("padded value", { to: BOB, value: "0x01" }, "latest"), call("number as value", { from: ALICE, to: BOB, value: 1 }, "latest"),
    call("odd data", { to: BOB, data: "0x123" }, "latest"), call("no hexadecimal data", { to: BOB, data: "0xzz" }, "latest"), call("value of 257 bits", { to: BOB, value: `0x1${"0".repeat(64)}` }, "latest"), call("unknown field", { to: BOB, colour: "blue" }, "latest"), call("short sender", { from: "0x12", to: BOB }, "latest"),
    raw("no prefix", good.slice(2)), raw("odd", `${good}1`), bad("eth_sendRawTransaction", "number", 5), bad("eth_sendRawTransaction", "no parameter"), bad("eth_subscribe", "over HTTP", "newHeads"), bad("eth_noSuchMethod", "unknown"), bad("", "empty name"), bad("eth_getLogs", "no parameter"), bad("eth_feeHistory", "no parameter"),
    // Of the development chain.
    get("anvil_nodeInfo"), get("anvil_metadata"), get("hardhat_metadata"), get("anvil_getAutomine"), get("hardhat_getAutomine"), get("anvil_getIntervalMining"), get("anvil_setBalance", NOBODY, "0x10"), get("hardhat_setBalance", NOBODY, "0x10"), bad("anvil_setBalance", "number", NOBODY, 16), bad("anvil_setBalance", "negative", NOBODY, "-0x1"),
    get("anvil_setCode", NOBODY, "0x00"), get("anvil_setNonce", NOBODY, "0x5"), bad("anvil_setNonce", "lower", NOBODY, "0x1"), get("anvil_setStorageAt", NOBODY, "0x0", HASH), bad("anvil_setStorageAt", "short word", NOBODY, "0x0", "0x1"), get("anvil_impersonateAccount", NOBODY), get("anvil_stopImpersonatingAccount", NOBODY), get("anvil_autoImpersonateAccount", false),
    get("anvil_setCoinbase", NOBODY), get("anvil_setLoggingEnabled", false), get("anvil_setMinGasPrice", "0x1"), get("anvil_setNextBlockBaseFeePerGas", "0x3b9aca00"), get("evm_setBlockGasLimit", "0x1c9c380"), get("anvil_setChainId", "0x7a69"), get("anvil_dropTransaction", HASH), get("anvil_dropAllTransactions"), get("anvil_removePoolTransactions", NOBODY),
    get("evm_snapshot"), bad("evm_revert", "unknown", "0x9999"), get("evm_mine"), bad("evm_mine", "options", { blocks: 2 }), get("anvil_mine", "0x2", "0x1"), get("hardhat_mine", "0x1"), get("evm_mine_detailed"), get("anvil_mine_detailed"), get("evm_increaseTime", "0x10"), bad("evm_increaseTime", "number", 16), get("evm_setNextBlockTimestamp", "0xffffffff"), bad("evm_setNextBlockTimestamp", "past", 1),
    get("evm_setTime", "0xffffffff"), get("anvil_setBlockTimestampInterval", 1), get("anvil_removeBlockTimestampInterval"), bad("anvil_removeBlockTimestampInterval", "none"), get("evm_setAutomine", true), get("evm_setIntervalMining", 0), bad("evm_setAutomine", "again", true), get("anvil_dealERC20", NOBODY, w.address, "0x10"), get("anvil_setERC20Allowance", ALICE, BOB, w.address, "0x10"),
    get("anvil_addBalance", NOBODY, "0x10"), get("anvil_deal", NOBODY, "0x10"), get("anvil_getGenesisTime"), get("anvil_enableTraces"), get("anvil_dumpState"), get("anvil_rollback", 1), get("anvil_reorg", 1, []), get("anvil_reset"), get("evm_noSuchMethod"),
  ];
}

/** The shape of a value: which fields there are, and of what kind. */
function shape(value, path = "") {
  if (Array.isArray(value)) {
    const shapes = value.flatMap((item) => shape(item, `${path}[]`));
    return [`${path}: array`, ...new Set(shapes)];
  }
  if (value !== null && typeof value === "object") {
    // Of maps from addresses, slots, nonces and the like the keys are no names.
    const name = (key) => (/^(0x[0-9a-fA-F]+|[0-9]+)$/.test(key) ? "*" : key);
    return [`${path}: object`, ...new Set(Object.entries(value).flatMap(([key, of]) => shape(of, `${path}.${name(key)}`)))];
  }
  if (typeof value === "string" && /^0x[0-9a-fA-F]*$/.test(value)) {
    const kind = { 42: "20 bytes", 66: "32 bytes", 514: "256 bytes" }[value.length] ?? (/^0x(0|[1-9a-f][0-9a-f]*)$/.test(value) ? "hexadecimal" : "bytes");
    return [`${path}: ${kind === "bytes" ? "hexadecimal" : kind}`];
  }
  return [`${path}: ${value === null ? "null" : typeof value}`];
}

// The words by which ethers and viem know what was wrong with a transaction or a call.
const WORDS = [
  "nonce too low", "insufficient funds", "already known", "already imported", "underpriced", "execution reverted", "intrinsic gas too low", "gas required exceeds allowance", "max priority fee per gas higher than max fee per gas",
  "out of gas", "intrinsic gas too high", "max fee per gas less than block base fee", "No Signer available", "for a reason",
];
const words = (message = "") => WORDS.filter((word) => message.toLowerCase().includes(word.toLowerCase())).join(", ");

// Results that are the same on both chains, to the bit.
const EXACT = /^(eth_(chainId|accounts|blockNumber|getBalance|getCode|getTransactionCount|getStorageAt|call|estimateGas|getUncle|syncing|mining|hashrate|get\w+Count)|net_(version|listening)|web3_sha3|evm_(snapshot|mine( |$)|revert)|ots_(getApiLevel|hasCode|getTransactionError)|(anvil|hardhat)_(set|getAutomine|getInterval|auto|impersonate|stop|drop|remove|deal|add))/;

function* differences(name, parsec, anvil) {
  if (Boolean(parsec.error) !== Boolean(anvil.error)) {
    const told = (answer) => (answer.error ? `error ${answer.error.code} ${JSON.stringify(answer.error.message)}` : JSON.stringify(answer.result)?.slice(0, 100));
    yield `${name}: parsec ${told(parsec)}, anvil ${told(anvil)}`;
  } else if (parsec.error) {
    if (parsec.error.code !== anvil.error.code) {
      yield `${name}: code ${parsec.error.code} ${JSON.stringify(parsec.error.message)}, anvil ${anvil.error.code} ${JSON.stringify(anvil.error.message)}`;
    }
    const [ours, theirs] = [parsec, anvil].map(({ error }) => words(error.message));
    if (ours !== theirs) yield `${name}: words ${JSON.stringify(parsec.error.message)}, anvil ${JSON.stringify(anvil.error.message)}`;
    if (parsec.error.data !== anvil.error.data) yield `${name}: data ${JSON.stringify(parsec.error.data)}, anvil ${JSON.stringify(anvil.error.data)}`;
  } else {
    const [ours, theirs] = [parsec, anvil].map(({ result }) => new Set(shape(result)));
    for (const part of ours) if (!theirs.has(part)) yield `${name}: only parsec has ${part}`;
    for (const part of theirs) if (!ours.has(part)) yield `${name}: only anvil has ${part}`;
    const text = [parsec, anvil].map(({ result }) => JSON.stringify(result)?.toLowerCase());
    if (EXACT.test(name) && text[0] !== text[1]) yield `${name}: value ${text[0]?.slice(0, 200)}, anvil ${text[1]?.slice(0, 200)}`;
  }
}

/** Bodies that are hardly requests. */
function bodies() {
  const call = (rest) => `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"${rest}}`;
  const deep = 50_000;
  return {
    nothing: "", blank: " ", "no JSON": "{", "half a request": '{"jsonrpc":"2.0","id":1,', text: '"eth_chainId"', number: "5", null: "null", "empty object": "{}", "empty batch": "[]", "batch of numbers": "[1,2]",
    "no version": '{"id":1,"method":"eth_chainId"}', "version 1.0": '{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}', "no method": '{"jsonrpc":"2.0","id":1}', "method is a number": '{"jsonrpc":"2.0","id":1,"method":1}', "text as parameters": call(',"params":"x"'),
    "object as parameters": call(',"params":{}'), "parameters missing": call(""), "parameters null": call(',"params":null'), "text as id": '{"jsonrpc":"2.0","id":"a","method":"eth_chainId"}', "null as id": '{"jsonrpc":"2.0","id":null,"method":"eth_chainId"}', "fraction as id": '{"jsonrpc":"2.0","id":1.5,"method":"eth_chainId"}',
    "object as id": '{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}', "no id": '{"jsonrpc":"2.0","method":"eth_chainId"}', "batch with one bad": `[${call("")},{},1]`, "batch of notifications": '[{"jsonrpc":"2.0","method":"eth_chainId"}]', "other fields": call(',"networkId":1'),
    "deep array": "[".repeat(deep) + "]".repeat(deep), "deep parameters": call(`,"params":${"[".repeat(deep)}${"]".repeat(deep)}`), "deep objects": `${'{"a":'.repeat(deep)}1${"}".repeat(deep)}`, "not UTF-8": Buffer.from([0x22, 0xff, 0x22]), "a long name": `{"jsonrpc":"2.0","id":1,"method":"${"x".repeat(100_000)}"}`,
    "half a surrogate": '{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', "a thousand digits": call(`,"x":${"9".repeat(1000)}`), "two values": `${call("")}${call("")}`, "twice the same field": '{"jsonrpc":"2.0","id":1,"method":"eth_chainId","method":"net_version"}',
  };
}

async function run() {
  const found = [];
  const worlds = Object.fromEntries(await Promise.all(Object.entries(NODES).map(async ([name, url]) => [name, await prepare(url)])));
  const [ours, theirs] = await Promise.all([requests(worlds.parsec), requests(worlds.anvil)]);
  for (const [n, [name, method, params]] of ours.entries()) {
    const [parsec, anvil] = await Promise.all([ask(NODES.parsec, method, params), ask(NODES.anvil, theirs[n][1], theirs[n][2])]);
    found.push(...differences(name, parsec, anvil));
  }
  for (const [name, body] of Object.entries(bodies())) {
    const told = async (url) => {
      const { status, json, text } = await post(url, body).catch((error) => ({ status: error.message }));
      const one = (answer) => (answer?.error ? answer.error.code : JSON.stringify(answer));
      return `${status} ${Array.isArray(json) ? json.map(one).join() : json === undefined ? JSON.stringify(text) : one(json)}`;
    };
    const [parsec, anvil] = await Promise.all([told(NODES.parsec), told(NODES.anvil)]);
    if (parsec !== anvil) found.push(`body, ${name}: ${parsec}, anvil ${anvil}`);
  }
  // Whatever was sent, it goes on.
  const alive = await ask(NODES.parsec, "eth_chainId", []);
  if (alive.result !== "0x7a69") found.push(`parsec does not answer any more: ${JSON.stringify(alive)}`);
  const unused = DIFFERENCES.filter(([pattern]) => !found.some((difference) => pattern.test(difference)));
  const unknown = found.filter((difference) => !DIFFERENCES.some(([pattern]) => pattern.test(difference)));
  console.log(`${ours.length} requests, ${Object.keys(bodies()).length} bodies, ${found.length} differences, ${unknown.length} of them without a reason`);
  unknown.forEach((difference) => console.log(`- ${difference}`));
  unused.forEach(([pattern]) => console.log(`- not found any more: ${pattern}`));
  process.exitCode = unknown.length + unused.length > 0 ? 1 : 0;
}

await run();
