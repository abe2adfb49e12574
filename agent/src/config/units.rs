//! Sizes as people write them: `16MiB`, `512KB`, `65536`.

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The text is no number with a unit.
    #[error(
        "`{0}` is not a size: write bytes, or a whole number with KiB, MiB, GiB, KB, MB or GB, such as `16MiB`"
    )]
    Form(String),
    /// The size is outside of what is allowed.
    #[error("`{text}` is out of range: use {least} to {most} bytes")]
    Range {
        /// The text as it was written.
        text: String,
        /// The smallest size allowed, bytes.
        least: u32,
        /// The greatest size allowed, bytes.
        most: u32,
    },
}

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

/// Reads a size within a range, in bytes. Units do not mind case and may have a blank before them.
///
/// # Errors
/// [`SizeError`] names the text and what to write.
pub fn parse_size(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, SizeError> {
    let form = || SizeError::Form(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(form)?;
    if number.is_empty() {
        return Err(form());
    }
    // What overflows 64 bits is out of any range.
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| SizeError::Range {
            text: text.to_owned(),
            least: *range.start(),
            most: *range.end(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        let check = |text: &str, expect: Result<u32, &str>| match (
            parse_size(text, 64..=1 << 30),
            expect,
        ) {
            (Ok(size), Ok(expect)) => assert_eq!(size, expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        };
        check("65536", Ok(65_536));
        check("16MiB", Ok(16 << 20));
        check("16 mib", Ok(16 << 20));
        check("2MB", Ok(2_000_000));
        check("1GiB", Ok(1 << 30));
        check("64B", Ok(64));
        check("63", Err("64 to 1073741824"));
        check("2GiB", Err("out of range"));
        check("99999999999999999999999GiB", Err("out of range"));
        check("", Err("is not a size"));
        check("MiB", Err("is not a size"));
        check("1.5MiB", Err("is not a size"));
        check("-1", Err("is not a size"));
        check("16M", Err("is not a size"));
    }
}
