// ethers 6 against a node, as an application would use it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ethers } from "ethers";
import { HTTP, MNEMONIC, UNISWAP, WS, compile } from "./world.mjs";

const provider = new ethers.JsonRpcProvider(HTTP, undefined, { pollingInterval: 20, cacheTimeout: -1 });
const contracts = compile();
const root = ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, "m/44'/60'/0'/0");
// Its own accounts, so that other clients may run at the same time.
const [alice, bob, carol] = [0, 1, 2].map((n) => root.deriveChild(n).connect(provider));

async function deploy({ abi, bytecode }, signer, ...args) {
  const contract = await new ethers.ContractFactory(abi, bytecode, signer).deploy(...args);
  await contract.waitForDeployment();
  return contract;
}

const mined = async (sent) => (await sent).wait();
const once = (what) => ethers.parseEther(what);

/** The name of the error that a contract gave up with. */
const refusal = (contract, error) => error.revert?.name ?? (error.data ? contract.interface.parseError(error.data)?.name : undefined);

let token;
before(async () => {
  token = await deploy(contracts.Token, alice, once("1000000"));
});
after(() => provider.destroy());

test("the network is what it says", async () => {
  const network = await provider.getNetwork();
  assert.equal(BigInt(await provider.send("net_version", [])), network.chainId);
  const block = await provider.getBlock("latest");
  assert.ok(block.number > 0 && block.hash.length === 66 && block.gasLimit > 0n);
  assert.equal((await provider.getBlock(block.number)).hash, block.hash);
  assert.equal((await provider.getBlock(block.hash)).number, block.number);
  assert.equal((await provider.getBlock(block.number - 1)).hash, block.parentHash);
  assert.equal(await provider.getBlock(10n ** 9n), null);
});

test("Ether is sent, with every type of transaction that carries a fee", async () => {
  const to = ethers.Wallet.createRandom().address;
  const fees = await provider.getFeeData();
  const gasPrice = fees.gasPrice ?? 0n;
  await mined(alice.sendTransaction({ to, value: 1n, type: 0, gasPrice }));
  await mined(alice.sendTransaction({ to, value: 2n, type: 1, gasPrice, accessList: [] }));
  const receipt = await mined(alice.sendTransaction({ to, value: 3n, type: 2 }));
  assert.equal(await provider.getBalance(to), 6n);
  assert.equal(receipt.status, 1);
  assert.equal(receipt.gasUsed, 21_000n);
  const sent = await provider.getTransaction(receipt.hash);
  assert.equal(sent.from, alice.address);
  assert.equal(sent.blockHash, receipt.blockHash);
  assert.equal(sent.type, 2);
  assert.equal(await provider.getBalance(to, receipt.blockNumber - 1), 3n);
});

test("a token is paid with, and its events are found", async () => {
  const to = ethers.Wallet.createRandom().address;
  const estimated = await token.transfer.estimateGas(to, 5n);
  const receipt = await mined(token.transfer(to, 5n));
  assert.ok(estimated >= receipt.gasUsed && estimated < receipt.gasUsed * 2n);
  assert.equal(await token.balanceOf(to), 5n);
  assert.equal(await token.balanceOf(to, { blockTag: receipt.blockNumber - 1 }), 0n);
  const [event] = await token.queryFilter(token.filters.Transfer(null, to), 0);
  assert.deepEqual([...event.args], [alice.address, to, 5n]);
  assert.equal(event.transactionHash, receipt.hash);
  const byHash = await provider.getLogs({ blockHash: receipt.blockHash, address: token.target });
  assert.ok(byHash.some((log) => log.transactionHash === receipt.hash));
  const paidTo = [null, null, ethers.zeroPadValue(to, 32)];
  const earlier = { fromBlock: 0, toBlock: receipt.blockNumber - 1, address: token.target, topics: paidTo };
  assert.equal((await provider.getLogs(earlier)).length, 0);
});

test("what contracts say when they refuse reaches the caller", async () => {
  await assert.rejects(token.connect(bob).transfer(alice.address, 1n), (error) => {
    assert.equal(error.code, "CALL_EXCEPTION");
    assert.equal(refusal(token, error), "ERC20InsufficientBalance");
    return true;
  });
  await assert.rejects(token.connect(bob).refuse(7n), (error) => {
    assert.equal(refusal(token, error), "TooMuch");
    assert.equal(token.interface.parseError(error.data).args[1], 7n);
    return true;
  });
  await assert.rejects(token.fail("for no good reason"), /for no good reason/);
  await assert.rejects(token.panic(0n), (error) => refusal(token, error) === "Panic");
  await assert.rejects(bob.estimateGas({ to: token.target, data: "0x12345678" }), /CALL_EXCEPTION|missing revert data|execution reverted/);
});

test("a transaction that fails is in a block, and has paid", async () => {
  const before = await provider.getBalance(bob.address);
  const sent = await token.connect(bob).transfer(alice.address, 1n, { gasLimit: 100_000n });
  await assert.rejects(sent.wait(), (error) => error.code === "CALL_EXCEPTION" && error.receipt.status === 0);
  const receipt = await provider.getTransactionReceipt(sent.hash);
  assert.equal(receipt.status, 0);
  assert.equal(receipt.logs.length, 0);
  assert.equal(before - (await provider.getBalance(bob.address)), receipt.gasUsed * receipt.gasPrice);
});

test("what can't be paid or comes too late is refused at once", async () => {
  const poor = ethers.Wallet.createRandom().connect(provider);
  const { chainId } = await provider.getNetwork();
  const base = { to: bob.address, value: 1n, chainId, gasLimit: 21_000n, type: 2, maxFeePerGas: 10n ** 10n, maxPriorityFeePerGas: 0n };
  await assert.rejects(provider.broadcastTransaction(await poor.signTransaction({ ...base, nonce: 0 })), { code: "INSUFFICIENT_FUNDS" });
  await assert.rejects(provider.broadcastTransaction(await alice.signTransaction({ ...base, nonce: 0 })), { code: "NONCE_EXPIRED" });
});

test("a payment is allowed by signature (EIP-2612), and several calls go in one", async () => {
  const { chainId } = await provider.getNetwork();
  const domain = { name: await token.name(), version: "1", chainId, verifyingContract: token.target };
  const Permit = ["owner", "spender", "value", "nonce", "deadline"].map((name, n) => ({ name, type: n < 2 ? "address" : "uint256" }));
  const deadline = 2n ** 40n;
  const message = { owner: alice.address, spender: bob.address, value: 11n, nonce: await token.nonces(alice.address), deadline };
  const { v, r, s } = ethers.Signature.from(await alice.signTypedData(domain, { Permit }, message));
  await mined(token.connect(bob).permit(alice.address, bob.address, 11n, deadline, v, r, s));
  assert.equal(await token.allowance(alice.address, bob.address), 11n);
  const calls = [
    token.interface.encodeFunctionData("transfer", [carol.address, 1n]),
    token.interface.encodeFunctionData("transfer", [carol.address, 2n]),
  ];
  const receipt = await mined(token.multicall(calls));
  assert.equal(receipt.logs.length, 2);
  assert.deepEqual(receipt.logs.map((log) => log.index - receipt.logs[0].index), [0, 1]);
});

test("a ticket is issued (ERC-721)", async () => {
  const ticket = await deploy(contracts.Ticket, alice);
  assert.equal(await ticket.issue.staticCall(bob.address), 1n);
  await mined(ticket.issue(bob.address));
  assert.equal(await ticket.ownerOf(1n), bob.address);
  await mined(ticket.connect(bob).transferFrom(bob.address, carol.address, 1n));
  assert.equal(await ticket.ownerOf(1n), carol.address);
  // A contract that does not take tickets.
  await assert.rejects(ticket.issue(token.target), (error) => refusal(ticket, error) === "ERC721InvalidReceiver");
});

test("a contract behind a proxy is upgraded (UUPS)", async () => {
  const logic = await deploy(contracts.Counter, alice);
  const proxy = await deploy(contracts.CounterProxy, alice, logic.target, logic.interface.encodeFunctionData("initialize"));
  const counter = new ethers.Contract(proxy.target, contracts.Counter.abi, alice);
  await mined(counter.count());
  assert.equal(await counter.total(), 1n);
  const faster = await deploy(contracts.FasterCounter, alice);
  await assert.rejects(counter.connect(bob).upgradeToAndCall(faster.target, "0x"), /not the owner/);
  await mined(counter.upgradeToAndCall(faster.target, "0x"));
  await mined(counter.count());
  assert.equal(await counter.total(), 11n);
  const slot = ethers.toBeHex(BigInt(ethers.id("eip1967.proxy.implementation")) - 1n, 32);
  const stored = await provider.getStorage(proxy.target, slot);
  assert.equal(ethers.getAddress(ethers.dataSlice(stored, 12)), faster.target);
  assert.equal(await provider.getCode(logic.target), await provider.getCode(logic.target, "latest"));
});

test("Uniswap v2: a pool, liquidity and a swap", async () => {
  const weth = await deploy(UNISWAP.weth(), alice);
  const factory = await deploy(UNISWAP.factory(), alice, alice.address);
  const router = await deploy(UNISWAP.router(), alice, factory.target, weth.target);
  const other = await deploy(contracts.Token, alice, once("1000000"));
  await mined(token.approve(router.target, ethers.MaxUint256));
  await mined(other.approve(router.target, ethers.MaxUint256));
  const late = 2n ** 40n;
  await mined(router.addLiquidity(token.target, other.target, once("1000"), once("2000"), 0n, 0n, alice.address, late));
  const pair = new ethers.Contract(await factory.getPair(token.target, other.target), UNISWAP.pair().abi, alice);
  assert.ok((await pair.totalSupply()) > 0n);
  const path = [token.target, other.target];
  const [, out] = await router.getAmountsOut(once("10"), path);
  const before = await other.balanceOf(bob.address);
  // Without a gas limit: the estimate has to be enough for the oracle's update, too.
  const receipt = await mined(router.swapExactTokensForTokens(once("10"), 0n, path, bob.address, late));
  assert.equal((await other.balanceOf(bob.address)) - before, out);
  assert.equal(receipt.status, 1);
  await mined(router.addLiquidityETH(token.target, once("100"), 0n, 0n, alice.address, late, { value: once("1") }));
  await mined(router.swapExactETHForTokens(0n, [weth.target, token.target], carol.address, late, { value: once("0.01") }));
  assert.ok((await token.balanceOf(carol.address)) > 0n);
});

test("a contract sees the chain as its blocks show it", async () => {
  const mirror = await deploy(contracts.Mirror, alice);
  for (let n = 0; n < 3; n++) {
    const receipt = await mined(mirror.look());
    const [number, parent, chain, baseFee, gasLimit] = mirror.interface.parseLog(receipt.logs[0]).args;
    const block = await provider.getBlock(receipt.blockNumber);
    assert.deepEqual([number, chain], [BigInt(block.number), (await provider.getNetwork()).chainId]);
    assert.equal(parent, block.parentHash);
    assert.deepEqual([baseFee, gasLimit], [block.baseFeePerGas, block.gasLimit]);
  }
});

test("an account delegates to a contract (EIP-7702)", async () => {
  const logic = await deploy(contracts.Delegate, alice);
  const fresh = ethers.Wallet.createRandom().connect(provider);
  await mined(alice.sendTransaction({ to: fresh.address, value: once("1") }));
  const authorization = await fresh.authorize({ address: logic.target, nonce: 0 });
  await mined(alice.sendTransaction({ type: 4, to: fresh.address, authorizationList: [authorization], gasLimit: 200_000n }));
  assert.equal(await provider.getCode(fresh.address), ethers.concat(["0xef0100", logic.target]).toLowerCase());
  const delegated = new ethers.Contract(fresh.address, contracts.Delegate.abi, fresh);
  const receipt = await mined(delegated.execute([{ to: bob.address, value: 7n, data: "0x" }]));
  assert.equal(receipt.logs[0].address, fresh.address);
});

test("many transactions of one account, sent at once, are all done in their order", async () => {
  const first = await provider.getTransactionCount(carol.address, "pending");
  const to = ethers.Wallet.createRandom().address;
  const sent = await Promise.all(
    Array.from({ length: 20 }, (_, n) => carol.sendTransaction({ to, value: BigInt(n), nonce: first + n, gasLimit: 21_000n })),
  );
  const receipts = await Promise.all(sent.map((transaction) => transaction.wait()));
  assert.equal(await provider.getBalance(to), 190n);
  assert.equal(await provider.getTransactionCount(carol.address), first + 20);
  const places = receipts.map((receipt) => receipt.blockNumber * 100_000 + receipt.index);
  assert.deepEqual([...places].sort((a, b) => a - b), places);
});

test("a subscription tells of blocks and of a contract's events", async () => {
  const socket = new ethers.WebSocketProvider(WS);
  try {
    const watched = token.connect(socket);
    const block = new Promise((resolve) => socket.once("block", resolve));
    const to = ethers.Wallet.createRandom().address;
    const event = new Promise((resolve) => watched.once(watched.filters.Transfer(null, to), (...it) => resolve(it)));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const receipt = await mined(token.transfer(to, 9n));
    assert.equal((await event).at(-1).args[2], 9n);
    assert.ok((await block) <= receipt.blockNumber);
  } finally {
    await socket.removeAllListeners();
    await new Promise((resolve) => setTimeout(resolve, 100));
    await socket.destroy();
  }
});

test("polled filters tell of blocks and of events, and end", async () => {
  const to = ethers.Wallet.createRandom().address;
  const topics = [ethers.id("Transfer(address,address,uint256)"), null, ethers.zeroPadValue(to, 32)];
  const logs = await provider.send("eth_newFilter", [{ address: token.target, topics }]);
  const blocks = await provider.send("eth_newBlockFilter", []);
  const receipt = await mined(token.transfer(to, 3n));
  const changes = await provider.send("eth_getFilterChanges", [logs]);
  assert.deepEqual(changes.map((log) => log.transactionHash), [receipt.hash]);
  assert.deepEqual(await provider.send("eth_getFilterChanges", [logs]), []);
  assert.equal((await provider.send("eth_getFilterLogs", [logs])).length, 1);
  assert.ok((await provider.send("eth_getFilterChanges", [blocks])).includes(receipt.blockHash));
  assert.equal(await provider.send("eth_uninstallFilter", [logs]), true);
  assert.equal(await provider.send("eth_uninstallFilter", [logs]), false);
  await assert.rejects(provider.send("eth_getFilterChanges", [logs]), /filter not found/);
});

test("a call is tried with another state, traced, and its access list is told", async () => {
  const data = token.interface.encodeFunctionData("balanceOf", [carol.address]);
  const code = "0x602a5f5260205ff3"; // Returns 42.
  const overridden = await provider.send("eth_call", [{ to: token.target, data }, "latest", { [token.target]: { code } }]);
  assert.equal(BigInt(overridden), 42n);
  const transfer = token.interface.encodeFunctionData("transfer", [bob.address, 1n]);
  const call = { from: alice.address, to: token.target, data: transfer };
  const { accessList, gasUsed } = await provider.send("eth_createAccessList", [call, "latest"]);
  assert.equal(accessList.length, 1);
  assert.equal(accessList[0].storageKeys.length, 2);
  assert.ok(BigInt(gasUsed) > 21_000n);
  const receipt = await mined(token.transfer(bob.address, 1n));
  const frame = await provider.send("debug_traceTransaction", [receipt.hash, { tracer: "callTracer", tracerConfig: { withLog: true } }]);
  assert.equal(frame.type, "CALL");
  assert.equal(BigInt(frame.gasUsed), receipt.gasUsed);
  assert.equal(frame.logs.length, 1);
  const { structLogs, failed } = await provider.send("debug_traceTransaction", [receipt.hash, {}]);
  assert.equal(failed, false);
  assert.ok(structLogs.length > 100, `${structLogs.length} steps, the last is ${structLogs.at(-1)?.op}`);
  const prestate = await provider.send("debug_traceTransaction", [receipt.hash, { tracer: "prestateTracer" }]);
  assert.ok(Object.keys(prestate).includes(token.target.toLowerCase()));
});
