"""Asynchronously, over WebSocket."""

from web3._utils.module_testing import (
    AsyncEthModuleTest,
    AsyncNetModuleTest,
    GoEthereumAsyncDebugModuleTest,
    GoEthereumAsyncTxPoolModuleTest,
)
from web3._utils.module_testing.persistent_connection_provider import PersistentConnectionProviderTest

from modules import AsyncNodeWeb3ModuleTest

TRANSPORT = "websocket"


class TestWeb3(AsyncNodeWeb3ModuleTest):
    pass


class TestEth(AsyncEthModuleTest):
    pass


class TestNet(AsyncNetModuleTest):
    pass


class TestDebug(GoEthereumAsyncDebugModuleTest):
    pass


class TestTxPool(GoEthereumAsyncTxPoolModuleTest):
    pass


class TestPersistentConnection(PersistentConnectionProviderTest):
    pass
