import ethers from "@nomicfoundation/hardhat-ethers";
import matchers from "@nomicfoundation/hardhat-ethers-chai-matchers";
import mocha from "@nomicfoundation/hardhat-mocha";
import helpers from "@nomicfoundation/hardhat-network-helpers";
import { defineConfig } from "hardhat/config";

const url = process.env.PARSEC_HTTP ?? "http://127.0.0.1:8545";
const mnemonic = "test test test test test test test test test test test junk";

export default defineConfig({
  plugins: [ethers, matchers, mocha, helpers],
  // The compiler of npm: nothing is downloaded.
  solidity: { compilers: [{ version: "0.8.30", path: `${import.meta.dirname}/node_modules/solc/soljson.js` }] },
  networks: {
    // The node signs, for the accounts that it has.
    parsec: { type: "http", url },
    // Hardhat signs, as it must with a cluster.
    signed: { type: "http", url, accounts: { mnemonic } },
  },
});
