//! The JSON dialect: messages of whoever connects, the parameters of requests, and the paths in them.
#![no_main]

use dwell_messages::dialect::{
    Call, Fault, Id, Incoming, Method, encode_error, encode_response, path_of, uri_of,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Incoming::decode(data) else {
        return;
    };
    let answers = |id: &Id| {
        let refusal = encode_error(id, &Fault::invalid_request("why"));
        let heard = Incoming::decode(&refusal).expect("what is answered can be read");
        assert!(matches!(heard, Incoming::Error { id: heard, .. } if heard == *id));
    };
    match message {
        Incoming::Request {
            id,
            method,
            params,
            trace,
        } => {
            answers(&id);
            drop(trace.context());
            for text in params
                .as_object()
                .into_iter()
                .flat_map(|members| members.values())
            {
                path(text.as_str().unwrap_or_default());
            }
            let Some(method) = Method::of(&method) else { return };
            match Call::decode(method, params) {
                Ok(call) => assert_eq!(call.method(), method),
                Err(fault) => assert_eq!(fault.code, Fault::INVALID_PARAMS),
            }
        }
        Incoming::Notification { .. } => {}
        Incoming::Response { id, result } => {
            let again = encode_response(&id, &result);
            assert!(
                Incoming::decode(&again).is_ok(),
                "what was read can be said again"
            );
        }
        Incoming::Error { id, .. } => answers(&id),
    }
});

fn path(uri: &str) {
    let Ok(path) = path_of(uri) else { return };
    assert!(path.first() == Some(&b'/') && !path.contains(&0));
    assert_eq!(path_of(&uri_of(&path)).as_ref(), Ok(&path), "{uri:?}");
}
