"""The tests that fail here, each with its reason. One that passes all the same fails the run: the list stays true."""

SIGN_TRANSACTION = (
    "geth answers eth_signTransaction with an object; the execution APIs, ethers and viem have the raw transaction, "
    "and so has Parsec"
)
TYPED_DATA_WORDS = "the data is refused, but not in the words of eth-tester, which alone says 'Expected 2 items'"
TYPED_DATA_CLIENT = "web3.py 8.0.0 fails before it asks: async_map_if_collection takes values() for items()"

ALWAYS = {
    SIGN_TRANSACTION: [
        "test_eth_sign_transaction",
        "test_eth_sign_transaction_legacy",
        "test_eth_sign_transaction_hex_fees",
        "test_eth_sign_transaction_ens_names",
        "test_async_eth_sign_transaction",
        "test_async_eth_sign_transaction_legacy",
        "test_async_eth_sign_transaction_hex_fees",
        "test_async_eth_sign_transaction_ens_names",
    ],
    TYPED_DATA_WORDS: ["test_http::test_invalid_eth_sign_typed_data"],
    TYPED_DATA_CLIENT: [
        f"test_async_{transport}::test_{kind}eth_sign_typed_data"
        for transport in ("http", "websocket")
        for kind in ("", "invalid_")
    ],
}
# With a client that signs itself, these too: eth-account refuses what web3.py gives it, and nothing is sent.
SIGNED_BY_CLIENT = {
    "eth-account takes no type 0 from web3.py's modify_transaction": ["test_eth_modify_transaction_legacy"],
    "web3.py adds a gasPrice to a transaction of type 2": ["test_gas_price_from_strategy_bypassed_for_dynamic_fee_txn"],
}


def reason(item, client_signs):
    """Why a test is expected to fail; nothing if it is not."""
    names = (item.originalname, f"{item.module.__name__}::{item.originalname}")
    tables = [ALWAYS, SIGNED_BY_CLIENT] if client_signs else [ALWAYS]
    found = (why for table in tables for why, tests in table.items() if any(name in tests for name in names))
    return next(found, None)
