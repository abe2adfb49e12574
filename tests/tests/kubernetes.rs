//! The Helm chart and the plain manifest: rendered by helm itself, held to the API's own schemas, oldest and newest version, and
//! to what the chart promises: four capabilities, no privileges.
//!
//! `cargo xtask test` brings helm and the schemas, in the folder that `FLOWPROOF_KUBERNETES` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};
use boon::{Compiler, SchemaIndex, Schemas};
use flowproof_tests::daemon::binary;
use flowproof_tests::{skip, yaml};
use serde_json::{Value, json};

/// Versions of the API whose schemas the rendered resources are held to: the oldest that the chart admits, and the newest there is.
const VERSIONS: [&str; 2] = ["v1.25.0", "v1.37.0"];
/// What stands before the plain manifest's rendered resources.
const HEAD: &str = "\
# The DaemonSet with default values, for those who don't use Helm; written by FLOWPROOF_UPDATE_GOLDEN=1 cargo test. Set the image
# before you apply it.
apiVersion: v1
kind: Namespace
metadata:
  name: flowproof
  labels:
    # hostNetwork and hostPath volumes; the containers themselves are not privileged.
    pod-security.kubernetes.io/enforce: privileged
";
/// Values that use everything.
const FULL: &str = r#"
image: {repository: registry.example.org/flowproof, digest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
imagePullSecrets: [{name: pull}]
podLabels: {team: network}
podAnnotations: {note: "7"}
matrix:
  shop.yaml: |
    system: shop
    title: Shop
    roles: {client: {}, web: {}}
    requirements: [{id: a, from: client, to: web, services: [tcp/443]}]
site: |
  site: hq
  systems: [shop]
  roles: {shop/client: [10.20.0.0/16], shop/web: [10.1.0.10]}
config:
  matrix: [/usr/share/flowproof/rules/baseline-linux-host.yaml]
  capture: {ebpf: {on_exit: keep}}
appArmorProfile: {type: RuntimeDefault}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
serviceAccount: {annotations: {note: "true"}}
podMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, runbookBase: "https://wiki.example.org/"}
"#;

struct Tools {
    folder: PathBuf,
}

impl Tools {
    fn find(test: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os("FLOWPROOF_KUBERNETES") else {
            skip::skip(
                test,
                "helm and the schemas are missing: `cargo xtask test` brings them",
            );
            return None;
        };
        Some(Self {
            folder: folder.into(),
        })
    }

    fn helm(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(self.folder.join("helm"))
            .args(arguments)
            .output()
            .context("can't start helm")
    }

    /// The chart's resources with these values.
    fn render(&self, values: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, values)?;
        let (chart, values) = (chart(), file.path().display().to_string());
        let chart = chart.display().to_string();
        let output = self.helm(&[
            "template",
            "flowproof",
            &chart,
            "--namespace",
            "flowproof",
            "--values",
            &values,
        ])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn schemas(&self, version: &str) -> Result<Api> {
        let folder = self
            .folder
            .join("schemas")
            .join(format!("{version}-local-strict"));
        let mut api = Api {
            schemas: Schemas::new(),
            compiler: Compiler::new(),
        };
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let schema = serde_json::from_slice(&fs::read(&path)?)?;
            api.add(&format!("https://kubernetes.io/api/{name}"), schema)?;
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/monitoring.json");
        api.add(
            "https://kubernetes.io/monitoring.json",
            serde_json::from_slice(&fs::read(own)?)?,
        )?;
        Ok(api)
    }
}

struct Api {
    schemas: Schemas,
    compiler: Compiler,
}

impl Api {
    fn add(&mut self, url: &str, schema: Value) -> Result<()> {
        self.compiler
            .add_resource(url, schema)
            .map_err(|error| anyhow::anyhow!("{url}: {error}"))
    }

    fn schema_of(&mut self, kind: &str, api: &str) -> Result<SchemaIndex> {
        let place = match api {
            "v1" => format!("api/{}-v1.json", kind.to_lowercase()),
            "apps/v1" => format!("api/{}-apps-v1.json", kind.to_lowercase()),
            "monitoring.coreos.com/v1" => format!("monitoring.json#/$defs/{kind}"),
            other => bail!("no schema of {other} here"),
        };
        self.compiler
            .compile(&format!("https://kubernetes.io/{place}"), &mut self.schemas)
            .map_err(|error| anyhow::anyhow!("{place}: {error}"))
    }

    fn check(&mut self, resource: &Value) -> Result<()> {
        let index = self.schema_of(text(resource, "/kind")?, text(resource, "/apiVersion")?)?;
        self.schemas
            .validate(resource, index)
            .map_err(|error| anyhow::anyhow!("{error:#}\n{resource:#}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    root().join("deploy/kubernetes/flowproof")
}

fn text<'value>(value: &'value Value, pointer: &str) -> Result<&'value str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no {pointer} in {value}"))
}

fn of_kind<'value>(resources: &'value [Value], kind: &str) -> Result<&'value Value> {
    resources
        .iter()
        .find(|resource| resource["kind"] == kind)
        .with_context(|| format!("no {kind}"))
}

#[test]
fn the_chart_renders_what_the_api_takes() -> Result<()> {
    let Some(tools) = Tools::find("the_chart_renders_what_the_api_takes") else {
        return Ok(());
    };
    let lint = tools.helm(&["lint", "--strict", &chart().display().to_string()])?;
    ensure!(
        lint.status.success(),
        "{}",
        String::from_utf8_lossy(&lint.stdout)
    );

    let default = yaml::documents(&tools.render("")?)?;
    let full = yaml::documents(&tools.render(FULL)?)?;
    let kinds = |resources: &[Value]| -> Vec<String> {
        let mut kinds: Vec<String> = resources
            .iter()
            .filter_map(|it| it["kind"].as_str())
            .map(str::to_owned)
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(
        kinds(&default),
        ["ConfigMap", "DaemonSet", "ServiceAccount"]
    );
    assert_eq!(
        kinds(&full),
        [
            "ConfigMap",
            "DaemonSet",
            "PodMonitor",
            "PrometheusRule",
            "PrometheusRule",
            "ServiceAccount"
        ]
    );
    for version in VERSIONS {
        let mut api = tools.schemas(version)?;
        for resource in default.iter().chain(&full) {
            let mut resource = resource.clone();
            // Newer than the oldest version, and only there if it is asked for.
            if version == VERSIONS[0]
                && let Some(context) =
                    resource.pointer_mut("/spec/template/spec/containers/0/securityContext")
                && let Some(context) = context.as_object_mut()
            {
                context.remove("appArmorProfile");
            }
            api.check(&resource).context(version)?;
        }
        // The schemas do refuse.
        let daemon_set = of_kind(&default, "DaemonSet")?;
        for (pointer, key, value) in [
            (
                "/spec/template/spec/containers/0",
                "capabilities",
                json!({}),
            ),
            ("/spec/template/spec", "hostNetwork", json!("true")),
            ("/spec", "selector", json!("flowproof")),
        ] {
            let mut wrong = daemon_set.clone();
            wrong.pointer_mut(pointer).context("moved")?[key] = value;
            assert!(api.check(&wrong).is_err(), "{key} is taken by {version}");
        }
        let mut wrong = of_kind(&full, "PodMonitor")?.clone();
        wrong["spec"]["podMetricsEndpoints"][0]["interval"] = json!("often");
        assert!(api.check(&wrong).is_err());
    }
    Ok(())
}

#[test]
fn pods_have_four_capabilities_and_no_privileges() -> Result<()> {
    let Some(tools) = Tools::find("pods_have_four_capabilities_and_no_privileges") else {
        return Ok(());
    };
    for values in ["", FULL] {
        let resources = yaml::documents(&tools.render(values)?)?;
        let pod = &of_kind(&resources, "DaemonSet")?["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
        assert!(
            pod.get("initContainers").is_none()
                && pod.get("hostPID").is_none()
                && pod.get("hostIPC").is_none()
        );
        let context = &container["securityContext"];
        assert_eq!(
            context["capabilities"],
            json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"]})
        );
        assert_eq!(context["privileged"], false);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        // The unit has the same, or one of them is wrong.
        let unit = fs::read_to_string(root().join("deploy/systemd/flowproof.service"))?;
        assert!(
            unit.contains(
                "\nCapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_NET_RAW\n"
            )
        );
        let volumes = pod["volumes"].as_array().context("no volumes")?;
        let host: Vec<&str> = volumes
            .iter()
            .filter_map(|volume| volume.pointer("/hostPath/path")?.as_str())
            .collect();
        assert_eq!(host, ["/var/lib/flowproof", "/sys/fs/bpf/flowproof"]);
        // Each is mounted, and no mount is without one.
        let names = |list: &Value| -> Vec<String> {
            let items = list.as_array().into_iter().flatten();
            items
                .filter_map(|item| item["name"].as_str().map(str::to_owned))
                .collect()
        };
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "metrics");
        }
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/-/healthy");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/-/ready");
        assert_eq!(container["ports"][0]["containerPort"], 9871);
    }
    Ok(())
}

#[test]
fn the_config_map_holds_files_that_flowproof_takes() -> Result<()> {
    let Some(tools) = Tools::find("the_config_map_holds_files_that_flowproof_takes") else {
        return Ok(());
    };
    let resources = yaml::documents(&tools.render(FULL)?)?;
    let files = of_kind(&resources, "ConfigMap")?["data"]
        .as_object()
        .context("no data")?;
    let folder = tempfile::tempdir()?;
    for (name, content) in files {
        fs::write(
            folder.path().join(name),
            content.as_str().context("no text")?,
        )?;
    }
    let checked = Command::new(binary())
        .args(["check", "shop.yaml", "--site", "site.yaml"])
        .current_dir(folder.path())
        .output()?;
    ensure!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );

    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    let shape: Value = serde_json::from_slice(&fs::read(root().join("rules/config.schema.json"))?)?;
    compiler
        .add_resource("https://flowproof.test/config", shape)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let index = compiler
        .compile("https://flowproof.test/config", &mut schemas)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    for values in ["", FULL] {
        let resources = yaml::documents(&tools.render(values)?)?;
        let config = text(of_kind(&resources, "ConfigMap")?, "/data/flowproof.yaml")?;
        let config = yaml::documents(config)?.remove(0);
        schemas
            .validate(&config, index)
            .map_err(|error| anyhow::anyhow!("{error:#}\n{config:#}"))?;
        if !values.is_empty() {
            assert_eq!(config["site"], "/etc/flowproof/site.yaml");
            assert_eq!(
                config["matrix"],
                json!([
                    "/usr/share/flowproof/rules/baseline-linux-host.yaml",
                    "/etc/flowproof/shop.yaml"
                ])
            );
        }
    }
    // What nobody knows is refused, not ignored.
    for wrong in [
        "imagee: {}",
        "matrix: {shop: x}",
        "matrix: {site.yaml: x}",
        "metricsPort: many",
        "image: {repository: ''}",
    ] {
        assert!(tools.render(wrong).is_err(), "{wrong}");
    }
    Ok(())
}

/// The rules of the chart are those of `deploy/prometheus`, which have tests of their own.
#[test]
fn the_rules_are_those_for_prometheus() -> Result<()> {
    let Some(tools) = Tools::find("the_rules_are_those_for_prometheus") else {
        return Ok(());
    };
    let resources = yaml::documents(&tools.render(FULL)?)?;
    for part in ["rules", "alerts"] {
        let path = root().join(format!("deploy/prometheus/flowproof.{part}.yml"));
        let expect = fs::read_to_string(path)?
            .replace("https://flowproof.example/", "https://wiki.example.org/");
        let name = format!("flowproof-{part}");
        let got = resources
            .iter()
            .find(|it| it["metadata"]["name"] == *name)
            .context("no such rules")?;
        assert_eq!(got["spec"], yaml::documents(&expect)?.remove(0));
    }
    let job = text(
        of_kind(&resources, "PodMonitor")?,
        "/spec/podMetricsEndpoints/0/relabelings/0/replacement",
    )?;
    assert!(job.contains("flowproof"), "the alerts look for that");
    Ok(())
}

#[test]
fn the_plain_manifest_is_the_chart_with_defaults() -> Result<()> {
    let Some(tools) = Tools::find("the_plain_manifest_is_the_chart_with_defaults") else {
        return Ok(());
    };
    let path = root().join("deploy/kubernetes/flowproof.yaml");
    let now = format!(
        "{HEAD}{}",
        tools
            .render("")?
            .replace("managed-by: Helm", "managed-by: kubectl")
    );
    if std::env::var_os("FLOWPROOF_UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now)?;
    }
    let committed = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    assert!(
        committed == now,
        "{} is old: FLOWPROOF_UPDATE_GOLDEN=1 cargo xtask test",
        path.display()
    );
    for version in VERSIONS {
        let mut api = tools.schemas(version)?;
        yaml::documents(&committed)?
            .iter()
            .try_for_each(|resource| api.check(resource))
            .context(version)?;
    }
    Ok(())
}

#[test]
fn the_chart_has_the_version_of_the_program() -> Result<()> {
    let chart = yaml::read(&fs::read_to_string(chart().join("Chart.yaml"))?)?;
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    Ok(())
}
