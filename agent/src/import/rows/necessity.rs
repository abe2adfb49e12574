//! Whether a row is required, optional or conditional, by its own column or by the words of its purpose.

use super::*;

/// Whether a requirement is needed, by its own column or by the words of its purpose.
pub(super) fn necessity(column: &str, purpose: &str) -> Necessity {
    let printed = words(column);
    match printed.as_str() {
        "" => {}
        "no" | "n" | "false" | "optional" | "recommended" | "not required" => {
            return Necessity::Optional;
        }
        "yes" | "y" | "true" | "required" | "mandatory" | "x" => return Necessity::Required,
        "conditional" => {
            return Necessity::Conditional {
                condition: "as the document says".to_owned(),
            };
        }
        _ => {
            return Necessity::Conditional {
                condition: squeeze(column),
            };
        }
    }
    let text = words(purpose);
    let padded = format!(" {text} ");
    for opening in [
        "if applicable",
        "if using",
        "if used",
        "if you",
        "if enabled",
        "if configured",
        "if required",
        "only if",
        "only when",
        "when using",
        "required when",
        "required if",
        "needed if",
        "needed when",
    ] {
        if padded.contains(&format!(" {opening} ")) {
            let lower = purpose.to_lowercase();
            let condition = lower
                .find(opening)
                .filter(|at| purpose.is_char_boundary(*at))
                .map_or(purpose, |at| &purpose[at..]);
            let condition = condition
                .split([')', '.', ';'])
                .next()
                .unwrap_or(condition)
                .trim();
            let negated = padded.contains(&format!(" not {opening} "));
            return Necessity::Conditional {
                condition: if negated {
                    format!("not {condition}")
                } else {
                    condition.to_owned()
                },
            };
        }
    }
    // In the middle of a sentence the word mostly speaks of a part of the row.
    if text == "optional"
        || text.starts_with("optional ")
        || purpose.to_lowercase().contains("(optional")
    {
        return Necessity::Optional;
    }
    Necessity::Required
}

/// Whether a text says that something is optional or conditional, for `lists`.
pub(in crate::import) fn necessity_of(text: &str) -> Necessity {
    necessity("", text)
}
