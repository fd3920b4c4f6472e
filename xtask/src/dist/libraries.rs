//! The libraries that are linked into the binary, and their licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell::{cargo, stdout};

/// Begins the name of a file that tells a licence, or whose it is.
const LICENCES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// All of them, and each text once with the libraries that it is of.
///
/// # Errors
/// Where cargo does not tell them, or a text cannot be read.
pub fn licences() -> Result<String> {
    let host = stdout(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let metadata = ["metadata", "--locked", "--format-version=1", "--filter-platform", host.trim_end()];
    let metadata =
        serde_json::from_str(&stdout(&mut cargo(&metadata))?).context("cargo metadata is no JSON")?;
    let mut told = String::from("nsntrace is linked with these libraries:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for library in libraries(&metadata) {
        let text = |name: &str| library[name].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        told += &format!("{name}: {}, {}\n", text("license"), text("repository"));
        let folder = Path::new(text("manifest_path")).parent().context("a manifest without a folder")?;
        for licence in texts_in(folder)? {
            texts.entry(licence).or_default().push(name.clone());
        }
    }
    for (text, names) in texts {
        told += &format!("\n{}\n\n{}\n{}\n", "=".repeat(79), names.join(", "), text.trim_end());
    }
    Ok(told)
}

/// What nsntrace needs, and what that needs, in the order of their names; not what is needed to build or test alone.
fn libraries(metadata: &Value) -> Vec<&Value> {
    let mut wanted = BTreeSet::new();
    let mut next: Vec<&str> =
        packages(metadata).filter(|package| package["name"] == "nsntrace").filter_map(id).collect();
    while let Some(package) = next.pop() {
        let nodes = list(&metadata["resolve"]["nodes"]);
        let needs = nodes.filter(|node| id(node) == Some(package)).flat_map(|node| list(&node["deps"]));
        let linked = needs.filter(|need| list(&need["dep_kinds"]).any(|kind| kind["kind"].is_null()));
        next.extend(linked.filter_map(|need| need["pkg"].as_str()).filter(|package| wanted.insert(*package)));
    }
    // What has no source is of this workspace.
    let foreign = packages(metadata).filter(|package| !package["source"].is_null());
    foreign.filter(|package| id(package).is_some_and(|id| wanted.contains(id))).collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    list(&metadata["packages"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn id(package: &Value) -> Option<&str> {
    package["id"].as_str()
}

/// The texts that are in a library's folder.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().to_uppercase();
        if LICENCES.iter().any(|begin| name.starts_with(begin)) && file.file_type()?.is_file() {
            texts.push(fs::read_to_string(file.path())?);
        }
    }
    Ok(texts)
}
