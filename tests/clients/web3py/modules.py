"""The tests that ship with web3.py, and what their authors leave to be said by whoever runs them."""

from web3._utils.module_testing import Web3ModuleTest
from web3._utils.module_testing.web3_module import AsyncWeb3ModuleTest

# What `parsec dev` and anvil call themselves.
NODES = ("anvil-compatible/parsec/", "anvil/")


class NodeWeb3ModuleTest(Web3ModuleTest):
    def _check_web3_client_version(self, client_version):
        assert client_version.startswith(NODES)


class AsyncNodeWeb3ModuleTest(AsyncWeb3ModuleTest):
    def _check_web3_client_version(self, client_version):
        assert client_version.startswith(NODES)
