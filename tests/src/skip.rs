//! libtest has no skip at run time: a test that can't do its work here would count as passed, and nobody would know.
//! So it says so here, and `cargo xtask test` counts it as skipped and prints the reason.

use std::{env, fs::OpenOptions, io::Write as _};

/// Notes that `test` is skipped, and why; the caller returns straight after.
///
/// The note goes to the file named by `FLOWPROOF_SKIP_LOG` (one line, `test<TAB>reason`), and to standard output as
/// `SKIPPED test: reason`, which libtest shows with `--nocapture`.
///
/// # Panics
/// When the file can't be written: a skip that nobody hears of would be a false pass.
#[expect(clippy::print_stdout, reason = "this is a test's output")]
pub fn skip(test: &str, reason: &str) {
    let one_line = |text: &str| text.replace(['\n', '\t'], " ");
    let (test, reason) = (one_line(test), one_line(reason));
    println!("SKIPPED {test}: {reason}");
    let Some(log) = env::var_os("FLOWPROOF_SKIP_LOG") else {
        return;
    };
    // One write of a whole line on a file opened for appending: test binaries and threads share the file.
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .and_then(|mut file| file.write_all(format!("{test}\t{reason}\n").as_bytes()));
    if let Err(error) = written {
        panic!(
            "can't note the skip of {test} in {}: {error}",
            log.display()
        );
    }
}
