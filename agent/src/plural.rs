//! Counts of things in words, as every text tells them.

use std::fmt::Display;

/// `1 error`, `2 errors`
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(counted(0_usize, "flow"), "0 flows");
        assert_eq!(counted(1_u64, "flow"), "1 flow");
        assert_eq!(counted(2_u64, "flow"), "2 flows");
    }
}
