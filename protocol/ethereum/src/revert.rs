//! What revert data says to people.

use alloy_primitives::U256;

/// The selectors of `Error(string)` and `Panic(uint256)`.
const ERROR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
const PANIC: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];

const WORD: usize = 32;

/// Why a contract reverted, as Solidity encodes a reason or a failed check; none if the data is
/// anything else.
#[must_use]
pub fn revert_reason(data: &[u8]) -> Option<String> {
    let (selector, arguments) = data.split_first_chunk::<4>()?;
    match *selector {
        ERROR => text(arguments),
        PANIC => word(arguments, 0).map(panic),
        _ => None,
    }
}

fn word(arguments: &[u8], at: usize) -> Option<U256> {
    let word = arguments.get(at..at.checked_add(WORD)?)?;
    U256::try_from_be_slice(word)
}

fn text(arguments: &[u8]) -> Option<String> {
    let at = usize::try_from(word(arguments, 0)?).ok()?;
    let length = usize::try_from(word(arguments, at)?).ok()?;
    let from = at.checked_add(WORD)?;
    let text = arguments.get(from..from.checked_add(length)?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn panic(code: U256) -> String {
    let known = match u8::try_from(code) {
        Ok(0x00) => "generic panic",
        Ok(0x01) => "assert(false)",
        Ok(0x11) => "arithmetic underflow or overflow",
        Ok(0x12) => "division or modulo by zero",
        Ok(0x21) => "enum overflow",
        Ok(0x22) => "invalid encoded storage byte array accessed",
        Ok(0x31) => "out-of-bounds array access; popping on an empty array",
        Ok(0x32) => "out-of-bounds access of an array or bytesN",
        Ok(0x41) => "out of memory",
        Ok(0x51) => "uninitialized function",
        _ => return format!("unknown panic code: {code:#x}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(selector: [u8; 4], words: &[U256], tail: &[u8]) -> Vec<u8> {
        let words = words.iter().flat_map(|word| word.to_be_bytes::<32>());
        selector.into_iter().chain(words).chain(tail.iter().copied()).collect()
    }

    #[test]
    fn reasons_and_panics_are_read() {
        let number = U256::from::<u64>;
        let data = encoded(ERROR, &[number(32), number(5)], b"sorry and padding");
        assert_eq!(revert_reason(&data).as_deref(), Some("sorry"));
        let panic = |code: u64| revert_reason(&encoded(PANIC, &[number(code)], &[]));
        assert_eq!(panic(0x11).as_deref(), Some("arithmetic underflow or overflow"));
        assert_eq!(panic(0x77).as_deref(), Some("unknown panic code: 0x77"));
    }

    #[test]
    fn what_is_neither_has_no_reason() {
        let number = U256::from::<u64>;
        for data in [
            Vec::new(),
            vec![8, 0xc3],
            ERROR.to_vec(),
            encoded([1, 2, 3, 4], &[number(32), number(0)], &[]),
            encoded(ERROR, &[number(32), number(9)], b"short"),
            encoded(ERROR, &[U256::MAX, number(1)], b"x"),
            encoded(ERROR, &[number(32), U256::MAX], b"x"),
            encoded(PANIC, &[], &[1; 31]),
        ] {
            assert_eq!(revert_reason(&data), None, "{data:x?}");
        }
    }
}
