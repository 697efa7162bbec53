//! What `latchkey plugin new` writes: a template, and the SDK as this release has it.

macro_rules! of_repository {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../", $path)))),*]
    };
}

pub(super) const TEMPLATE: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("config.schema.json", include_str!("template/config.schema.json.in")),
    ("config.json", include_str!("template/config.json.in")),
    ("cases.toml", include_str!("template/cases.toml.in")),
    // The versions that this release was tested with.
    ("Cargo.lock", include_str!("../../../plugins/Cargo.lock")),
    (".gitignore", include_str!("template/gitignore.in")),
];

pub(super) const SDK: &[(&str, &str)] = of_repository![
    "wit/README.md",
    "wit/body.wit",
    "wit/callout.wit",
    "wit/connection.wit",
    "wit/control.wit",
    "wit/datasets.wit",
    "wit/http.wit",
    "wit/rates.wit",
    "wit/rules.wit",
    "wit/types.wit",
    "wit/worlds.wit",
    "plugins/README.md",
    "plugins/Cargo.lock",
    "plugins/build.sh",
    "plugins/sdk/Cargo.toml",
    "plugins/sdk/src/bindings.rs",
    "plugins/sdk/src/body.rs",
    "plugins/sdk/src/callout.rs",
    "plugins/sdk/src/config.rs",
    "plugins/sdk/src/connection.rs",
    "plugins/sdk/src/datasets.rs",
    "plugins/sdk/src/glue.rs",
    "plugins/sdk/src/http.rs",
    "plugins/sdk/src/lib.rs",
    "plugins/sdk/src/log.rs",
    "plugins/sdk/src/rates.rs",
    "plugins/sdk/src/rules.rs",
    "plugins/wrap/Cargo.toml",
    "plugins/wrap/src/main.rs",
];

/// The workspace of the SDK without the plugins that are not in it.
pub(super) fn sdk_workspace() -> String {
    let whole = include_str!("../../../plugins/Cargo.toml");
    let member = |line: &&str| line.starts_with("    \"");
    let ours = |line: &&str| !member(line) || line.starts_with("    \"sdk\"") || line.starts_with("    \"wrap\"");
    // Settings of one package are of no use without that package, and Cargo warns of them.
    let end = whole.find("\n# Its loop").unwrap_or(whole.len());
    whole[..end].lines().filter(ours).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn nothing_of_the_sdk_is_missing() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut missing = Vec::new();
        for folder in ["wit", "plugins/sdk/src", "plugins/wrap/src"] {
            let files = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
            let paths = files.map(|name| PathBuf::from(folder).join(name).display().to_string());
            missing.extend(paths.filter(|path| !SDK.iter().any(|(known, _)| known == path)));
        }
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_workspace_of_the_sdk_holds_what_is_there() {
        let workspace = sdk_workspace();
        let members = workspace.lines().filter(|line| line.starts_with("    \"")).count();
        assert_eq!(members, 2, "{workspace}");
        assert!(workspace.contains("[workspace.dependencies]") && workspace.contains("[profile.release]"));
        assert!(!workspace.contains("regex-lite]"), "{workspace}");
    }
}
