//! "Did you mean": the known text that is nearest to a mistyped one.

/// Longer texts get no proposal: comparing costs the product of the lengths.
const LONGEST: usize = 64;
/// How many known texts are compared at most.
const MOST: usize = 2_000;

/// The known text that is nearest to `text`, if one is near enough that it was probably meant.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > LONGEST {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let tolerance = (lower.len() / 3).clamp(1, 4);
    known
        .into_iter()
        .take(MOST)
        .filter(|candidate| candidate.len().abs_diff(lower.len()) <= tolerance)
        .map(|candidate| {
            (
                strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn proposes_only_what_is_near() {
        let known = ["halb", "secure-gateway", "parallels-client"];
        let check = |text: &str, expect| assert_eq!(nearest(text, known), expect, "{text}");
        check("hlab", Some("halb"));
        check("secure-gatway", Some("secure-gateway"));
        check("Secure-Gateway", Some("secure-gateway"));
        check("broker", None);
        check("", None);
        check(&"halb".repeat(100), None);
    }
}
