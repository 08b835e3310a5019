// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";

/// Counts, behind a proxy that its owner may upgrade.
contract Counter is UUPSUpgradeable {
    event Counted(address indexed by, uint256 total);

    address public owner;
    uint256 public total;

    function initialize() external virtual {
        require(owner == address(0), "initialized");
        owner = msg.sender;
    }

    function step() public pure virtual returns (uint256) {
        return 1;
    }

    function count() external {
        total += step();
        emit Counted(msg.sender, total);
    }

    function _authorizeUpgrade(address) internal view override {
        require(msg.sender == owner, "not the owner");
    }
}

contract FasterCounter is Counter {
    function step() public pure override returns (uint256) {
        return 10;
    }
}

contract CounterProxy is ERC1967Proxy {
    constructor(address logic, bytes memory data) ERC1967Proxy(logic, data) {}
}

/// Looks at the chain, for what only a real node gets right.
contract Mirror {
    event Seen(uint256 number, bytes32 parent, uint256 chain, uint256 baseFee, uint256 gasLimit);

    function look() external {
        emit Seen(block.number, blockhash(block.number - 1), block.chainid, block.basefee, block.gaslimit);
    }
}

/// What an account may delegate to (EIP-7702): calls on its behalf.
contract Delegate {
    struct Call { address to; uint256 value; bytes data; }

    event Executed(address indexed by, uint256 calls);

    receive() external payable {}

    function execute(Call[] calldata calls) external payable {
        require(msg.sender == address(this), "only for itself");
        for (uint256 i = 0; i < calls.length; i++) {
            (bool ok,) = calls[i].to.call{value: calls[i].value}(calls[i].data);
            require(ok, "a call failed");
        }
        emit Executed(address(this), calls.length);
    }
}
