// The page in a headless Chromium, whose wallet is injected: everything is asked from inside the browser,
// under its rules of origins.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import chromium from "@sparticuz/chromium";
import { ethers } from "ethers";
import puppeteer from "puppeteer-core";
import { HTTP, MNEMONIC } from "../world.mjs";
import { ETHERS, serve } from "./serve.mjs";

// An account that no other client's test uses.
const keys = ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, "m/44'/60'/0'/0/6");
let server, browser, page;

before(async () => {
  server = await serve();
  const executablePath = await chromium.executablePath();
  browser = await puppeteer.launch({ executablePath, args: chromium.args, headless: "shell" });
  page = await browser.newPage();
  const wallet = readFileSync(new URL("wallet.js", import.meta.url), "utf8");
  await page.evaluateOnNewDocument(`${ETHERS};\n${wallet.replace("KEY", JSON.stringify(keys.privateKey))}`);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** Clicks, and returns what the page then says. */
async function step(name) {
  await page.click(`#${name}`);
  const element = await page.waitForSelector(`#${name}-done`, { timeout: 20_000 });
  return element.evaluate((element) => element.textContent);
}

test("the network is added to the wallet", async () => {
  const provider = new ethers.JsonRpcProvider(HTTP);
  assert.equal(await step("network"), `chain ${(await provider.getNetwork()).chainId}`);
  provider.destroy();
});

test("the page is connected to the account of the wallet", async () => {
  assert.match(await step("connect"), new RegExp(`^${keys.address} has \\d+`));
});

test("the currency is sent", async () => {
  assert.match(await step("ether"), /^1\.0 arrived, in block \d+$/);
});

test("a token is deployed and transferred", async () => {
  assert.match(await step("deploy"), /^\w+ at 0x[0-9a-fA-F]{40}$/);
  assert.equal(await step("transfer"), "25 moved, 25 there");
});

test("the wallet signs a permit", async () => {
  assert.equal(await step("permit"), "7 permitted");
});

test("what the contract says when it refuses reaches the page through the wallet", async () => {
  assert.equal(await step("refused"), "refused: ERC20InsufficientBalance");
});

test("the wallet asked what wallets ask", async () => {
  const asked = await page.evaluate(() => window.ethereum.asked);
  for (const method of ["net_version", "eth_feeHistory", "eth_gasPrice", "eth_estimateGas", "eth_sendRawTransaction"]) {
    assert.ok(asked.includes(method), method);
  }
});
