//! What is shipped beside the binary speaks of every verb.

use std::fs;

#[path = "../examples/manual.rs"]
#[expect(dead_code, reason = "its `main` is the program's")]
mod manual;

#[test]
fn every_verb_has_a_page_and_every_shell_knows_every_verb() {
    let command = flowproof::cli::command();
    let verbs: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    let folder = tempfile::tempdir().unwrap();
    let files = manual::write(&command, folder.path()).unwrap();
    assert_eq!(files.len(), verbs.len() + 1 + 3);

    let overview = fs::read_to_string(folder.path().join("man/flowproof.1")).unwrap();
    for verb in &verbs {
        let path = folder.path().join(format!("man/flowproof-{verb}.1"));
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{}", path.display());
        assert!(
            page.contains(&format!("flowproof {verb}"))
                || page.contains(&format!("flowproof\\-{verb}")),
            "{page}"
        );
        assert!(
            overview.contains(&format!("flowproof\\-{verb}(1)")),
            "{verb} is not in {overview}"
        );
    }
    for shell in ["flowproof.bash", "_flowproof", "flowproof.fish"] {
        let text = fs::read_to_string(folder.path().join("completions").join(shell)).unwrap();
        for verb in &verbs {
            assert!(text.contains(verb), "{shell} does not know {verb}");
        }
    }
}
