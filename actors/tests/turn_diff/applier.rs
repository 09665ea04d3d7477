//! The plainest reader of a diff there is: takes the files as they were, and makes them what the diff says. Whatever is not as it says
//! is an error.

use std::collections::BTreeMap;

/// Mode and content by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, (String, Vec<u8>)>;

/// One file's part.
#[derive(Default)]
struct Section<'a> {
    names: [Vec<u8>; 2],
    new_mode: Option<String>,
    added: bool,
    deleted: bool,
    renamed: bool,
    hunks: Vec<&'a [u8]>,
}

/// Applies a diff, every part of it to the tree as it was.
pub(crate) fn apply(before: &Tree, diff: &[u8]) -> Result<Tree, String> {
    let mut after = before.clone();
    let sections = sections(diff)?;
    for section in sections
        .iter()
        .filter(|section| section.deleted || section.renamed)
    {
        after.remove(&section.names[0]).ok_or("nothing to take away")?;
    }
    for section in &sections {
        let [old, new] = &section.names;
        let source = before.get(old).cloned();
        let (mode, content) = match (section.added, source) {
            (true, _) if after.contains_key(new) => return Err("it is there already".into()),
            (true, _) => (String::new(), Vec::new()),
            (false, Some(source)) => source,
            (false, None) => return Err("nothing to change".into()),
        };
        let content = patched(&content, &section.hunks)?;
        if section.deleted {
            if !content.is_empty() {
                return Err("something is left of a deleted file".into());
            }
            continue;
        }
        let mode = section.new_mode.clone().unwrap_or(mode);
        after.insert(new.clone(), (mode, content));
    }
    Ok(after)
}

fn sections(diff: &[u8]) -> Result<Vec<Section<'_>>, String> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut lines = diff.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if let Some(names) = line.strip_prefix(b"diff --git ") {
            sections.push(Section {
                names: both(names)?,
                ..Section::default()
            });
            continue;
        }
        let section = sections.last_mut().ok_or("no header")?;
        let rest = |prefix: &str| {
            let rest = line.strip_prefix(prefix.as_bytes())?;
            Some(String::from_utf8_lossy(rest).trim_end().to_owned())
        };
        if let Some(mode) = rest("new file mode ") {
            (section.added, section.new_mode) = (true, Some(mode));
        } else if let Some(mode) = rest("new mode ") {
            section.new_mode = Some(mode);
        } else if rest("deleted file mode ").is_some() {
            section.deleted = true;
        } else if rest("rename from ").is_some() {
            section.renamed = true;
        } else if line.starts_with(b"@@ ") {
            section.hunks.push(line);
            // A header of the next file never looks like a line of a hunk.
            while let Some(next) = lines.next_if(|next| matches!(next[0], b' ' | b'+' | b'-' | b'\\')) {
                section.hunks.push(next);
            }
        } else if !["old mode ", "similarity ", "rename to ", "--- ", "+++ "]
            .iter()
            .any(|known| line.starts_with(known.as_bytes()))
        {
            return Err(format!("what is {:?}?", String::from_utf8_lossy(line)));
        }
    }
    Ok(sections)
}

/// The two names of a header. Without quotes both are equal, or one could not tell where the first ends; tests have no others with
/// spaces in them.
fn both(names: &[u8]) -> Result<[Vec<u8>; 2], String> {
    let mut found = Vec::new();
    let mut rest = names.strip_suffix(b"\n").unwrap_or(names);
    while !rest.is_empty() {
        let (name, after) = one(rest)?;
        found.push(name.get(2..).ok_or("a name without its prefix")?.to_vec());
        rest = after.strip_prefix(b" ").unwrap_or(after);
    }
    found.try_into().map_err(|_| "two names are needed".into())
}

fn one(from: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let Some(mut rest) = from.strip_prefix(b"\"") else {
        let end = from.iter().position(|byte| *byte == b' ').unwrap_or(from.len());
        return Ok((from[..end].to_vec(), &from[end..]));
    };
    let mut name = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Ok((name, after)),
            [b'\\', octal @ b'0'..=b'3', b, c, after @ ..] => {
                name.push((octal - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            [b'\\', letter, after @ ..] => {
                let letters = b"a\x07b\x08t\tn\nv\x0bf\x0cr\r\"\"\\\\";
                let at = letters.chunks(2).find(|pair| pair[0] == *letter);
                name.push(at.ok_or("an unknown escape")?[1]);
                rest = after;
            }
            [byte, after @ ..] => {
                name.push(*byte);
                rest = after;
            }
            [] => return Err("a quote without its end".into()),
        }
    }
}

fn patched(content: &[u8], hunks: &[&[u8]]) -> Result<Vec<u8>, String> {
    let old: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let (mut at, mut out) = (0, Vec::new());
    let mut lines = hunks.iter().peekable();
    while let Some(line) = lines.next() {
        if let Some(place) = line.strip_prefix(b"@@ -") {
            let place = String::from_utf8_lossy(place);
            let (start, count) = numbers(place.split(' ').next().unwrap_or_default())?;
            let start = if count == 0 { start } else { start - 1 };
            out.extend_from_slice(&old.get(at..start).ok_or("hunks out of order")?.concat());
            at = start;
            continue;
        }
        let mut text = line[1..].to_vec();
        if lines.next_if(|next| next.starts_with(b"\\")).is_some() {
            text.pop();
        }
        let sign = line[0];
        if sign != b'+' {
            if old.get(at) != Some(&text.as_slice()) {
                return Err(format!("line {at} is another"));
            }
            at += 1;
        }
        if sign != b'-' {
            out.extend_from_slice(&text);
        }
    }
    out.extend_from_slice(&old.get(at..).ok_or("behind the end")?.concat());
    Ok(out)
}

fn numbers(place: &str) -> Result<(usize, usize), String> {
    let (start, count) = place.split_once(',').unwrap_or((place, "1"));
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
    Ok((number(start)?, number(count)?))
}
