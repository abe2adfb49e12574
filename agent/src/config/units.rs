//! Sizes and durations as people write them: `16MiB`, `512KB`, `65536`; `500ms`, `10s`, `1h`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

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

/// A whole number times its unit, which does not mind case and may have a blank before it. Nothing if the text is none;
/// nothing inside if it overflows 64 bits, which is out of any range.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<Option<u64>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    if number.is_empty() {
        return None;
    }
    let number: Option<u64> = number.parse().ok();
    Some(number.and_then(|number| number.checked_mul(*factor)))
}

/// Reads a size within a range, in bytes. Units do not mind case and may have a blank before them.
///
/// # Errors
/// [`SizeError`] names the text and what to write.
pub fn parse_size(text: &str, range: RangeInclusive<u32>) -> Result<u32, SizeError> {
    scaled(text, &UNITS)
        .ok_or_else(|| SizeError::Form(text.to_owned()))?
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| SizeError::Range {
            text: text.to_owned(),
            least: *range.start(),
            most: *range.end(),
        })
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is no number with a unit.
    #[error(
        "`{0}` is not a duration: write a whole number with ms, s, m, h or d, such as `10s` or `5m`"
    )]
    Form(String),
    /// The duration is outside of what is allowed.
    #[error("`{text}` is out of range: use {} to {}", Written(*.least), Written(*.most))]
    Range {
        /// The text as it was written.
        text: String,
        /// The shortest duration allowed.
        least: Duration,
        /// The longest duration allowed.
        most: Duration,
    },
}

/// Milliseconds of each unit, the longest first.
const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration within a range, in whole milliseconds. A unit is needed, may have a blank before it, and does not
/// mind case.
///
/// # Errors
/// [`DurationError`] names the text and what to write.
pub fn parse_duration(
    text: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, DurationError> {
    scaled(text, &DURATIONS)
        .ok_or_else(|| DurationError::Form(text.to_owned()))?
        .map(Duration::from_millis)
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| DurationError::Range {
            text: text.to_owned(),
            least: *range.start(),
            most: *range.end(),
        })
}

/// A duration in the longest unit that needs no fraction, as [`parse_duration`] reads it.
pub(super) struct Written(pub(super) Duration);

impl fmt::Display for Written {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_millis();
        if whole == 0 {
            return formatter.write_str("0s");
        }
        let (unit, factor) = DURATIONS
            .into_iter()
            .find(|(_, factor)| whole.is_multiple_of(u128::from(*factor)))
            .unwrap_or(("ms", 1));
        write!(formatter, "{}{unit}", whole / u128::from(factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let range = Duration::from_millis(250)..=Duration::from_secs(7 * 86_400);
        let check = |text: &str, expect: Result<u64, &str>| match (
            parse_duration(text, range.clone()),
            expect,
        ) {
            (Ok(got), Ok(expect)) => assert_eq!(got, Duration::from_millis(expect), "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        };
        check("250ms", Ok(250));
        check("10s", Ok(10_000));
        check("10 S", Ok(10_000));
        check("5m", Ok(300_000));
        check("1h", Ok(3_600_000));
        check("7d", Ok(604_800_000));
        check("249ms", Err("`249ms` is out of range: use 250ms to 7d"));
        check("0s", Err("out of range"));
        check("169h", Err("out of range"));
        check("99999999999999999999d", Err("out of range"));
        check("9999999999999999999d", Err("out of range"));
        check("10", Err("`10` is not a duration"));
        check("", Err("is not a duration"));
        check("s", Err("is not a duration"));
        check("-1s", Err("is not a duration"));
        check("1.5h", Err("is not a duration"));
        check("1h30m", Err("is not a duration"));
        check("2 weeks", Err("ms, s, m, h or d"));
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        let check = |millis: u64, expect: &str| {
            assert_eq!(Written(Duration::from_millis(millis)).to_string(), expect);
        };
        check(0, "0s");
        check(1_500, "1500ms");
        check(90_000, "90s");
        check(3_600_000, "1h");
        check(604_800_000, "7d");
    }

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
