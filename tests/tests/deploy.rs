//! What is shipped for Prometheus works with the Prometheus that there is, speaks of metrics that there are, and tells an
//! operator what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::daemon::{binary, run_to_end};
use flowproof_tests::metrics::{Metrics, Sample};
use flowproof_tests::{skip, yaml};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
/// Labels that Prometheus adds to every series that it scrapes.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn prometheus() -> PathBuf {
    root().join("deploy/prometheus")
}

fn runbooks() -> PathBuf {
    root().join("docs/runbooks")
}

/// The text of the scrape that the daemon's own test holds it to.
fn golden() -> Result<String> {
    read(&root().join("agent/src/export/metrics.golden"))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

/// Files of a folder whose names end in `end`, in the order of their names.
fn files(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            paths.push(path);
        }
    }
    paths.sort();
    ensure!(
        !paths.is_empty(),
        "nothing in {} ends in {end}",
        folder.display()
    );
    Ok(paths)
}

fn items<'value>(value: &'value Value, key: &str) -> &'value [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'value>(value: &'value Value, key: &str) -> Result<&'value str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("no {key} in {value}"))
}

/// All rules of all files.
fn rules() -> Result<Vec<Value>> {
    let mut rules = Vec::new();
    for path in files(&prometheus(), ".yml")? {
        let file = yaml::read(&read(&path)?).with_context(|| path.display().to_string())?;
        for group in items(&file, "groups") {
            rules.extend_from_slice(items(group, "rules"));
        }
    }
    Ok(rules)
}

/// Those that are alerts, by name.
fn alerts() -> Result<BTreeMap<String, Value>> {
    let mut alerts = BTreeMap::new();
    for rule in rules()? {
        if let Ok(name) = text(&rule, "alert") {
            let name = name.to_owned();
            ensure!(
                alerts.insert(name.clone(), rule).is_none(),
                "{name} is there twice"
            );
        }
    }
    ensure!(!alerts.is_empty(), "there are no alerts");
    Ok(alerts)
}

/// Tests of rules, from all files.
fn tests() -> Result<Vec<Value>> {
    let mut tests = Vec::new();
    for path in files(&prometheus().join("tests"), ".test.yml")? {
        let file = yaml::read(&read(&path)?).with_context(|| path.display().to_string())?;
        tests.extend_from_slice(items(&file, "tests"));
    }
    Ok(tests)
}

/// Runs promtool, if it is there; false if not.
fn promtool(test: &str, arguments: &[&str], paths: &[PathBuf], input: Stdio) -> Result<bool> {
    let found = Command::new("promtool")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skip::skip(test, "promtool is missing: `apt-get install prometheus`");
        return Ok(false);
    }
    let mut command = Command::new("promtool");
    command.args(arguments).args(paths).stdin(input);
    let output = run_to_end(&mut command, LIMIT)?;
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said)
    );
    Ok(true)
}

#[test]
fn promtool_takes_the_rules() -> Result<()> {
    let files = files(&prometheus(), ".yml")?;
    promtool(
        "promtool_takes_the_rules",
        &["check", "rules"],
        &files,
        Stdio::null(),
    )?;
    Ok(())
}

#[test]
fn promtool_sees_every_alert_fire_and_stay_silent_where_it_should() -> Result<()> {
    let files = files(&prometheus().join("tests"), ".test.yml")?;
    promtool(
        "promtool_sees_every_alert_fire_and_stay_silent_where_it_should",
        &["test", "rules"],
        &files,
        Stdio::null(),
    )?;
    Ok(())
}

#[test]
fn promtool_finds_nothing_to_say_of_the_metrics() -> Result<()> {
    let scrape = fs::File::open(root().join("agent/src/export/metrics.golden"))?;
    promtool(
        "promtool_finds_nothing_to_say_of_the_metrics",
        &["check", "metrics"],
        &[],
        scrape.into(),
    )?;
    Ok(())
}

#[test]
fn every_alert_says_what_it_is_and_has_a_runbook() -> Result<()> {
    let contents = read(&runbooks().join("README.md"))?;
    let alerts = alerts()?;
    for (name, alert) in &alerts {
        let severity = text(&alert["labels"], "severity").context(name.clone())?;
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        let annotations = &alert["annotations"];
        for key in ["summary", "description"] {
            let words = text(annotations, key).context(name.clone())?;
            assert!(!words.trim().is_empty(), "{name} has an empty {key}");
        }
        let url = text(annotations, "runbook_url").context(name.clone())?;
        let end = format!("/docs/runbooks/{name}.md");
        assert!(
            url.starts_with("https://") && url.ends_with(&end),
            "{name}: {url}"
        );
        let page = read(&runbooks().join(format!("{name}.md")))?;
        for part in [
            format!("# {name}\n\nSeverity: {severity}."),
            "\n## Find out more\n".to_owned(),
            "\n## Usual causes\n".to_owned(),
            "\n## What to tell whom\n".to_owned(),
        ] {
            assert!(page.contains(&part), "{name}.md lacks {part:?}");
        }
        let line = format!("| [{name}]({name}.md) | {severity} |");
        assert!(
            contents.contains(&line),
            "README.md of the runbooks lacks {line}"
        );
    }
    for page in files(&runbooks(), ".md")? {
        let name = page.file_stem().unwrap_or_default().to_string_lossy();
        assert!(
            name == "README" || alerts.contains_key(&*name),
            "{name}.md is about no alert"
        );
    }
    Ok(())
}

#[test]
fn every_alert_is_tested_both_ways() -> Result<()> {
    let mut seen: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for test in tests()? {
        for case in items(&test, "alert_rule_test") {
            let fires = !items(case, "exp_alerts").is_empty();
            seen.entry(text(case, "alertname")?.to_owned())
                .or_default()
                .insert(fires);
        }
    }
    let alerts = alerts()?;
    for name in alerts.keys() {
        let cases = seen
            .get(name)
            .with_context(|| format!("{name} is tested nowhere"))?;
        assert_eq!(
            cases.len(),
            2,
            "{name} is tested one way only: fires {cases:?}"
        );
    }
    for name in seen.keys() {
        assert!(
            alerts.contains_key(name),
            "a test is about {name}, which is no alert"
        );
    }
    Ok(())
}

/// Names in an expression that are ours.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'))
        .filter(|word| word.starts_with("flowproof_") || word.starts_with("flowproof:"))
}

#[test]
fn rules_speak_of_metrics_that_there_are() -> Result<()> {
    let rules = rules()?;
    let mut known: BTreeSet<String> = Metrics::parse(&golden()?)?
        .samples
        .into_iter()
        .map(|sample| sample.name)
        .collect();
    known.extend(
        rules
            .iter()
            .filter_map(|rule| text(rule, "record").ok().map(str::to_owned)),
    );
    let mut used = 0;
    for rule in &rules {
        for name in names(text(rule, "expr")?) {
            assert!(known.contains(name), "there is no {name}: {rule}");
            used += 1;
        }
    }
    assert!(
        used > rules.len() / 2,
        "only {used} names were found in {} rules",
        rules.len()
    );
    Ok(())
}

/// A rule that is tested with labels that the daemon does not give is not tested.
#[test]
fn tests_of_rules_have_the_labels_that_the_daemon_gives() -> Result<()> {
    let labels = |sample: &Sample| -> BTreeSet<String> { sample.labels.keys().cloned().collect() };
    let known: BTreeMap<String, BTreeSet<String>> = Metrics::parse(&golden()?)?
        .samples
        .iter()
        .map(|sample| {
            let added = OF_THE_TARGET.map(str::to_owned);
            (
                sample.name.clone(),
                labels(sample).into_iter().chain(added).collect(),
            )
        })
        .collect();
    for test in tests()? {
        for series in items(&test, "input_series") {
            let series = text(series, "series")?;
            for sample in Metrics::parse(&format!("{series} 0"))?.samples {
                if sample.name == "up" {
                    continue;
                }
                let expect = known
                    .get(&sample.name)
                    .with_context(|| format!("no metric: {series}"))?;
                assert_eq!(&labels(&sample), expect, "{series}");
            }
        }
    }
    Ok(())
}

/// Commands of `flowproof` in a text: lines of its code blocks, and what stands between backquotes.
fn commands(page: &str) -> Vec<&str> {
    page.split('`')
        .flat_map(str::lines)
        .map(str::trim)
        .filter_map(|line| line.strip_prefix("flowproof "))
        .collect()
}

#[test]
fn commands_in_runbooks_exist() -> Result<()> {
    let mut texts = Vec::new();
    for page in files(&runbooks(), ".md")? {
        texts.push(read(&page)?);
    }
    for alert in alerts()?.values() {
        texts.push(text(&alert["annotations"], "description")?.to_owned());
    }
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;
    for command in texts.iter().flat_map(|text| commands(text)) {
        let command = command.split('#').next().unwrap_or_default();
        let mut words = command.split_whitespace();
        let verb = words.next().context("a command without a verb")?;
        if !helps.contains_key(verb) {
            let output = run_to_end(Command::new(binary()).args([verb, "--help"]), LIMIT)?;
            assert!(
                output.status.success(),
                "there is no `flowproof {verb}`: {command}"
            );
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            helps.insert(verb.to_owned(), help);
        }
        let help = &helps[verb];
        for option in words
            .take_while(|word| *word != "--")
            .filter(|word| word.starts_with("--"))
        {
            let known = help.lines().any(|line| {
                let line = line.trim_start();
                line.split_whitespace()
                    .take(2)
                    .any(|word| word.trim_end_matches(',').split(['[', '=']).next() == Some(option))
            });
            assert!(known, "`flowproof {verb}` has no {option}: {command}");
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} options were found");
    Ok(())
}
