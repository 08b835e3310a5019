// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

/// Tickets with numbers.
contract Ticket is ERC721 {
    uint256 public issued;

    constructor() ERC721("Ticket", "TIX") {}

    function issue(address to) external returns (uint256 number) {
        number = ++issued;
        _safeMint(to, number);
    }
}
