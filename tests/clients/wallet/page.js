// The page: it knows ethers and whatever wallet the browser has, and nothing of Parsec.
const wallet = () => new ethers.BrowserProvider(window.ethereum, "any", { pollingInterval: 100, cacheTimeout: -1 });
const other = ethers.Wallet.createRandom();
let signer, token;

const settings = fetch("/settings.json").then((answer) => answer.json());

const steps = {
  async network() {
    const { network } = await settings;
    await window.ethereum.request({ method: "wallet_addEthereumChain", params: [network] });
    return `chain ${(await wallet().getNetwork()).chainId}`;
  },
  async connect() {
    signer = await wallet().getSigner();
    const balance = await signer.provider.getBalance(signer.address);
    return `${signer.address} has ${ethers.formatEther(balance)}`;
  },
  async ether() {
    const sent = await signer.sendTransaction({ to: other.address, value: ethers.parseEther("1") });
    const receipt = await sent.wait();
    const balance = await signer.provider.getBalance(other.address);
    return `${ethers.formatEther(balance)} arrived, in block ${receipt.blockNumber}`;
  },
  async deploy() {
    const { abi, bytecode } = (await settings).token;
    token = await new ethers.ContractFactory(abi, bytecode, signer).deploy(ethers.parseEther("1000"));
    await token.waitForDeployment();
    return `${await token.symbol()} at ${token.target}`;
  },
  async transfer() {
    const receipt = await (await token.transfer(other.address, 25n)).wait();
    const [event] = await token.queryFilter(token.filters.Transfer(null, other.address), receipt.blockNumber);
    return `${event.args[2]} moved, ${await token.balanceOf(other.address)} there`;
  },
  async permit() {
    const { chainId } = await signer.provider.getNetwork();
    const domain = { name: await token.name(), version: "1", chainId, verifyingContract: token.target };
    const Permit = ["owner", "spender", "value", "nonce", "deadline"]
      .map((name, n) => ({ name, type: n < 2 ? "address" : "uint256" }));
    const [nonce, deadline] = [await token.nonces(signer.address), 2n ** 40n];
    const permit = { owner: signer.address, spender: other.address, value: 7n, nonce, deadline };
    const { v, r, s } = ethers.Signature.from(await signer.signTypedData(domain, { Permit }, permit));
    await (await token.permit(signer.address, other.address, 7n, deadline, v, r, s)).wait();
    return `${await token.allowance(signer.address, other.address)} permitted`;
  },
  async refused() {
    const balance = await token.balanceOf(signer.address);
    try {
      await token.transfer(other.address, balance + 1n);
    } catch (error) {
      return `refused: ${token.interface.parseError(error.data).name}`;
    }
    throw new Error("it was not refused");
  },
};

for (const [name, step] of Object.entries(steps)) {
  document.getElementById(name).addEventListener("click", async () => {
    const text = await step().catch((error) => `failed: ${error.message}`);
    const [term, detail] = ["dt", "dd"].map((tag) => document.createElement(tag));
    [term.textContent, detail.textContent, detail.id] = [name, text, `${name}-done`];
    document.getElementById("done").append(term, detail);
  });
}
