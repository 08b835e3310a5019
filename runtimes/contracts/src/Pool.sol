// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

/// Swaps two tokens at the price that keeps the product of its reserves, less 0.3 %, in the manner
/// of Uniswap v2. Whoever sends it tokens before the first `sync` gives them away: a contract to
/// measure with.
contract Pool is ReentrancyGuard {
    using SafeERC20 for IERC20;

    IERC20 public immutable token0;
    IERC20 public immutable token1;
    uint112 public reserve0;
    uint112 public reserve1;

    constructor(IERC20 first, IERC20 second) {
        token0 = first;
        token1 = second;
    }

    /// Takes what it has for its reserves.
    function sync() public nonReentrant {
        _update();
    }

    /// Swaps `amount` of the first token (else of the second) for as much of the other as it gives.
    function swap(uint256 amount, bool first, uint256 least, address to) external nonReentrant {
        (IERC20 from, IERC20 into) = first ? (token0, token1) : (token1, token0);
        (uint256 held, uint256 other) = first ? (reserve0, reserve1) : (reserve1, reserve0);
        uint256 paid = amount * 997;
        uint256 given = (paid * other) / (held * 1000 + paid);
        require(given >= least && given > 0, "too little");
        from.safeTransferFrom(msg.sender, address(this), amount);
        into.safeTransfer(to, given);
        _update();
    }

    function _update() private {
        reserve0 = uint112(token0.balanceOf(address(this)));
        reserve1 = uint112(token1.balanceOf(address(this)));
    }
}
