"""What web3.py's own provider tests need to find on a chain, made over JSON-RPC.

The tests come with the package (`web3._utils.module_testing`); its authors run them against geth. Here they run
against the node at NODE_HTTP, black-box, with the first development account where they want an unlocked one.
"""

import os

import pytest
import pytest_asyncio
from eth_account import Account
from eth_utils import to_bytes
from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3, WebSocketProvider
from web3._utils.contract_sources.contract_data._custom_contract_data import EMITTER_ENUM
from web3._utils.contract_sources.contract_data.emitter_contract import EMITTER_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.math_contract import MATH_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.offchain_lookup import (
    OFFCHAIN_LOOKUP_ABI,
    OFFCHAIN_LOOKUP_BYTECODE,
)
from web3._utils.contract_sources.contract_data.panic_errors_contract import PANIC_ERRORS_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.revert_contract import REVERT_CONTRACT_DATA
from web3._utils.contract_sources.contract_data.storage_contract import STORAGE_CONTRACT_DATA
from web3._utils.module_testing.utils import RequestMocker
from web3.middleware import SignAndSendRawMiddlewareBuilder

import expected

HTTP = os.environ["NODE_HTTP"]
WS = HTTP.replace("http", "ws", 1)
MNEMONIC = "test test test test test test test test test test test junk"
# Whether the client signs, with a key of its own, what it would else have the node sign.
CLIENT_SIGNS = os.environ.get("CLIENT_SIGNS") == "1"

CONTRACTS = {
    "math": MATH_CONTRACT_DATA,
    "emitter": EMITTER_CONTRACT_DATA,
    "revert": REVERT_CONTRACT_DATA,
    "offchain": {"abi": OFFCHAIN_LOOKUP_ABI, "bytecode": OFFCHAIN_LOOKUP_BYTECODE},
    "panic": PANIC_ERRORS_CONTRACT_DATA,
    "storage": STORAGE_CONTRACT_DATA,
}


def pytest_collection_modifyitems(items):
    for item in items:
        reason = expected.reason(item, CLIENT_SIGNS)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason))


def connect():
    return Web3(HTTPProvider(HTTP, request_kwargs={"timeout": 10}))


def mine(w3):
    w3.provider.make_request("evm_mine", [])


class World:
    """What stands on the chain before the first test."""

    def __init__(self):
        w3 = connect()
        Account.enable_unaudited_hdwallet_features()
        key = Account.from_mnemonic(MNEMONIC).key
        self.key = key.to_0x_hex()
        self.account = w3.eth.accounts[0]
        assert Account.from_key(key).address == self.account
        self.addresses, self.deployed = {}, {}
        for name, data in CONTRACTS.items():
            receipt = self.mined(w3, w3.eth.contract(**data).constructor().transact({"from": self.account}))
            self.addresses[name] = receipt["contractAddress"]
            self.deployed[name] = receipt["transactionHash"]
        emitter = w3.eth.contract(address=self.addresses["emitter"], **CONTRACTS["emitter"])
        log = emitter.functions.logDouble(which=EMITTER_ENUM["LogDoubleWithIndex"], arg0=12345, arg1=54321)
        logged = self.mined(w3, log.transact({"from": self.account}))
        self.with_log, self.block_with_log = logged["transactionHash"], logged["blockHash"]
        mine(w3)
        self.empty_block = w3.eth.get_block("latest")["hash"]
        paid = {"from": self.account, "to": self.account, "value": 1, "gas": 21000, "gasPrice": w3.eth.gas_price}
        receipt = self.mined(w3, w3.eth.send_transaction(paid))
        self.transaction, self.block_with_transaction = receipt["transactionHash"], receipt["blockHash"]

    @staticmethod
    def mined(w3, transaction):
        mine(w3)
        return w3.eth.wait_for_transaction_receipt(transaction, timeout=10, poll_latency=0.05)


@pytest.fixture(scope="session")
def world():
    return World()


@pytest.fixture(autouse=True)
def as_it_was(world):
    """Each test finds the chain as it was made, as if it had a node of its own, and has a second until its first block."""
    ask = connect().provider.make_request
    snapshot = ask("evm_snapshot", [])["result"]
    ask("evm_setIntervalMining", [1])
    yield
    ask("anvil_dropAllTransactions", [])
    assert ask("evm_revert", [snapshot])["result"] is True


# --- clients ---


def signing(w3, world):
    if CLIENT_SIGNS:
        w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(world.key), layer=0)
    return w3


@pytest.fixture
def w3(world):
    return signing(connect(), world)


async def http_client(world):
    w3 = AsyncWeb3(AsyncHTTPProvider(HTTP))
    yield signing(w3, world)
    await w3.provider.disconnect()


async def websocket_client(world):
    async with AsyncWeb3(WebSocketProvider(WS, request_timeout=10)) as w3:
        yield signing(w3, world)


@pytest_asyncio.fixture
async def async_w3(request, world):
    client = {"http": http_client, "websocket": websocket_client}[request.module.TRANSPORT]
    async for w3 in client(world):
        yield w3


# --- what the tests take ---


@pytest.fixture(scope="module", params=[lambda address: to_bytes(hexstr=address), lambda address: address], ids=["bytes", "text"])
def address_conversion_func(request):
    return request.param


@pytest.fixture
def skip_if_testrpc():
    return lambda _: None


@pytest.fixture
def async_skip_if_testrpc():
    return lambda _: None


@pytest.fixture
def request_mocker():
    return RequestMocker


@pytest.fixture
def keyfile_account_pkey(world):
    return world.key


@pytest.fixture
def keyfile_account_address(world):
    return world.account


@pytest.fixture
def keyfile_account_address_dual_type(world, address_conversion_func):
    return world.account


@pytest_asyncio.fixture
async def async_keyfile_account_address(world):
    return world.account


@pytest_asyncio.fixture
async def async_keyfile_account_address_dual_type(world, address_conversion_func):
    return world.account


@pytest.fixture
def math_contract_deploy_txn_hash(world):
    return world.deployed["math"]


@pytest.fixture
def mined_txn_hash(world):
    return world.transaction


@pytest.fixture
def txn_hash_with_log(world):
    return world.with_log


BLOCKS = {
    "empty_block": "empty_block",
    "block_with_txn": "block_with_transaction",
    "block_with_txn_with_log": "block_with_log",
}


def add_block(name, attribute):
    @pytest.fixture(name=name)
    def block(w3, world):
        return w3.eth.get_block(getattr(world, attribute))

    @pytest_asyncio.fixture(name=f"async_{name}")
    async def async_block(async_w3, world):
        return await async_w3.eth.get_block(getattr(world, attribute))

    globals()[f"{name}_fixture"], globals()[f"async_{name}_fixture"] = block, async_block


def add_contract(name, contract):
    @pytest.fixture(name=name)
    def of(w3, world):
        return w3.eth.contract(address=world.addresses[contract], **CONTRACTS[contract])

    @pytest.fixture(name=f"async_{name}")
    def async_of(async_w3, world):
        return async_w3.eth.contract(address=world.addresses[contract], **CONTRACTS[contract])

    @pytest.fixture(name=f"{name}_address")
    def address(world, address_conversion_func):
        return address_conversion_func(world.addresses[contract])

    @pytest.fixture(name=f"async_{name}_address")
    def async_address(world, address_conversion_func):
        return address_conversion_func(world.addresses[contract])

    for fixture in (of, async_of, address, async_address):
        globals()[f"{fixture.__name__}_{name}"] = fixture


for name, attribute in BLOCKS.items():
    add_block(name, attribute)
for name, contract in {
    "math_contract": "math",
    "emitter_contract": "emitter",
    "revert_contract": "revert",
    "offchain_lookup_contract": "offchain",
    "panic_errors_contract": "panic",
    "storage_contract": "storage",
}.items():
    add_contract(name, contract)
