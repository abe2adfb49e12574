//! What would change the state of a row, in words: for whoever asks what is left to do until it is green.

use crate::matrix::Necessity;
use crate::verdict::requirement::State;

/// What the words are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The state of the service.
    pub(super) state: State,
    /// Why, by its name in JSON.
    pub(super) cause: Option<&'a str>,
    /// ``a flow from `client` to `server` on tcp/443``
    pub(super) flow: &'a str,
    /// Whether nobody owes it an answer, so that being sent without an error is all there is to prove.
    pub(super) unanswerable: bool,
    /// The window, in words, if the state is over one.
    pub(super) window: Option<&'a str>,
    /// Whether it is needed.
    pub(super) necessity: &'a Necessity,
}

/// What would change the state.
pub(super) fn outlook(subject: Subject<'_>) -> String {
    let Subject {
        state,
        cause,
        flow,
        unanswerable,
        window,
        necessity,
    } = subject;
    let works = if unanswerable {
        "is sent without an error"
    } else {
        "is answered"
    };
    match state {
        State::Verified => {
            let silent = window
                .map(|window| format!(", and silent when none was seen for {window}"))
                .unwrap_or_default();
            format!("becomes degraded when {flow} fails{silent}")
        }
        State::Degraded => {
            format!("becomes verified again when {flow} {works} and none fails after it")
        }
        State::Blocked => format!("becomes verified when {flow} {works}"),
        State::Silent => {
            let why = match cause {
                Some("name_never_resolved") => {
                    "nobody asked for the name that it goes to, so nobody can have tried"
                }
                Some("name_does_not_resolve") => {
                    "who asked for the name that it goes to was told no address: mend the name first"
                }
                Some(_) | None => "nobody attempted it, and it would have been seen",
            };
            let problem = match necessity {
                Necessity::Required => "",
                Necessity::Optional => "; it is optional, so that this is no problem",
                Necessity::Conditional { .. } => {
                    "; it is needed only on a condition, so that this is no problem by itself"
                }
            };
            format!("silent because {why}{problem}; becomes verified when {flow} {works}")
        }
        State::Unobservable => unobservable(cause).to_owned(),
        State::Unknown => match cause {
            Some("one_way") => format!(
                "it was sent, and neither an answer nor an error came back: becomes verified when {flow} {works}"
            ),
            Some("pending") => format!(
                "attempted, and not decided yet: becomes verified when {flow} {works}, blocked when it fails"
            ),
            Some("not_watched") => spoiled("time that nobody watched", window, flow, works),
            Some(_) | None => spoiled("losses", window, flow, works),
        },
    }
}

fn spoiled(what: &str, window: Option<&str>, flow: &str, works: &str) -> String {
    let passes = window.map_or_else(
        || "a capture is without them".to_owned(),
        |window| format!("{window} pass without any"),
    );
    format!(
        "nothing was seen, which proves nothing because of {what}: becomes silent when {passes}, verified when {flow} {works}"
    )
}

fn unobservable(cause: Option<&str>) -> &'static str {
    match cause {
        Some("role_not_bound") => {
            "stays unobservable until the site file binds the role that is bound to nothing"
        }
        Some("role_unknown") => "stays unobservable: the document does not say who is at one end",
        Some("no_services") => {
            "stays unobservable: the document names no port, so that no flow can be told to be its"
        }
        Some("other_host") => {
            "stays unobservable from here: it never leaves its host; run flowproof there"
        }
        Some("not_captured_here") => {
            "stays unobservable from here: capture where one of its ends is, or mend `observe` in the site file"
        }
        Some("link_upkeep") => "stays unobservable: upkeep of the link is never judged",
        Some(_) | None => "stays unobservable from here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of what is said.
    #[track_caller]
    fn check(state: State, cause: Option<&str>, necessity: &Necessity, part: &str) -> String {
        let text = outlook(Subject {
            state,
            cause,
            flow: "a flow",
            unanswerable: false,
            window: Some("1day"),
            necessity,
        });
        assert!(text.contains(part), "{text}");
        text
    }

    #[test]
    fn every_state_says_what_would_change_it() {
        let required = &Necessity::Required;
        check(
            State::Verified,
            None,
            required,
            "silent when none was seen for 1day",
        );
        check(
            State::Degraded,
            Some("refused"),
            required,
            "verified again when a flow",
        );
        check(
            State::Blocked,
            Some("no_answer"),
            required,
            "verified when a flow is answered",
        );
        let text = check(State::Silent, None, required, "nobody attempted it");
        assert!(!text.contains("no problem"), "{text}");
        let group = outlook(Subject {
            state: State::Silent,
            cause: None,
            flow: "a flow",
            unanswerable: true,
            window: None,
            necessity: required,
        });
        assert!(
            group.ends_with("when a flow is sent without an error"),
            "{group}"
        );
        check(State::Silent, None, &Necessity::Optional, "it is optional");
        check(
            State::Silent,
            Some("name_never_resolved"),
            required,
            "nobody asked",
        );
        check(
            State::Silent,
            Some("name_does_not_resolve"),
            required,
            "mend the name",
        );
        check(
            State::Unknown,
            Some("loss"),
            required,
            "because of losses: becomes silent when 1day pass",
        );
        check(
            State::Unknown,
            Some("not_watched"),
            required,
            "time that nobody watched",
        );
        check(
            State::Unknown,
            Some("one_way"),
            required,
            "neither an answer nor an error",
        );
        check(State::Unknown, Some("pending"), required, "not decided yet");
        check(
            State::Unobservable,
            Some("role_not_bound"),
            required,
            "binds the role",
        );
        check(
            State::Unobservable,
            Some("other_host"),
            required,
            "run flowproof there",
        );
    }
}
