//! Parameters of requests.

use dwell_messages::dialect::{Call, Fault, Group, Initialize, Method};
use serde_json::{Value, json};

fn call(method: Method, params: Value) -> Result<Call, Fault> {
    Call::decode(method, params)
}

fn refusal(method: Method, params: Value) -> Fault {
    call(method, params).unwrap_err()
}

#[test]
fn every_method_is_found_by_its_name_and_has_a_group() {
    for method in Method::ALL {
        assert_eq!(Method::of(method.name()), Some(*method));
        assert!(!method.group().name().is_empty());
    }
    assert_eq!(Method::of("process/resize"), None);
    assert_eq!(Method::GetMetadata.group(), Group::Filesystem);
    let unknown = Fault::unknown_method("fs/rename");
    assert_eq!(unknown.code, -32601);
    assert_eq!(
        unknown.message,
        "exec-server stub does not implement `fs/rename` yet"
    );
}

#[test]
fn parameters_are_an_object_or_all_of_them_in_order() {
    let expected = Call::Initialize(Initialize {
        client_name: "c".into(),
        resume_session_id: None,
    });
    let named = json!({"clientName": "c", "more": 1});
    assert_eq!(call(Method::Initialize, named), Ok(expected.clone()));
    for positional in [json!(["c", null]), json!(["c"])] {
        assert_eq!(call(Method::Initialize, positional), Ok(expected.clone()));
    }
    for wrong in [json!(["c", null, 1]), json!([]), json!("c")] {
        assert_eq!(refusal(Method::Initialize, wrong).code, -32602);
    }
    let missing = refusal(Method::Initialize, json!({}));
    assert_eq!(
        (missing.code, &*missing.message),
        (-32602, "missing field `clientName`")
    );
}

#[test]
fn links_come_before_the_sandbox_and_null_is_as_good_as_nothing() {
    let uri = "file:///a";
    for (method, positional, named) in [
        (
            Method::ReadFile,
            json!([uri, false, null]),
            json!({"path": uri, "followSymlinks": false}),
        ),
        (
            Method::ReadFile,
            json!([uri, null, null]),
            json!({"path": uri, "followSymlinks": true}),
        ),
        (
            Method::WriteFile,
            json!([uri, "", false, null]),
            json!({"path": uri, "dataBase64": "", "followSymlinks": false}),
        ),
        (
            Method::CreateDirectory,
            json!([uri, true, false, null]),
            json!({"path": uri, "recursive": true, "followSymlinks": false}),
        ),
        (
            Method::GetMetadata,
            json!([uri, false, null]),
            json!({"path": uri, "followSymlinks": false}),
        ),
        (
            Method::Remove,
            json!([uri, true, false, false, null]),
            json!({"path": uri, "recursive": true, "force": false, "followSymlinks": false}),
        ),
    ] {
        assert_eq!(call(method, positional), call(method, named.clone()), "{named}");
        assert!(call(method, named).is_ok());
    }
    assert_eq!(refusal(Method::ReadFile, json!([uri])).code, -32602);
    let mode = json!({"handleId": "h", "path": uri, "mode": null});
    assert_eq!(
        refusal(Method::OpenFile, mode).code,
        -32602,
        "a mode is one or is not there"
    );
}

#[test]
fn what_takes_nothing_takes_nothing() {
    for method in [Method::EnvironmentInfo, Method::EnvironmentStatus] {
        assert!(call(method, Value::Null).is_ok());
        assert!(call(method, json!({})).is_ok());
        for wrong in [json!([]), json!({"a": 1}), json!(1)] {
            let fault = refusal(method, wrong);
            assert_eq!(fault.code, -32602);
            assert!(fault.message.contains("expected unit"), "{}", fault.message);
        }
    }
}

#[test]
fn a_start_without_a_program_and_a_write_without_an_id_are_refused() {
    let start = json!({"processId": "p", "argv": [], "cwd": "file:///", "env": {}, "tty": false});
    let fault = refusal(Method::Start, start);
    assert_eq!((fault.code, &*fault.message), (-32602, "argv must not be empty"));
    let write = json!({"processId": "p", "chunk": "", "writeId": ""});
    assert_eq!(refusal(Method::Write, write).code, -32602);
    let write = json!({"processId": "p", "chunk": "no base64!", "writeId": "1"});
    assert_eq!(refusal(Method::Write, write).code, -32602);
    let signal = json!({"processId": "p", "signal": "kill"});
    assert_eq!(refusal(Method::Signal, signal).code, -32602);
}

#[test]
fn a_start_has_fourteen_parameters_of_which_five_are_needed() {
    let positional = json!([
        "p",
        null,
        ["true"],
        "file:///",
        null,
        null,
        {},
        false,
        false,
        null,
        null,
        false,
        null,
        null
    ]);
    let named = json!({"processId": "p", "argv": ["true"], "cwd": "file:///", "env": {}, "tty": false});
    assert_eq!(
        call(Method::Start, positional),
        call(Method::Start, named.clone())
    );
    for needed in ["processId", "argv", "cwd", "env", "tty"] {
        let mut less = named.clone();
        less.as_object_mut().unwrap().remove(needed);
        assert_eq!(
            refusal(Method::Start, less).message,
            format!("missing field `{needed}`")
        );
    }
    // A policy has all of its members or is none.
    let mut policy = named;
    policy["envPolicy"] = json!({"inherit": "all"});
    assert_eq!(refusal(Method::Start, policy).code, -32602);
}

#[test]
fn every_call_knows_its_method() {
    let uri = "file:///a";
    let samples = [
        (Method::Read, json!({"processId": "p"})),
        (
            Method::Write,
            json!({"processId": "p", "chunk": "YQ==", "writeId": "1"}),
        ),
        (Method::Signal, json!({"processId": "p", "signal": "interrupt"})),
        (Method::Terminate, json!(["p"])),
        (Method::ReadFile, json!({"path": uri, "sandbox": null})),
        (Method::WriteFile, json!({"path": uri, "dataBase64": "?"})),
        (Method::CreateDirectory, json!({"path": uri})),
        (Method::GetMetadata, json!({"path": uri, "followSymlinks": false})),
        (Method::Canonicalize, json!({"path": uri})),
        (Method::ReadDirectory, json!({"path": uri})),
        (
            Method::Walk,
            json!({"path": uri, "options": {"maxDepth": 6, "maxDirectories": 2000, "maxEntries": 20000,
                "followDirectorySymlinks": true, "pruneHiddenDirectories": true}}),
        ),
        (
            Method::Remove,
            json!({"path": uri, "recursive": false, "force": false}),
        ),
        (
            Method::Copy,
            json!({"sourcePath": uri, "destinationPath": uri, "recursive": true}),
        ),
        (
            Method::OpenFile,
            json!({"handleId": "", "path": uri, "mode": "replace"}),
        ),
        (Method::ReadBlock, json!({"handleId": "h", "offset": 0, "len": 1})),
        (
            Method::WriteBlock,
            json!({"handleId": "h", "offset": 0, "chunk": "YQ=="}),
        ),
        (Method::CloseFile, json!({"handleId": "h"})),
        (
            Method::WatchMissing,
            json!({"watchId": 1, "missing": [uri], "present": null}),
        ),
        (
            Method::ReadEnvironmentConfig,
            json!({"cwd": uri, "configPaths": [["a"]], "requirementsPaths": []}),
        ),
        (
            Method::DiscoverRoots,
            json!({"roots": [{"id": "r", "path": uri}]}),
        ),
        (Method::DiscoverCapabilities, json!({"cwd": uri})),
        (
            Method::Http,
            json!({"method": "GET", "url": "http://h/", "headers": [], "requestId": "1"}),
        ),
    ];
    for (method, params) in samples {
        assert_eq!(call(method, params).unwrap().method(), method);
    }
}

#[test]
fn what_the_system_refuses_has_the_systems_words_and_a_number_by_kind() {
    let missing = Fault::of_file_errno(2);
    assert_eq!(
        (missing.code, &*missing.message),
        (-32004, "No such file or directory (os error 2)")
    );
    for errno in [1, 13, 22] {
        assert_eq!(Fault::of_file_errno(errno).code, -32600);
    }
    assert_eq!(
        Fault::of_file_errno(13).message,
        "Permission denied (os error 13)"
    );
    for errno in [17, 20, 21, 39, 30, 40, 9] {
        assert_eq!(Fault::of_file_errno(errno).code, -32603);
    }
    assert_eq!(Fault::of_spawn_errno(2).code, -32603);
}
