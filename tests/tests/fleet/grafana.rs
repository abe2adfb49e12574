//! The dashboards: valid by themselves, and every query of theirs answered with data by a real Prometheus. A Grafana is not here to
//! draw them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::yaml;
use serde_json::Value;

use crate::prometheus::{Prometheus, encoded, rules};

fn grafana() -> PathBuf {
    rules().join("../grafana")
}

/// Dashboards by file name.
fn dashboards() -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(grafana().join("dashboards"))? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let value =
            serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| name.clone())?;
        all.insert(name, value);
    }
    ensure!(all.len() >= 4, "only {} dashboards", all.len());
    Ok(all)
}

fn items<'value>(value: &'value Value, key: &str) -> &'value [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    value[key].as_str().unwrap_or_default()
}

/// All panels, those in rows that are folded too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let outer = items(dashboard, "panels").iter();
    outer
        .flat_map(|panel| std::iter::once(panel).chain(items(panel, "panels")))
        .collect()
}

/// Expressions of panels and annotations.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        for target in items(panel, "targets") {
            all.push((
                text(panel, "title").to_owned(),
                text(target, "expr").to_owned(),
            ));
        }
    }
    all
}

fn variables(dashboard: &Value) -> &[Value] {
    items(&dashboard["templating"], "list")
}

/// A text with the variables of a dashboard replaced, as Grafana does when "All" is chosen, or what the lab has where there is no "All".
fn filled(expression: &str, dashboard: &Value) -> String {
    let mut text = expression
        .replace("$__rate_interval", "30s")
        .replace("$__interval", "15s")
        .replace("$__range", "5m");
    for variable in variables(dashboard) {
        let name = self::text(variable, "name");
        let value = match (self::text(variable, "allValue"), name) {
            ("", "system") => "shop",
            ("", "requirement") => "browse",
            (all, _) => all,
        };
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// Runs every query of every dashboard.
pub(crate) fn every_panel_has_data(prometheus: &Prometheus) -> Result<()> {
    let mut empty = Vec::new();
    let mut asked = 0;
    for (name, dashboard) in dashboards()? {
        for (title, expression) in expressions(&dashboard) {
            let query = filled(&expression, &dashboard);
            ensure!(!query.contains('$'), "{name}, {title}: what is in {query}?");
            let samples = prometheus
                .query(&query)
                .with_context(|| format!("{name}, {title}"))?;
            asked += 1;
            if samples.is_empty() {
                empty.push(format!("{name}, {title}: {query}"));
            }
        }
        for variable in variables(&dashboard) {
            let query = filled(text(variable, "definition"), &dashboard);
            let Some(inside) = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
            else {
                ensure!(text(variable, "type") == "datasource", "{name}: {query}");
                continue;
            };
            let (series, label) = inside
                .rsplit_once(", ")
                .context("label_values of a series")?;
            let path = format!(
                "/api/v1/label/{label}/values?match%5B%5D={}",
                encoded(series)
            );
            asked += 1;
            if prometheus.api(&path)?.as_array().is_none_or(Vec::is_empty) {
                empty.push(format!(
                    "{name}, variable {}: {query}",
                    text(variable, "name")
                ));
            }
        }
        // What was written beside the graphs may have nothing to say, and must be valid.
        for annotation in items(&dashboard["annotations"], "list") {
            if let Some(expression) = annotation["expr"].as_str() {
                prometheus.query(&filled(expression, &dashboard))?;
            }
        }
    }
    ensure!(
        empty.is_empty(),
        "these show nothing:\n{}",
        empty.join("\n")
    );
    ensure!(asked > 40, "only {asked} queries were found");
    Ok(())
}

#[test]
fn dashboards_are_what_grafana_takes() -> Result<()> {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards()? {
        let uid = text(&dashboard, "uid");
        ensure!(uid == name && uid.len() <= 40, "{name} has the uid {uid}");
        ensure!(uids.insert(uid.to_owned()), "{uid} is there twice");
        ensure!(
            dashboard["schemaVersion"].as_u64() >= Some(39),
            "{name}: schemaVersion"
        );
        ensure!(
            dashboard["id"].is_null(),
            "{name} has an id of some Grafana"
        );
        ensure!(
            !text(&dashboard, "description").is_empty(),
            "{name} has no description"
        );
        let known: BTreeSet<&str> = variables(&dashboard)
            .iter()
            .map(|variable| text(variable, "name"))
            .collect();
        ensure!(
            known.contains("datasource") && known.contains("job"),
            "{name}: {known:?}"
        );
        let mut ids = BTreeSet::new();
        let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = text(panel, "title");
            ensure!(
                ids.insert(panel["id"].as_u64()),
                "{name}, {title}: its id is there twice"
            );
            let place = |key: &str| {
                panel["gridPos"][key]
                    .as_u64()
                    .with_context(|| format!("{name}, {title}: {key}"))
            };
            let (x, y, w, h) = (place("x")?, place("y")?, place("w")?, place("h")?);
            ensure!(x + w <= 24, "{name}, {title} is too wide");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                ensure!(taken.insert(cell), "{name}, {title} lies on another panel");
            }
            if text(panel, "type") == "row" {
                continue;
            }
            ensure!(
                !text(panel, "description").is_empty(),
                "{name}, {title} has no description"
            );
            ensure!(
                !text(&panel["fieldConfig"]["defaults"], "unit").is_empty(),
                "{name}, {title} has no unit"
            );
            ensure!(
                !items(panel, "targets").is_empty(),
                "{name}, {title} asks nothing"
            );
            for target in items(panel, "targets") {
                ensure!(
                    target["datasource"]["uid"] == "${datasource}",
                    "{name}, {title}: its data source"
                );
            }
            for link in items(panel, "links") {
                let url = text(link, "url");
                let page = url
                    .strip_prefix("https://flowproof.example/")
                    .with_context(|| format!("{name}, {title}: {url}"))?;
                ensure!(
                    rules().join("../..").join(page).is_file(),
                    "{name}, {title}: no {page}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn dashboards_speak_of_series_that_there_are() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/export/metrics.golden");
    let mut known: BTreeSet<String> = Metrics::parse(&fs::read_to_string(golden)?)?
        .samples
        .into_iter()
        .map(|sample| sample.name)
        .collect();
    let file = yaml::read(&fs::read_to_string(rules().join("flowproof.rules.yml"))?)?;
    for group in items(&file, "groups") {
        known.extend(
            items(group, "rules")
                .iter()
                .map(|rule| text(rule, "record").to_owned()),
        );
    }
    for (name, dashboard) in dashboards()? {
        let mut texts = expressions(&dashboard);
        texts.extend(variables(&dashboard).iter().map(|variable| {
            (
                text(variable, "name").to_owned(),
                text(variable, "definition").to_owned(),
            )
        }));
        for (title, expression) in texts {
            let words = expression
                .split(|letter: char| {
                    !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':')
                })
                .filter(|word| word.starts_with("flowproof_") || word.starts_with("flowproof:"));
            for word in words {
                ensure!(known.contains(word), "{name}, {title}: there is no {word}");
            }
        }
    }
    Ok(())
}

#[test]
fn provisioning_names_what_there_is() -> Result<()> {
    let read = |path: &str| -> Result<Value> {
        yaml::read(&fs::read_to_string(
            grafana().join("provisioning").join(path),
        )?)
    };
    let sources = read("datasources/prometheus.yaml")?;
    ensure!(
        items(&sources, "datasources")[0]["type"] == "prometheus",
        "{sources}"
    );
    let providers = read("dashboards/flowproof.yaml")?;
    ensure!(
        items(&providers, "providers")[0]["type"] == "file",
        "{providers}"
    );
    Ok(())
}
