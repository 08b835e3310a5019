// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// Keeps deposits until their time has come.
contract Vault {
    struct Deposit {
        uint256 amount;
        uint256 until;
    }

    mapping(address => Deposit) public deposits;

    event Deposited(address indexed owner, uint256 amount, uint256 until);
    event Withdrawn(address indexed owner, uint256 amount);

    error TooEarly(uint256 now_, uint256 until);
    error Nothing(address owner);

    function deposit(uint256 seconds_) external payable {
        require(msg.value > 0, "send something");
        Deposit storage mine = deposits[msg.sender];
        mine.amount += msg.value;
        mine.until = block.timestamp + seconds_;
        emit Deposited(msg.sender, mine.amount, mine.until);
    }

    function withdraw() external {
        Deposit memory mine = deposits[msg.sender];
        if (mine.amount == 0) revert Nothing(msg.sender);
        if (block.timestamp < mine.until) revert TooEarly(block.timestamp, mine.until);
        delete deposits[msg.sender];
        emit Withdrawn(msg.sender, mine.amount);
        payable(msg.sender).transfer(mine.amount);
    }
}
