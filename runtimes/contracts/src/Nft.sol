// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

/// An ERC-721 that anyone may mint, numbered from 1 on: what collections run on the day of their
/// sale. All mints write one counter.
contract Nft is ERC721 {
    uint256 public minted;

    constructor(string memory name, string memory symbol) ERC721(name, symbol) {}

    function mint() external returns (uint256 id) {
        id = ++minted;
        _mint(msg.sender, id);
    }
}
