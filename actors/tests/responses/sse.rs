//! Server-sent events, however their bytes are cut.

use dwell_actors::responses::{SseError, SseParser};
use proptest::prelude::*;

fn events(body: &[u8], cuts: &[usize]) -> Result<Vec<String>, SseError> {
    let mut parser = SseParser::new(1_024);
    let (mut all, mut from) = (Vec::new(), 0);
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    ends.push(body.len());
    ends.sort_unstable();
    for end in ends {
        parser.push(&body[from..end]);
        from = end;
        while let Some(event) = parser.next_event()? {
            all.push(event);
        }
    }
    Ok(all)
}

#[test]
fn an_event_is_its_data_and_ends_with_an_empty_line() {
    let body = "\u{feff}: comment\nevent: x\ndata: one\n\ndata:two\ndata\ndata:  three\r\n\r\nid: 7\n\ndata: four\r\rdata: cut";
    assert_eq!(
        events(body.as_bytes(), &[]).unwrap(),
        ["one", "two\n\n three", "four"]
    );
}

#[test]
fn an_event_and_a_line_without_end_are_bounded() {
    let mut parser = SseParser::new(16);
    parser.push(b"data: 0123456789012345678901234567890");
    assert_eq!(parser.next_event(), Err(SseError::TooLarge(16)));
    let mut parser = SseParser::new(16);
    parser.push(b"data: 0123456789\ndata: 0123456789\n\n");
    assert_eq!(parser.next_event(), Err(SseError::TooLarge(16)));
    let mut parser = SseParser::new(16);
    parser.push(b"data: 0123456789\n\ndata: 0123456789\n\n");
    assert!(parser.next_event().unwrap().is_some() && parser.next_event().unwrap().is_some());
}

#[test]
fn what_is_no_text_is_told() {
    assert_eq!(events(b"data: \xff\n\n", &[]), Err(SseError::NotText));
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_changes_nothing(
        lines in prop::collection::vec(("(data: |data:|event: |: |data)", "[a-z é]{0,12}", "(\n|\r|\r\n|\n\n|\r\n\r\n|\r\r)"), 0..12),
        mark in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut body = String::from(if mark { "\u{feff}" } else { "" });
        lines.iter().for_each(|(name, value, end)| body.extend([name.as_str(), value, end]));
        prop_assert_eq!(events(body.as_bytes(), &cuts), events(body.as_bytes(), &[]));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..512), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        drop(events(&body, &cuts));
    }
}
