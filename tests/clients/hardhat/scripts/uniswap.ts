// Uniswap v2 as its authors published it: a market of two currencies, and an exchange by the router.
import { createRequire } from "node:module";
import { network } from "hardhat";

const { ethers } = await network.create();
const [maker, taker] = await ethers.getSigners();
const whole = (amount: string) => ethers.parseEther(amount);
const shown = (amount: bigint) => Number(ethers.formatEther(amount)).toFixed(4);
const mined = async (sent: Promise<any>) => (await sent).wait();

async function published(path: string, ...args: unknown[]): Promise<any> {
  const { abi, bytecode } = createRequire(import.meta.url)(path);
  const factory = await ethers.getContractFactory(abi, bytecode);
  return (await factory.deploy(...args)).waitForDeployment();
}

async function coin(name: string, symbol: string): Promise<any> {
  return (await ethers.deployContract("Coin", [name, symbol, whole("1000000")])).waitForDeployment();
}

// The market's contracts, and two currencies.
const weth = await published("@uniswap/v2-periphery/build/WETH9.json");
const factory = await published("@uniswap/v2-core/build/UniswapV2Factory.json", maker.address);
const router = await published("@uniswap/v2-periphery/build/UniswapV2Router02.json", factory.target, weth.target);
const [pound, euro] = [await coin("Digital Pound", "DGBP"), await coin("Digital Euro", "DEUR")];
console.log(`router ${router.target}\nDGBP   ${pound.target}\nDEUR   ${euro.target}`);

// 10,000 pounds and 12,000 euros make a pair: a pound is 1.2 euros.
const deadline = 2n ** 40n;
await mined(pound.approve(router.target, whole("10000")));
await mined(euro.approve(router.target, whole("12000")));
await mined(
  router.addLiquidity(pound.target, euro.target, whole("10000"), whole("12000"), 0, 0, maker.address, deadline),
);
const pairAt = await factory.getPair(pound.target, euro.target);
const pair: any = new ethers.Contract(
  pairAt,
  createRequire(import.meta.url)("@uniswap/v2-core/build/UniswapV2Pair.json").abi,
  maker,
);
console.log(`pair   ${pairAt}, ${shown(await pair.balanceOf(maker.address))} shares`);

// The taker exchanges 100 pounds, and accepts a hundredth less than was offered.
const path = [pound.target, euro.target];
const [, offered] = await router.getAmountsOut(whole("100"), path);
await mined(pound.transfer(taker.address, whole("100")));
await mined(pound.connect(taker).approve(router.target, whole("100")));
const receipt = await mined(
  router
    .connect(taker)
    .swapExactTokensForTokens(whole("100"), (offered * 99n) / 100n, path, taker.address, deadline),
);
const received = await euro.balanceOf(taker.address);
const swaps = await pair.queryFilter(pair.filters.Swap(), receipt.blockNumber, receipt.blockNumber);
console.log(`swap   100 DGBP for ${shown(received)} DEUR, ${receipt.gasUsed} gas, ${swaps.length} event`);
if (received !== offered) throw new Error(`${received} came, ${offered} was offered`);

// The maker takes half of the shares out again.
const shares = (await pair.balanceOf(maker.address)) / 2n;
await mined(pair.approve(router.target, shares));
await mined(router.removeLiquidity(pound.target, euro.target, shares, 0, 0, maker.address, deadline));
const [left, right] = await pair.getReserves();
console.log(`left   ${shown(left)} and ${shown(right)} in the pair`);
