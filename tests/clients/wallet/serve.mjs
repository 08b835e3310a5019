// Serves the page: node serve.mjs [PORT], with PARSEC_HTTP naming the node that the wallet is to use.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { HTTP, compile } from "../world.mjs";

const require = createRequire(import.meta.url);
const read = (name) => readFileSync(new URL(name, import.meta.url));
export const ETHERS = readFileSync(require.resolve("ethers").replace(/lib\.commonjs.*/, "dist/ethers.umd.min.js"));

/** What a wallet is told of a network (EIP-3085). */
export async function network() {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] });
  const answer = await fetch(HTTP, { method: "POST", headers: { "content-type": "application/json" }, body });
  const chainId = (await answer.json()).result;
  const nativeCurrency = { name: "Parsec", symbol: "PSC", decimals: 18 };
  return { chainId, chainName: "Parsec", rpcUrls: [HTTP], nativeCurrency };
}

/** Starts the server; its address is that of a page of another origin than the node's. */
export async function serve(port = 0) {
  const settings = JSON.stringify({ network: await network(), token: compile().Token });
  const pages = {
    "/": ["text/html", read("index.html")],
    "/page.js": ["text/javascript", read("page.js")],
    "/ethers.js": ["text/javascript", ETHERS],
    "/settings.json": ["application/json", settings],
  };
  const server = createServer((request, answer) => {
    const [type, content] = pages[request.url] ?? ["text/plain", ""];
    answer.writeHead(request.url in pages ? 200 : 404, { "content-type": type }).end(content);
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return server;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const server = await serve(Number(process.argv[2] ?? 8000));
  console.log(`http://127.0.0.1:${server.address().port}`);
}
