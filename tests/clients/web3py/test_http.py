"""One request after the other, over HTTP."""

from web3._utils.module_testing import (
    EthModuleTest,
    GoEthereumDebugModuleTest,
    GoEthereumTxPoolModuleTest,
    NetModuleTest,
)

from modules import NodeWeb3ModuleTest


class TestWeb3(NodeWeb3ModuleTest):
    pass


class TestEth(EthModuleTest):
    pass


class TestNet(NetModuleTest):
    pass


class TestDebug(GoEthereumDebugModuleTest):
    pass


class TestTxPool(GoEthereumTxPoolModuleTest):
    pass
