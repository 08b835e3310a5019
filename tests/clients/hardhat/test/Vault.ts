import { expect } from "chai";
import { network } from "hardhat";

const { ethers, networkHelpers } = await network.create();
const { impersonateAccount, loadFixture, mine, setBalance, takeSnapshot, time } = networkHelpers;
const ether = 10n ** 18n;

async function deployed() {
  const [alice, bob] = await ethers.getSigners();
  return { alice, bob, vault: await ethers.deployContract("Vault") };
}

describe("Vault", () => {
  it("takes deposits", async () => {
    const { alice, vault } = await loadFixture(deployed);
    await time.setNextBlockTimestamp((await time.latest()) + 1_000);
    const until = BigInt(await time.latest()) + 1_060n;
    await expect(vault.deposit(60, { value: ether })).to.emit(vault, "Deposited").withArgs(alice, ether, until);
    expect(await vault.deposits(alice)).to.deep.equal([ether, until]);
    await expect(vault.deposit(60, { value: ether })).to.changeEtherBalances(ethers, [alice, vault], [-ether, ether]);
  });

  it("refuses, with the reason", async () => {
    const { alice, vault } = await loadFixture(deployed);
    await expect(vault.deposit(60)).to.be.revertedWith("send something");
    await expect(vault.withdraw()).to.be.revertedWithCustomError(vault, "Nothing").withArgs(alice);
    await expect(vault.withdraw({ gasLimit: 100_000 })).to.be.revertedWithCustomError(vault, "Nothing");
    await expect(alice.sendTransaction({ to: vault, value: 1 })).to.be.revertedWithoutReason(ethers);
  });

  it("gives back when the time has come", async () => {
    const { alice, vault } = await loadFixture(deployed);
    await vault.deposit(3_600, { value: ether });
    await mine(3);
    await expect(vault.withdraw()).to.be.revertedWithCustomError(vault, "TooEarly");
    await time.increase(3_600);
    await expect(vault.withdraw()).to.changeEtherBalance(ethers, alice, ether);
  });

  it("is taken back to a snapshot", async () => {
    const { alice, vault } = await loadFixture(deployed);
    const before = await takeSnapshot();
    await vault.deposit(1, { value: ether });
    await before.restore();
    expect((await vault.deposits(alice)).amount).to.equal(0n);
  });

  it("pays contracts, too, whoever has their keys", async () => {
    const { bob, vault } = await loadFixture(deployed);
    const nobody = ethers.Wallet.createRandom().address;
    await impersonateAccount(nobody);
    await setBalance(nobody, 2n * ether);
    const signer = await ethers.getSigner(nobody);
    await vault.connect(signer).deposit(0, { value: ether });
    await expect(vault.connect(bob).withdraw()).to.be.revertedWithCustomError(vault, "Nothing").withArgs(bob);
    const sent = await vault.connect(signer).withdraw();
    expect((await sent.wait())!.from).to.equal(nobody);
    expect((await vault.queryFilter(vault.filters.Withdrawn(nobody))).length).to.equal(1);
  });

  it("keeps the order of transactions that are sent at once", async () => {
    const { alice, vault } = await loadFixture(deployed);
    const sent = await Promise.all([1n, 2n, 3n, 4n].map((value) => vault.deposit(0, { value })));
    const receipts = await Promise.all(sent.map((each) => each.wait()));
    expect(receipts.every((receipt) => receipt!.status === 1)).to.equal(true);
    expect((await vault.deposits(alice)).amount).to.equal(10n);
  });
});
