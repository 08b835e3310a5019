// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

/// A token that can be paid with by signature, and called several times at once.
contract Token is ERC20Permit, Multicall {
    error TooMuch(address who, uint256 amount);

    constructor(uint256 supply) ERC20("Parsec Test Token", "PTT") ERC20Permit("Parsec Test Token") {
        _mint(msg.sender, supply);
    }

    function refuse(uint256 amount) external view {
        revert TooMuch(msg.sender, amount);
    }

    function fail(string calldata reason) external pure {
        require(false, reason);
    }

    function panic(uint256 by) external pure returns (uint256) {
        return 1 / by;
    }
}
