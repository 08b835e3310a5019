// A wallet as a browser's extension injects one (EIP-1193): it keeps a key, asks the node from inside the
// browser, and does what MetaMask does before it sends. Its user agrees to everything.
(() => {
  const keys = new ethers.Wallet(KEY);
  const listeners = new Map();
  const asked = [];
  let network;

  const refusal = (code, message, data) => Object.assign(new Error(message), { code, data });
  const emit = (event, value) => (listeners.get(event) ?? []).forEach((listener) => listener(value));

  async function ask(url, method, params) {
    asked.push(method);
    const body = JSON.stringify({ jsonrpc: "2.0", id: asked.length, method, params });
    const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    const { result, error } = await answer.json();
    if (error) throw refusal(error.code, error.message, error.data);
    return result;
  }
  const node = (method, ...params) => ask(network.rpcUrls[0], method, params);

  async function add(wanted) {
    // MetaMask refuses a network whose node says another chain id.
    const chainId = await ask(wanted.rpcUrls[0], "eth_chainId", []);
    if (chainId !== wanted.chainId) throw refusal(-32602, `Chain ID returned by RPC URL is ${chainId}`);
    const version = await ask(wanted.rpcUrls[0], "net_version", []);
    if (BigInt(version) !== BigInt(chainId)) throw refusal(-32602, `the network is ${version}`);
    network = wanted;
    emit("chainChanged", chainId);
    return null;
  }

  /** What is shown to the user, who then agrees: who is paid, the gas, and the fees of late. */
  async function complete(wanted) {
    const latest = await node("eth_getBlockByNumber", "latest", false);
    if (wanted.to) await node("eth_getCode", wanted.to, "latest");
    const history = await node("eth_feeHistory", "0x5", "latest", [10, 20, 30]);
    const tips = (history.reward ?? []).map(([, middle]) => BigInt(middle));
    const tip = tips.reduce((most, tip) => (tip > most ? tip : most), 0n);
    const gasPrice = BigInt(await node("eth_gasPrice"));
    const next = BigInt(history.baseFeePerGas.at(-1));
    if (gasPrice < next) throw refusal(-32603, "the gas price is below the base fee");
    return {
      type: 2,
      to: wanted.to ?? null,
      data: wanted.data ?? "0x",
      value: wanted.value ?? "0x0",
      chainId: network.chainId,
      nonce: Number(await node("eth_getTransactionCount", wanted.from, "pending")),
      gasLimit: wanted.gas ?? (await node("eth_estimateGas", { ...wanted, gas: undefined })),
      maxPriorityFeePerGas: tip,
      maxFeePerGas: 2n * BigInt(latest.baseFeePerGas) + next + tip,
    };
  }

  async function typed([, text]) {
    const { domain, types, message } = JSON.parse(text);
    delete types.EIP712Domain;
    return keys.signTypedData(domain, types, message);
  }

  const own = {
    eth_requestAccounts: async () => [keys.address],
    eth_accounts: async () => [keys.address],
    eth_chainId: async () => network.chainId,
    wallet_addEthereumChain: ([wanted]) => add(wanted),
    personal_sign: ([text]) => keys.signMessage(ethers.getBytes(text)),
    eth_signTypedData_v4: typed,
    eth_sendTransaction: async ([wanted]) =>
      node("eth_sendRawTransaction", await keys.signTransaction(await complete(wanted))),
  };

  window.ethereum = {
    request: ({ method, params = [] }) => (own[method] ?? ((params) => node(method, ...params)))(params),
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    removeListener: (event, listener) =>
      listeners.set(event, (listeners.get(event) ?? []).filter((known) => known !== listener)),
    asked,
  };
})();
