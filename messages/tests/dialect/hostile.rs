//! Whatever comes, it is judged and nothing panics.

use dwell_messages::dialect::{Call, Incoming, Method, path_of};
use proptest::prelude::*;
use serde_json::Value;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z/:%.=]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop_oneof![
            Just("processId".to_owned()),
            Just("path".to_owned()),
            Just("argv".to_owned()),
            Just("id".to_owned()),
            Just("method".to_owned()),
            "[a-z]{0,6}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..15).prop_map(Value::from),
            proptest::collection::hash_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Incoming::decode(&bytes));
    }

    #[test]
    fn any_text_is_judged_as_a_path(text in ".{0,60}") {
        drop(path_of(&text));
        drop(path_of(&format!("file:{text}")));
    }

    #[test]
    fn any_parameters_of_any_method_are_judged(params in value(), at in 0..Method::ALL.len()) {
        drop(Call::decode(Method::ALL[at], params.clone()));
        let message = serde_json::to_vec(&params).unwrap();
        drop(Incoming::decode(&message));
    }

    /// What is cut anywhere is no message, and a message with a byte changed is judged.
    #[test]
    fn a_message_that_was_cut_or_changed_is_judged(at in 0_usize..100, byte in any::<u8>()) {
        let whole = br#"{"id":1,"method":"process/read","params":{"processId":"p","afterSeq":1,"waitMs":5},"trace":{}}"#;
        let at = at % whole.len();
        prop_assert!(Incoming::decode(&whole[..at]).is_err());
        let mut changed = whole.to_vec();
        changed[at] = byte;
        drop(Incoming::decode(&changed));
    }
}
