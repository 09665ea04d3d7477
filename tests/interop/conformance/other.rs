//! Sections 7, 10 and 11: confinement, HTTP, and what is found.

use super::Case;

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "sandbox.of-a-start",
        "7",
        &[
            (
                "@run",
                r#"{"sandbox":{"permissions":{"type":"disabled"},"windowsSandboxLevel":"disabled"}}"#,
            ),
            ("@run", r#"{"processId":"q","sandbox":null}"#),
        ],
        r#"[{"sandboxType": "linuxSeccomp"}, {"sandboxType": "none"}]"#,
    ),
    Case::same(
        "sandbox.of-a-file",
        "7",
        &[
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/new","dataBase64":"YQ==","sandbox":{"permissions":{"type":"managed","file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"}]},"network":"restricted"},"cwd":"file://$DIR","workspaceRoots":["file://$DIR"],"windowsSandboxLevel":"disabled","windowsSandboxProxySettingsMode":"reconcile","useLegacyLandlock":false}}"#,
            ),
            ("@contents", "$DIR/new"),
        ],
        r#"["-32603 *", "none"]"#,
    ),
    Case::differs(
        "http.request",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"ftp://127.0.0.1/","headers":[],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"http://127.0.0.1:1/","headers":[],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"http://127.0.0.1:1/","headers":[]}"#,
            ),
        ],
        r#"["-32602 *", "-32603 *", "-32602 missing field `requestId`"]"#,
        r#"["-32601 *", "-32601 *", "-32602 missing field `requestId`"]"#,
    ),
    Case::same(
        "config.nothing-is-asked-for",
        "11",
        &[
            (
                "environmentConfig/read",
                r#"{"cwd":"file:///","configPaths":[],"requirementsPaths":[]}"#,
            ),
            (
                "environmentConfig/read",
                r#"{"cwd":"file:///","configPaths":[[]],"requirementsPaths":[]}"#,
            ),
            ("environmentConfig/read", r#"{"cwd":"file:///"}"#),
        ],
        r#"["-326*", "-326*", "-32602 missing field *"]"#,
    ),
    Case::same(
        "config.layers",
        "11",
        &[(
            "environmentConfig/read",
            r#"{"cwd":"file:///","configPaths":[["mcp_servers"]],"requirementsPaths":[["mcp_servers"]]}"#,
        )],
        r#"[{"config": {"layers": "*", "cloudInsertionIndex": 0}, "requirements": {"layers": "*", "cloudInsertionIndex": 0}}]"#,
    ),
    Case::same(
        "discovery.roots-in-order-with-an-error-each",
        "11",
        &[(
            "capabilityRoots/discoverV1",
            r#"{"roots":[{"id":"a","path":"file://$DIR/empty"},{"id":"b","path":"file://$DIR"}]}"#,
        )],
        r#"[{"roots": [{"id": "a", "path": "file://$DIR/empty", "plugin": null, "skills": [], "namespaceManifests": [], "warnings": [], "error": null},
                       {"id": "b"}]}]"#,
    ),
    Case::same(
        "discovery.capabilities",
        "11",
        &[("capabilities/discoverV2", r#"{"cwd":"file://$DIR/empty"}"#)],
        r#"[{"plugins": "*", "skills": "*", "warnings": "*"}]"#,
    ),
];
