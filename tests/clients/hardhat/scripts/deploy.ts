import { network } from "hardhat";

const { ethers } = await network.create();
const vault = await ethers.deployContract("Vault");
await vault.waitForDeployment();
const receipt = await (await vault.deposit(0, { value: 1n })).wait();
const [amount] = await vault.deposits((await ethers.getSigners())[0]);
console.log(`Vault at ${await vault.getAddress()}, ${amount} wei in it since block ${receipt.blockNumber}`);
