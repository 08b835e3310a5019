// A genesis file that funds the accounts of the mnemonic that development tools know.
import { ethers } from "ethers";
import { MNEMONIC } from "./world.mjs";

const root = ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, "m/44'/60'/0'/0");
const accounts = {};
for (let n = 0; n < 10; n++) accounts[root.deriveChild(n).address] = { balance: "0x21e19e0c9bab2400000" };
console.log(JSON.stringify({ accounts }, undefined, 1));
