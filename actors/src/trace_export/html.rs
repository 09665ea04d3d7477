//! One page that needs nothing else: rows, the critical path, the account; zoom and search.
//!
//! The trace is in it as a block of data. The page's script only ever puts it into the document as text, and a policy in
//! the page lets a browser run that one script, apply that one style sheet, and load nothing: what a hostile name brought
//! with it would not run, and could not call home.

use serde_json::{Value, json};

use dwell_messages::Value as Attribute;

use crate::trace_file::Trace;
use crate::waterfall::{clean, to_json};

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");
/// SHA-256 of the style sheet and the script, as a policy names them; a test says what they are when these change.
const STYLE_HASH: &str = "sha256-RcS7HWii5bQolTzB4+WcigPFFhNpXl94Scx81DBXlHI=";
const SCRIPT_HASH: &str = "sha256-Q5j65FdGxaZhRV51VkzTqP0iAj8nGPOnXk94q/LNcYk=";

/// The parts of the page that every trace shares.
const BODY: &str = r#"<header>
<h1 id="title">trace<small id="trace-id"></small></h1>
<div class="tools">
<input id="search" type="search" placeholder="search names and attributes ( / )" aria-label="search">
<span id="hits" role="status"></span>
<button id="in" title="zoom in ( + )">+</button>
<button id="out" title="zoom out ( - )">&minus;</button>
<button id="all" title="the whole trace ( 0 )">all</button>
<span id="range"></span>
<label><input id="critical" type="checkbox"> critical path only</label>
<button id="theme" title="light or dark">&#9680;</button>
<div class="legend"><span class="l-harness">harness</span><span class="l-executor">executor</span><span
class="l-relay">relay</span><span class="l-mailbox">mailbox wait</span><span class="l-turn">turn</span><span
class="l-critical">critical path</span></div>
</div>
<div class="axis"><div></div><div class="lane" id="axis"></div><div></div><div></div></div>
</header>
<main>
<noscript>This page draws its trace with the script inside it, which is switched off here.</noscript>
<div id="rows"></div>
<div id="account"></div>
<ul class="notes" id="notes"></ul>
</main>
<aside id="details" hidden></aside>
"#;

pub(super) fn write(trace: &Trace) -> String {
    let data = for_script(&data(trace));
    let id = trace.trace_id;
    let body = BODY.replace(
        r#"<small id="trace-id"></small>"#,
        &format!("<small>trace {id}</small>"),
    );
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>dwell trace {id}</title>
<style>{STYLE}</style>
</head>
<body>
{body}<script type="application/json" id="trace">{data}</script>
<script>{SCRIPT}</script>
</body>
</html>
"#,
        policy = policy()
    )
}

fn policy() -> String {
    format!(
        "default-src 'none'; style-src '{STYLE_HASH}'; script-src '{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'"
    )
}

/// What the picture says, and the attributes of the spans that have a row.
fn data(trace: &Trace) -> Value {
    let mut data = to_json(trace);
    let shown = |list: &str| {
        let rows = data[list].as_array().map_or(&[][..], Vec::as_slice);
        rows.iter()
            .filter_map(|row| Some(row["span_id"].as_str()?.to_owned()))
    };
    let ids: std::collections::HashSet<String> = shown("rows").chain(shown("orphans")).collect();
    let attributes: serde_json::Map<_, _> = trace
        .spans
        .iter()
        .map(|(_, span)| (span.id().to_string(), span))
        .filter(|(id, span)| ids.contains(id) && !span.attributes.is_empty())
        .map(|(id, span)| {
            let pairs = span
                .attributes
                .iter()
                .map(|(key, value)| json!([clean(key), text(value)]));
            (id, pairs.collect())
        })
        .collect();
    data["attributes"] = Value::Object(attributes);
    data
}

fn text(value: &Attribute) -> String {
    match value {
        Attribute::Bool(value) => value.to_string(),
        Attribute::I64(value) => value.to_string(),
        Attribute::F64(value) => value.to_string(),
        Attribute::Str(value) => clean(value),
    }
}

/// JSON that cannot end the element it stands in, nor begin another.
fn for_script(data: &Value) -> String {
    let mut out = String::new();
    for c in data.to_string().chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}
