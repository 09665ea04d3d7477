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
    Case::same(
        "http.arguments",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"ftp://127.0.0.1/","headers":[],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"nonsense","headers":[],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"G T","url":"$ORIGIN/echo","headers":[],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","headers":[{"name":"A B","value":"x"}],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","headers":[{"name":"A","value":"x","valueEnvVar":"NOT_THERE"}],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","headers":[],"redirectPolicy":"maybe","requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","headers":[]}"#,
            ),
            ("http/request", r#"["GET","$ORIGIN/echo",[],null,null,"follow"]"#),
        ],
        r#"["-32602 http/request only supports http and https URLs, got ftp",
            "-32602 http/request url is invalid: relative URL without a base",
            "-32602 http/request method is invalid: invalid HTTP method",
            "-32602 http/request header name is invalid: invalid HTTP header name",
            "-32602 http/request header A requires executor environment variable NOT_THERE",
            "-32602 unknown variant `maybe`, expected `follow` or `stop`",
            "-32602 missing field `requestId`",
            "-32602 invalid length 6, expected *"]"#,
    ),
    Case::same(
        "http.no-server",
        "10",
        &[(
            "http/request",
            r#"{"method":"GET","url":"http://127.0.0.1:1/","headers":[],"requestId":"r"}"#,
        )],
        r#"["-32603 http/request failed: *"]"#,
    ),
    Case::same(
        "http.a-whole-body-with-its-headers",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/headers","headers":[],"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/empty","requestId":"r"}"#,
            ),
        ],
        r#"[{"status": 200, "bodyBase64": "H4tub25l", "headers": [
                {"name": "x-two", "value": "a"}, {"name": "x-two", "value": "b"},
                {"name": "set-cookie", "value": "a=1"}, {"name": "set-cookie", "value": "b=2"},
                {"name": "content-encoding", "value": "gzip"}, {"name": "content-length", "value": "6"}]},
            {"status": 204, "bodyBase64": ""}]"#,
    ),
    Case::same(
        "http.what-is-sent",
        "10",
        &[
            (
                "@body",
                r#"{"method":"PURGE","url":"$ORIGIN/echo?a=b c#d","headers":[{"name":"X-A","value":"1"},{"name":"x-a","value":"2"},{"name":"X-Plain","value":"is ","valueEnvVar":"PLAIN"}],"requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"POST","url":"$ORIGIN/echo","headers":[{"name":"Accept","value":"a/b"}],"bodyBase64":"aGVsbG8=","requestId":"r"}"#,
            ),
            (
                "@body",
                r#"["GET","$ORIGIN/echo",[],null,null,"follow","r",false]"#,
            ),
            ("@body", r#"["GET","$ORIGIN/large/1",[],null,null,"follow","r"]"#),
        ],
        r#"[{"status": 200, "body": "PURGE /echo?a=b%20c HTTP/1.1*x-a: 1*x-a: 2*x-plain: is 1*"},
            {"status": 200, "body": "POST /echo HTTP/1.1*accept: a/b*content-length: 5*hello"},
            {"status": 200, "body": "GET /echo HTTP/1.1*"}, {"status": 200, "body": "x"}]"#,
    ),
    Case::same(
        "http.redirects",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/loop","headers":[],"requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"GET","url":"$ORIGIN/loop","headers":[],"redirectPolicy":"stop","requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"GET","url":"$ORIGIN/redirect/10","headers":[],"requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"GET","url":"$ORIGIN/redirect/11","headers":[],"requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"POST","url":"$ORIGIN/to/303","headers":[],"bodyBase64":"aGVsbG8=","requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"POST","url":"$ORIGIN/to/307","headers":[],"bodyBase64":"aGVsbG8=","requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"PUT","url":"$ORIGIN/to/302","headers":[],"bodyBase64":"aGVsbG8=","requestId":"r"}"#,
            ),
        ],
        r#"["-32603 http/request failed: too many redirects", {"status": 302, "body": "round"}, {"body": "end"},
            "-32603 http/request failed: too many redirects", {"body": "GET /echo/there *"},
            {"body": "POST /echo/there *hello"}, {"body": "PUT /echo/there *hello"}]"#,
    ),
    Case::same(
        "http.the-time-is-over",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","headers":[],"timeoutMs":0,"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/never","headers":[],"timeoutMs":100,"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/begun","headers":[],"timeoutMs":3000,"requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/begun","headers":[],"timeoutMs":3000,"requestId":"r","streamResponse":true}"#,
            ),
            ("@deltas", "r"),
        ],
        r#"["-32603 http/request failed: *", "-32603 http/request failed: *",
            "-32603 failed to read http/request response body: *", {"status": 200, "bodyBase64": ""},
            {"body": "abc", "dense": true, "last": {"deltaBase64": "", "done": true, "error": "*e*"}}]"#,
    ),
    Case::same(
        "http.a-body-in-pieces",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/large/5","headers":[],"requestId":"r","streamResponse":true}"#,
            ),
            ("@deltas", "r"),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/empty","headers":[],"requestId":"","streamResponse":true}"#,
            ),
            ("@deltas", ""),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/cut","headers":[],"requestId":"r","streamResponse":true}"#,
            ),
            ("@deltas", "r"),
        ],
        r#"[{"=": {"status": 200, "headers": [{"name": "content-length", "value": "5"}], "bodyBase64": ""}},
            {"body": "xxxxx", "dense": true, "last": {"=": {"requestId": "r", "deltaBase64": "", "done": true, "error": null}}},
            {"status": 204, "bodyBase64": ""},
            {"body": "", "dense": true, "last": {"=": {"requestId": "", "deltaBase64": "", "done": true, "error": null}}},
            {"status": 200, "bodyBase64": ""},
            {"body": "abc", "dense": true, "last": {"deltaBase64": "", "done": true, "error": "*e*"}}]"#,
    ),
    Case::same(
        "http.a-name-is-taken-while-its-body-comes",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/pieces","headers":[],"requestId":"s","streamResponse":true}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","headers":[],"requestId":"s","streamResponse":true}"#,
            ),
            (
                "@body",
                r#"{"method":"GET","url":"$ORIGIN/large/3","headers":[],"requestId":"s"}"#,
            ),
            ("@go", ""),
            ("@deltas", "s"),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/large/3","headers":[],"requestId":"s","streamResponse":true}"#,
            ),
            ("@deltas", "s"),
        ],
        r#"[{"status": 200}, "-32602 http/request streamResponse requestId `s` is already active", {"body": "xxx"},
            {"body": "abcdef", "dense": true}, {"status": 200}, {"body": "xxx", "dense": true}]"#,
    ),
    Case::same(
        "http.bodies-end-with-their-connection",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/begun","headers":[],"requestId":"s","streamResponse":true}"#,
            ),
            ("@drop", ""),
            ("@resume", ""),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/large/3","headers":[],"requestId":"s","streamResponse":true}"#,
            ),
            ("@deltas", "s"),
        ],
        r#"[{"status": 200}, "$SESSION", {"status": 200}, {"body": "xxx", "dense": true}]"#,
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
