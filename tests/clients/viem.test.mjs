// viem 2 against a node, as an application would use it.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { BaseError, ContractFunctionRevertedError, createPublicClient, createWalletClient, defineChain, getAddress, getContract, http, parseEther, webSocket } from "viem";
import { generatePrivateKey, mnemonicToAccount, privateKeyToAccount } from "viem/accounts";
import { HTTP, MNEMONIC, WS, compile } from "./world.mjs";

const contracts = compile();
const [alice, bob] = [4, 5].map((addressIndex) => mnemonicToAccount(MNEMONIC, { addressIndex }));
const options = { pollingInterval: 20, cacheTime: 0 };
let client, wallet, token, at;

const nobody = () => privateKeyToAccount(generatePrivateKey()).address;
const mined = async (hash) => client.waitForTransactionReceipt({ hash: await hash });

async function deploy({ abi, bytecode }, args = []) {
  const { contractAddress: address } = await mined(wallet.deployContract({ abi, bytecode, args }));
  return getContract({ address, abi, client: { public: client, wallet } });
}

before(async () => {
  const id = await createPublicClient({ transport: http(HTTP) }).getChainId();
  const chain = defineChain({ id, name: "Parsec", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [HTTP] } } });
  client = createPublicClient({ chain, transport: http(HTTP, { batch: true }), ...options });
  wallet = createWalletClient({ account: alice, chain, transport: http(HTTP), ...options });
  token = await deploy(contracts.Token, [parseEther("1000")]);
  at = { address: token.address, abi: token.abi };
});

test("requests in one batch are answered each", async () => {
  const [number, chain, balance, price] = await Promise.all([
    client.getBlockNumber(), client.getChainId(), client.getBalance({ address: alice.address }), client.getGasPrice(),
  ]);
  assert.ok(number > 0n && chain > 0 && balance > 0n && price >= 0n);
});

test("fees, counts and blocks with whole transactions", async () => {
  const receipt = await mined(wallet.sendTransaction({ to: nobody(), value: 1n }));
  const block = await client.getBlock({ blockHash: receipt.blockHash, includeTransactions: true });
  const sent = block.transactions.find((transaction) => transaction.hash === receipt.transactionHash);
  assert.equal(sent.from, alice.address.toLowerCase());
  assert.equal(await client.getBlockTransactionCount({ blockHash: receipt.blockHash }), block.transactions.length);
  const history = await client.getFeeHistory({ blockCount: 4, rewardPercentiles: [25, 75] });
  assert.equal(history.gasUsedRatio.length, history.reward.length);
  assert.equal(history.baseFeePerGas.length, history.reward.length + 1);
  const fees = await client.estimateFeesPerGas();
  assert.ok(fees.maxFeePerGas >= fees.maxPriorityFeePerGas);
});

test("a token is simulated, paid with, and its events are read", async () => {
  const to = nobody();
  const { request, result } = await client.simulateContract({ ...at, account: alice, functionName: "transfer", args: [to, 5n] });
  assert.equal(result, true);
  const receipt = await mined(wallet.writeContract(request));
  assert.equal(await token.read.balanceOf([to]), 5n);
  const [event] = await token.getEvents.Transfer({ to }, { fromBlock: receipt.blockNumber });
  assert.deepEqual([event.args.value, event.transactionHash], [5n, receipt.transactionHash]);
  assert.equal(await client.readContract({ ...at, functionName: "balanceOf", args: [to], blockNumber: receipt.blockNumber - 1n }), 0n);
});

test("a refusal has its name and its arguments", async () => {
  await assert.rejects(token.simulate.transfer([alice.address, 1n], { account: bob }), (error) => {
    assert.ok(error instanceof BaseError);
    const refused = error.walk((cause) => cause instanceof ContractFunctionRevertedError);
    assert.equal(refused.data.errorName, "ERC20InsufficientBalance");
    return true;
  });
  await assert.rejects(token.read.fail(["for a reason"]), /for a reason/);
});

test("what waits for a block is told of, and so are blocks and events, over WebSocket", async () => {
  // viem connects anew even after close(), and nothing closes that connection: node would never end.
  const socket = createPublicClient({ chain: client.chain, transport: webSocket(WS, { reconnect: false }), ...options });
  const seen = {};
  const to = nobody();
  const until = (name, watch) => new Promise((resolve, reject) => { seen[name] = watch(resolve, reject); });
  const block = until("blocks", (onBlock, onError) => socket.watchBlocks({ onBlock, onError }));
  const pending = until("pending", (onTransactions, onError) => socket.watchPendingTransactions({ onTransactions, onError }));
  const events = until("events", (onLogs, onError) => socket.watchContractEvent({ address: token.address, abi: token.abi, eventName: "Transfer", args: { to }, onLogs, onError }));
  await new Promise((resolve) => setTimeout(resolve, 300));
  const receipt = await mined(token.write.transfer([to, 4n]));
  assert.ok((await pending).includes(receipt.transactionHash));
  assert.equal((await events)[0].args.value, 4n);
  assert.equal((await block).number, receipt.blockNumber);
  Object.values(seen).forEach((stop) => stop());
  // What stops a watch asks the node to, and does not wait for its answer.
  await new Promise((resolve) => setTimeout(resolve, 100));
  (await socket.transport.getRpcClient()).close();
});

test("an account delegates and acts for itself (EIP-7702)", async () => {
  const logic = await deploy(contracts.Delegate);
  const account = privateKeyToAccount(generatePrivateKey());
  await mined(wallet.sendTransaction({ to: account.address, value: parseEther("1") }));
  const own = createWalletClient({ account, chain: client.chain, transport: http(HTTP) });
  const authorization = await own.signAuthorization({ contractAddress: logic.address, executor: "self" });
  const to = nobody();
  const receipt = await mined(own.writeContract({ abi: logic.abi, address: account.address, functionName: "execute", args: [[{ to, value: 7n, data: "0x" }]], authorizationList: [authorization] }));
  assert.equal(receipt.status, "success");
  assert.equal(await client.getBalance({ address: to }), 7n);
  assert.equal(getAddress(`0x${(await client.getCode({ address: account.address })).slice(8)}`), getAddress(logic.address));
});

test("a state is tried that is not there", async () => {
  const address = nobody();
  const balance = await client.readContract({ ...at, functionName: "balanceOf", args: [address], stateOverride: [{ address: token.address, code: "0x602a5f5260205ff3" }] });
  assert.equal(balance, 42n);
  const gas = await client.estimateGas({ account: address, to: bob.address, value: 1n, stateOverride: [{ address, balance: parseEther("1") }] });
  assert.equal(gas, 21_000n);
});
