//! Counters as sets: which additions a number is the sum of.
//!
//! Additions commute, so that no transaction reads what another one left before adding to it; a
//! client that reads a counter sees a sum. If each addition to one counter is another power of
//! four, then the digits of the sum, base four, say how often each took effect: the number is a
//! set, and an addition that took effect twice or three times is seen.

use crate::Element;

/// How many different additions one counter can take.
pub const ADDITIONS_MAX: u64 = 63;

/// What to add to a counter for its element of that number, if there is one.
///
/// ```
/// use parsec_history::{Element, counter};
///
/// let sum: i128 = [0, 5, 62].into_iter().filter_map(|n| counter::amount(Element(n))).sum();
/// let elements = counter::elements(sum.unsigned_abs());
/// assert_eq!(elements, Some(vec![Element(0), Element(5), Element(62)]));
/// ```
#[must_use]
pub fn amount(element: Element) -> Option<i128> {
    (element.0 < ADDITIONS_MAX).then(|| 1 << (2 * element.0))
}

/// The elements of a counter, each as often as it was added, up to three times. `None` if it is no
/// sum of [`amount`]s.
#[must_use]
pub fn elements(sum: u128) -> Option<Vec<Element>> {
    let digit = |element: u64| (sum >> (2 * element)) & 3;
    let times = |element| (0..digit(element)).map(move |_| Element(element));
    (sum >> (2 * ADDITIONS_MAX) == 0).then(|| (0..ADDITIONS_MAX).flat_map(times).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_that_took_effect_twice_is_seen() {
        let sum = 2 * amount(Element(3)).unwrap() + amount(Element(4)).unwrap();
        let expected = [3, 3, 4].map(Element).to_vec();
        assert_eq!(elements(sum.unsigned_abs()), Some(expected));
    }

    #[test]
    fn what_is_no_sum_of_additions_has_no_elements() {
        assert_eq!(amount(Element(ADDITIONS_MAX)), None);
        assert_eq!(elements(1 << (2 * ADDITIONS_MAX)), None);
        assert_eq!(elements(0), Some(Vec::new()));
    }
}
