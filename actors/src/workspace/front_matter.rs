//! What stands between the two `---` lines at a skill's beginning, read leniently.
//!
//! It is YAML by its authors' intention and read without a YAML parser: flat keys, quoted or plain values, block texts,
//! and one level of keys below `metadata`. What is more than that is passed over with a word, and fails nothing.

/// Most bytes of a file in which front matter must end.
pub const FRONT_MATTER_MAX_BYTES: usize = 8 * 1024;
/// Most bytes of a name.
pub const SKILL_NAME_MAX_BYTES: usize = 128;
/// Most bytes of a description.
pub const DESCRIPTION_MAX_BYTES: usize = 2_048;
/// Most pairs of metadata of one skill, and most bytes of one key and of one value.
pub const METADATA_MAX: usize = 32;
/// See `METADATA_MAX`.
pub const METADATA_VALUE_MAX_BYTES: usize = 1_024;

/// What front matter says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FrontMatter {
    /// `name`.
    pub name: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// Everything else: top-level keys as they are, keys below `metadata` without that word.
    pub metadata: Vec<(String, String)>,
    /// What was passed over or cut, in sentences without content.
    pub problems: Vec<&'static str>,
}

/// Reads it from a file's beginning, of which `whole` says whether it is all there is. `Err`: there is none.
///
/// # Errors
/// Why there is none: in a sentence without content.
pub fn parse(front: &[u8], whole: bool) -> Result<FrontMatter, &'static str> {
    let front = front.strip_prefix(b"\xef\xbb\xbf").unwrap_or(front);
    let text = String::from_utf8_lossy(front);
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("---") {
        return Err("the file does not begin with front matter");
    }
    let mut block = Vec::new();
    let mut ended = false;
    for line in lines {
        if line == "---" || line == "..." {
            ended = true;
            break;
        }
        block.push(line);
    }
    if !ended {
        return Err(if whole {
            "the front matter has no end"
        } else {
            "the front matter is too long"
        });
    }
    let mut read = FrontMatter::default();
    if matches!(text, std::borrow::Cow::Owned(_)) {
        read.problems.push("the front matter is not UTF-8");
    }
    Reader { lines: &block, at: 0 }.read(&mut read);
    Ok(read)
}

struct Reader<'a> {
    lines: &'a [&'a str],
    at: usize,
}

impl Reader<'_> {
    fn read(&mut self, into: &mut FrontMatter) {
        while let Some((indent, key, value)) = self.next_pair(into) {
            if indent > 0 {
                into.problem("a line is indented below nothing");
                continue;
            }
            if key == "metadata" && value.is_empty() {
                self.nested(into);
                continue;
            }
            let value = self.value(indent, &value);
            into.take(key, value);
        }
    }

    /// The keys below `metadata`.
    fn nested(&mut self, into: &mut FrontMatter) {
        while self
            .lines
            .get(self.at)
            .is_some_and(|line| indent_of(line) > 0 || is_blank(line))
        {
            let Some((indent, key, value)) = self.next_pair(into) else {
                return;
            };
            let value = self.value(indent, &value);
            into.keep(key, value);
        }
    }

    /// The next `key: value`; lines that are none are passed over.
    fn next_pair(&mut self, into: &mut FrontMatter) -> Option<(usize, String, String)> {
        while let Some(line) = self.lines.get(self.at) {
            self.at += 1;
            if is_blank(line) {
                continue;
            }
            let pair = line.trim_start().split_once(':');
            match pair.filter(|(_, value)| value.is_empty() || value.starts_with([' ', '\t'])) {
                Some((key, value)) if !key.is_empty() && !key.starts_with('-') => {
                    let key = unquoted(key.trim());
                    return Some((indent_of(line), key, value.trim().to_owned()));
                }
                Some(_) | None => into.problem("a line is no key with a value"),
            }
        }
        None
    }

    /// A value that may go on below its key, at a greater indent.
    fn value(&mut self, indent: usize, first: &str) -> String {
        let folded = match first.bytes().next() {
            Some(b'|') => Some(false),
            Some(b'>') => Some(true),
            Some(b'"' | b'\'') => return unquoted(first),
            Some(_) | None => None,
        };
        let mut below = Vec::new();
        while let Some(line) = self.lines.get(self.at) {
            let deeper = indent_of(line) > indent;
            // What looks like a key of its own below an empty value is not this one's text.
            if !(deeper || is_blank(line) && folded.is_some()) {
                break;
            }
            below.push(line.trim());
            self.at += 1;
        }
        match folded {
            Some(folded) => {
                let text = below.join(if folded { " " } else { "\n" });
                text.trim().to_owned()
            }
            None => {
                let plain = std::iter::once(without_comment(first)).chain(below);
                plain.collect::<Vec<_>>().join(" ").trim().to_owned()
            }
        }
    }
}

impl FrontMatter {
    fn problem(&mut self, problem: &'static str) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn take(&mut self, key: String, value: String) {
        match key.as_str() {
            "name" if self.name.is_none() => {
                let name = self.cut(value, SKILL_NAME_MAX_BYTES);
                self.name = Some(name).filter(|name| !name.is_empty());
            }
            "description" if self.description.is_none() => {
                let text = self.cut(value, DESCRIPTION_MAX_BYTES);
                self.description = Some(text).filter(|text| !text.is_empty());
            }
            "name" | "description" => self.problem("a key is there twice"),
            _ => self.keep(key, value),
        }
    }

    fn keep(&mut self, key: String, value: String) {
        if self.metadata.len() >= METADATA_MAX {
            return self.problem("there is too much metadata");
        }
        let key = self.cut(key, METADATA_VALUE_MAX_BYTES);
        let value = self.cut(value, METADATA_VALUE_MAX_BYTES);
        self.metadata.push((key, value));
    }

    fn cut(&mut self, mut text: String, max_bytes: usize) -> String {
        if text.len() > max_bytes {
            self.problem("a value is too long and was cut");
            text.truncate(text.floor_char_boundary(max_bytes));
        }
        text
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// A plain value ends before a `#` with a blank before it.
fn without_comment(value: &str) -> &str {
    match value.find(" #") {
        Some(at) => value[..at].trim_end(),
        None => value,
    }
}

/// Without its quotes, if it has any; in double ones the usual escapes are undone.
fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'') {
        let end = inner.rfind('\'').unwrap_or(inner.len());
        return inner[..end].replace("''", "'");
    }
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}
