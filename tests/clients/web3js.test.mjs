// web3.js 4 against a node, as an application would use it.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { Web3, WebSocketProvider } from "web3";
import { ethers } from "ethers";
import { HTTP, MNEMONIC, WS, compile } from "./world.mjs";

const contracts = compile();
const web3 = new Web3(HTTP);
const keys = [6, 7].map((n) => ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${n}`).privateKey);
const [alice, bob] = keys.map((key) => web3.eth.accounts.wallet.add(key).at(-1).address);
const nobody = () => web3.eth.accounts.create().address;
let token;

web3.transactionPollingInterval = 50;
before(async () => {
  const { abi, bytecode } = contracts.Token;
  token = await new web3.eth.Contract(abi).deploy({ data: bytecode, arguments: [10n ** 24n] }).send({ from: alice });
  token.transactionPollingInterval = 50;
});

test("the network, its blocks and fees", async () => {
  assert.equal(BigInt(await web3.eth.net.getId()), await web3.eth.getChainId());
  assert.equal(await web3.eth.net.isListening(), true);
  assert.equal(await web3.eth.isSyncing(), false);
  const block = await web3.eth.getBlock("latest", true);
  assert.equal((await web3.eth.getBlock(block.hash)).number, block.number);
  assert.equal(await web3.eth.getBlockTransactionCount(block.hash), BigInt(block.transactions.length));
  const history = await web3.eth.getFeeHistory(2, "latest", [50]);
  assert.equal(history.reward.length, history.gasUsedRatio.length);
  const fees = await web3.eth.calculateFeeData();
  // web3.js takes a base fee of zero for none.
  assert.ok(fees.baseFeePerGas === 0n ? fees.gasPrice >= 0n : fees.maxFeePerGas >= fees.maxPriorityFeePerGas);
  const proof = web3.eth.getProof(alice, [`0x${"0".repeat(64)}`], "latest");
  // The state of a cluster is no trie.
  if (process.env.AGAINST === "cluster") await assert.rejects(proof, /not available/);
  else assert.equal((await proof).balance, await web3.eth.getBalance(alice));
});

test("Ether is sent, with every type of transaction that carries a fee", async () => {
  const to = nobody();
  for (const type of [0, 1, 2]) {
    const receipt = await web3.eth.sendTransaction({ from: alice, to, value: 1n, type, ...(type === 1 ? { accessList: [] } : {}) });
    assert.equal(receipt.status, 1n);
    assert.equal((await web3.eth.getTransaction(receipt.transactionHash)).type, BigInt(type));
  }
  assert.equal(await web3.eth.getBalance(to), 3n);
  assert.equal(await web3.eth.getTransaction(`0x${"12".repeat(32)}`).catch(() => null), null);
});

test("a token is paid with, and its events are found", async () => {
  const to = nobody();
  const gas = await token.methods.transfer(to, 5n).estimateGas({ from: alice });
  const receipt = await token.methods.transfer(to, 5n).send({ from: alice });
  assert.ok(gas >= receipt.gasUsed);
  assert.equal(receipt.events.Transfer.returnValues.value, 5n);
  assert.equal(await token.methods.balanceOf(to).call(), 5n);
  assert.equal(await token.methods.balanceOf(to).call({}, receipt.blockNumber - 1n), 0n);
  const past = await token.getPastEvents("Transfer", { filter: { to }, fromBlock: 0 });
  assert.deepEqual(past.map((event) => event.transactionHash), [receipt.transactionHash]);
  const { accessList } = await web3.eth.createAccessList({ from: alice, to: token.options.address, data: token.methods.transfer(to, 1n).encodeABI() });
  assert.equal(accessList[0].storageKeys.length, 2);
});

test("a refusal has its name and its reason", async () => {
  await assert.rejects(token.methods.transfer(alice, 10n ** 20n).call({ from: bob }), (error) => {
    assert.equal(error.cause.errorName, "ERC20InsufficientBalance");
    return true;
  });
  await assert.rejects(token.methods.fail("for a reason").call(), (error) => /for a reason/.test(`${error.message} ${error.cause?.message}`));
  const poor = web3.eth.accounts.create();
  const { rawTransaction } = await web3.eth.accounts.signTransaction({ to: alice, value: 1n, gas: 21_000n, gasPrice: 5n * 10n ** 9n, nonce: 0n, chainId: await web3.eth.getChainId() }, poor.privateKey);
  await assert.rejects(web3.eth.sendSignedTransaction(rawTransaction), (error) => /insufficient funds/i.test(`${error.message} ${error.reason}`));
});

test("blocks and events are told of over WebSocket", async () => {
  const socket = new Web3(new WebSocketProvider(WS, {}, { autoReconnect: false }));
  try {
    const to = nobody();
    const heads = await socket.eth.subscribe("newBlockHeaders");
    const logs = await socket.eth.subscribe("logs", { address: token.options.address });
    const head = new Promise((resolve, reject) => { heads.on("data", resolve); heads.on("error", reject); });
    const log = new Promise((resolve, reject) => { logs.on("data", resolve); logs.on("error", reject); });
    const receipt = await token.methods.transfer(to, 9n).send({ from: alice });
    assert.equal((await log).transactionHash, receipt.transactionHash);
    assert.ok((await head).number <= receipt.blockNumber);
    await heads.unsubscribe();
    await logs.unsubscribe();
  } finally {
    socket.provider.disconnect();
  }
});

test("a batch is answered", async () => {
  const batch = new web3.BatchRequest();
  const asked = [batch.add({ method: "eth_chainId", params: [] }), batch.add({ method: "eth_blockNumber", params: [] })];
  await batch.execute();
  const [chain, number] = await Promise.all(asked);
  assert.ok(BigInt(chain) > 0n && BigInt(number) > 0n);
});
