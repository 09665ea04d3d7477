//! What a client wants a command, or a file operation, confined to. Whatever is not here is not understood, and what is
//! not understood cannot be enforced: it is refused as a whole.

use serde::Deserialize;
use serde_bytes::ByteBuf;
use serde_json::Value;

use super::uri::path_of;
use crate::confinement::{ConfinedPath, Confinement, Reach};

/// Why a policy cannot be enforced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unclear(pub String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sandbox {
    permissions: Permissions,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    workspace_roots: Option<Vec<String>>,
    #[serde(default)]
    policy_context: Option<Context>,
    #[serde(default)]
    temporary_directories: Option<Vec<String>>,
    // What follows says nothing that this system could do, or allows less strictness than there is.
    #[serde(default, rename = "userHomeDir")]
    _user_home_dir: Option<Value>,
    #[serde(default, rename = "useLegacyLandlock")]
    _use_legacy_landlock: Option<bool>,
    #[serde(rename = "windowsSandboxLevel")]
    _windows_level: String,
    #[serde(default, rename = "windowsSandboxProxySettingsMode")]
    _windows_proxy: Option<String>,
    #[serde(default, rename = "windowsSandboxPrivateDesktop")]
    _windows_desktop: Option<bool>,
    #[serde(default, rename = "sandboxOverride")]
    _override: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Context {
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    workspace_roots: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Permissions {
    Managed {
        file_system: FileSystem,
        network: Network,
    },
    Disabled,
    External {
        #[serde(default, rename = "network")]
        _network: Option<Network>,
    },
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Network {
    Restricted,
    Enabled,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum FileSystem {
    Restricted {
        entries: Vec<Entry>,
        #[serde(default, rename = "glob_scan_max_depth")]
        _glob_scan_max_depth: Option<u64>,
    },
    Unrestricted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: Place,
    access: Access,
    #[serde(default)]
    missing_path_behavior: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Read,
    Write,
    Deny,
    None,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Place {
    Path {
        path: String,
    },
    GlobPattern {
        #[serde(rename = "pattern")]
        _pattern: String,
    },
    Special {
        value: Special,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Special {
    kind: String,
    #[serde(default)]
    subpath: Option<String>,
}

/// What a `sandbox` member asks for.
///
/// # Errors
/// What of it is not understood, or cannot be said natively.
pub fn confinement_of(sandbox: &Value) -> Result<Confinement, Unclear> {
    let sandbox = Sandbox::deserialize(sandbox).map_err(|error| Unclear(error.to_string()))?;
    let everything = |network| Confinement {
        network,
        paths: vec![path(b"/".to_vec(), Reach::Write, false)],
    };
    match &sandbox.permissions {
        Permissions::Disabled => Ok(everything(true)),
        // Who else confines it, and to what, is not known here.
        Permissions::External { .. } => Err(unclear("permissions of type `external`")),
        Permissions::Managed { file_system, network } => {
            let network = *network == Network::Enabled;
            match file_system {
                FileSystem::Unrestricted => Ok(everything(network)),
                FileSystem::Restricted { entries, .. } => {
                    let mut paths = Vec::new();
                    for entry in entries {
                        paths.extend(sandbox.entry(entry)?);
                    }
                    Ok(Confinement { network, paths })
                }
            }
        }
    }
}

fn unclear(what: &str) -> Unclear {
    Unclear(format!("{what} cannot be enforced"))
}

fn path(path: Vec<u8>, access: Reach, optional: bool) -> ConfinedPath {
    ConfinedPath {
        path: ByteBuf::from(path),
        access,
        optional,
    }
}

impl Sandbox {
    fn entry(&self, entry: &Entry) -> Result<Vec<ConfinedPath>, Unclear> {
        let access = match entry.access {
            Access::Read => Reach::Read,
            Access::Write => Reach::Write,
            Access::Deny | Access::None => return Err(unclear("an entry that hides files")),
        };
        let optional = match entry.missing_path_behavior.as_deref() {
            None => false,
            Some("skip") => true,
            Some(_) => return Err(unclear("a missing_path_behavior other than `skip`")),
        };
        let places = match &entry.path {
            Place::Path { path } => vec![native(path)?],
            Place::GlobPattern { .. } => return Err(unclear("a pattern of paths")),
            Place::Special { value } => self.special(value, access)?,
        };
        Ok(places
            .into_iter()
            .map(|place| path(place, access, optional))
            .collect())
    }

    fn special(&self, special: &Special, access: Reach) -> Result<Vec<Vec<u8>>, Unclear> {
        let roots = match (special.kind.as_str(), &special.subpath) {
            ("root", None) => vec![b"/".to_vec()],
            ("slash_tmp", None) => vec![b"/tmp".to_vec()],
            // A client that does not say which has none, or does not know: that grants nothing.
            ("tmpdir", None) => match &self.temporary_directories {
                Some(directories) => natives(directories)?,
                None if access == Reach::Write => Vec::new(),
                None => return Err(unclear("a temporary directory that is not named")),
            },
            ("current_working_directory", None) => vec![native(self.cwd()?)?],
            ("project_roots", _) => natives(self.roots()?)?,
            _ => return Err(unclear(&format!("a path of the kind `{}`", special.kind))),
        };
        let Some(subpath) = &special.subpath else {
            return Ok(roots);
        };
        let is_plain = subpath
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if !is_plain {
            return Err(unclear("a subpath that leads upwards"));
        }
        Ok(roots
            .into_iter()
            .map(|root| [root.strip_suffix(b"/").unwrap_or(&root), b"/", subpath.as_bytes()].concat())
            .collect())
    }

    fn cwd(&self) -> Result<&str, Unclear> {
        let context = self
            .policy_context
            .as_ref()
            .and_then(|context| context.cwd.as_deref());
        context
            .or(self.cwd.as_deref())
            .ok_or_else(|| unclear("a working directory that is not named"))
    }

    fn roots(&self) -> Result<&[String], Unclear> {
        let context = self
            .policy_context
            .as_ref()
            .and_then(|context| context.workspace_roots.as_deref());
        context
            .or(self.workspace_roots.as_deref())
            .ok_or_else(|| unclear("project roots that are not named"))
    }
}

fn native(uri: &str) -> Result<Vec<u8>, Unclear> {
    path_of(uri).map_err(|fault| Unclear(fault.message))
}

fn natives(uris: &[String]) -> Result<Vec<Vec<u8>>, Unclear> {
    uris.iter().map(|uri| native(uri)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stock(entries: &Value, network: &str) -> Value {
        json!({
            "permissions": {"type": "managed", "file_system": {"type": "restricted", "entries": entries}, "network": network},
            "cwd": "file:///w", "workspaceRoots": ["file:///w"], "windowsSandboxLevel": "disabled",
            "windowsSandboxProxySettingsMode": "reconcile", "useLegacyLandlock": false,
        })
    }

    fn special(kind: &str, access: &str) -> Value {
        json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access})
    }

    fn said(sandbox: &Value) -> Result<Vec<(String, Reach, bool)>, Unclear> {
        let text = |path: &ByteBuf| String::from_utf8(path.to_vec()).unwrap();
        let paths = confinement_of(sandbox)?.paths;
        Ok(paths
            .iter()
            .map(|entry| (text(&entry.path), entry.access, entry.optional))
            .collect())
    }

    #[test]
    fn a_stock_clients_workspace_policy_is_said_natively() {
        let git = json!({"path": {"type": "special", "value": {"kind": "project_roots", "subpath": ".git"}},
            "access": "read", "missing_path_behavior": "skip"});
        let entries = json!([
            special("root", "read"),
            special("project_roots", "write"),
            special("slash_tmp", "write"),
            special("tmpdir", "write"),
            git
        ]);
        let sandbox = stock(&entries, "restricted");
        assert_eq!(
            said(&sandbox),
            Ok(vec![
                ("/".into(), Reach::Read, false),
                ("/w".into(), Reach::Write, false),
                ("/tmp".into(), Reach::Write, false),
                ("/w/.git".into(), Reach::Read, true),
            ])
        );
        assert!(!confinement_of(&sandbox).unwrap().network);
        assert!(confinement_of(&stock(&json!([]), "enabled")).unwrap().network);
    }

    #[test]
    fn a_temporary_directory_is_what_the_client_names() {
        let mut sandbox = stock(&json!([special("tmpdir", "write")]), "restricted");
        assert_eq!(said(&sandbox), Ok(vec![]));
        sandbox["temporaryDirectories"] = json!(["file:///t%20t"]);
        assert_eq!(said(&sandbox), Ok(vec![("/t t".into(), Reach::Write, false)]));
    }

    #[test]
    fn what_is_not_understood_is_refused_as_a_whole() {
        let place = |path: Value| json!([{"path": path, "access": "read"}]);
        for entries in [
            json!([special("root", "deny")]),
            json!([special("root", "none")]),
            json!([special("minimal", "read")]),
            json!([special("unknown", "read")]),
            json!([special("tmpdir", "read")]),
            place(json!({"type": "glob_pattern", "pattern": "*.env"})),
            place(json!({"type": "path", "path": "http://h/"})),
            place(json!({"type": "special", "value": {"kind": "project_roots", "subpath": "../x"}})),
            place(json!({"type": "special", "value": {"kind": "root", "subpath": "x"}})),
            json!([{"path": {"type": "path", "path": "file:///w"}, "access": "read", "more": 1}]),
            json!([{"path": {"type": "path", "path": "file:///w"}, "access": "read", "missing_path_behavior": "make"}]),
        ] {
            assert!(said(&stock(&entries, "restricted")).is_err(), "{entries}");
        }
        let mut more = stock(&json!([special("root", "read")]), "restricted");
        assert!(said(&more).is_ok(), "the control");
        more["somethingNew"] = json!(true);
        assert!(said(&more).is_err());
        let external = json!({"permissions": {"type": "external", "network": "enabled"}, "windowsSandboxLevel": "disabled"});
        assert!(said(&external).is_err());
        let disabled = json!({"permissions": {"type": "disabled"}, "windowsSandboxLevel": "disabled"});
        assert_eq!(said(&disabled), Ok(vec![("/".into(), Reach::Write, false)]));
    }
}
