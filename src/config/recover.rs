//! From text to a TOML table, whatever the text is: wrong lines are lost and nothing else.
//!
//! The parser recovers from errors by itself, but what it then returns cannot be used: `port = = 3` becomes
//! port 0, and an unclosed `[` takes the keys and tables after it. So it is only asked *where* the first
//! error is: the line on which that entry begins is blanked and all is parsed again, until no error is left.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text free of errors, and what was lost on the way to it.
pub struct Recovered {
    text: String,
    pub lost: Vec<Lost>,
    /// Where each line begins, so that a span of the table has a line number.
    starts: Vec<usize>,
}

/// A line that was left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// From 1; 0 means the whole file.
    pub line: usize,
    /// The key at its beginning, if it looks like one.
    pub key: String,
    pub text: String,
}

impl Recovered {
    /// What the text says; it has been parsed without an error before.
    pub fn table(&self) -> DeTable<'_> {
        DeTable::parse(&self.text).map(Spanned::into_inner).unwrap_or_default()
    }

    /// The line of an offset in the text, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }
}

/// Parses a file, leaving out what is wrong.
pub fn parse(bytes: &[u8]) -> Recovered {
    let mut lost = Vec::new();
    let mut lines: Vec<Cow<'_, str>> = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(line) => lines.push(line.into()),
            Err(_) => {
                // A binary file has thousands of these lines; one of them tells the story.
                if lost.is_empty() {
                    lost.push(Lost { line: index + 1, key: String::new(), text: "not UTF-8 text".into() });
                }
                lines.push("".into());
            }
        }
    }
    let mut repaired = vec![false; lines.len()];
    let allowed = MAX_WORK.max(MIN_ROUNDS.saturating_mul(bytes.len()));
    let (mut round, mut work) = (0, 0);
    while work < allowed {
        round += 1;
        let text = lines.join("\n");
        work += text.len() + 1;
        let starts = line_starts(&text);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
        let Some(first) = first else {
            return Recovered { text, lost, starts };
        };
        let line = match first.span().filter(|span| span.end > 0) {
            Some(span) => {
                let begin = entry_around(table.get_ref(), span.start).unwrap_or(span.start);
                starts.partition_point(|&start| start <= begin)
            }
            None => {
                let (line, cost) = line_without_place(&lines);
                work += cost;
                line
            }
        };
        let Some(index) = last_line_with_text(&lines, line) else { break };
        lost.push(leave_out(&mut lines, index, round, first.message(), &mut repaired));
    }
    lost.push(Lost {
        line: 0,
        key: String::new(),
        text: format!("more than {round} errors: this is no TOML, the whole file is left out"),
    });
    Recovered { text: String::new(), lost, starts: Vec::new() }
}

/// The line, from 1, with which an error begins that has no place, such as nesting that is too deep; and how many bytes were
/// parsed to find it.
fn line_without_place(lines: &[Cow<'_, str>]) -> (usize, usize) {
    let (mut good, mut bad, mut cost) = (0, lines.len(), 0);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        let text = lines.get(..middle).unwrap_or_default().join("\n");
        cost += text.len();
        let (_, errors) = DeTable::parse_recoverable(&text);
        let has_it = errors.iter().any(|error| error.span().is_none_or(|span| span.end == 0));
        if has_it { bad = middle } else { good = middle }
    }
    (bad, cost)
}

/// A round parses everything once or more: a file that is no TOML at all costs at most so many bytes of parsing,
const MAX_WORK: usize = 8 << 20;
/// or so many times itself, for a long file may have some errors too.
const MIN_ROUNDS: usize = 64;

/// Blanks a line; a header is repaired instead, once.
fn leave_out(
    lines: &mut [Cow<'_, str>],
    index: usize,
    round: usize,
    message: &str,
    repaired: &mut [bool],
) -> Lost {
    let message = message.trim_end_matches(", expected nothing");
    let mut lost = Lost { line: index + 1, key: String::new(), text: format!("not TOML ({message})") };
    let Some((line, rest)) = lines.get_mut(index..).and_then(<[_]>::split_first_mut) else { return lost };
    lost.key = key_of(line);
    let is_new = repaired.get_mut(index).is_some_and(|repaired| !std::mem::replace(repaired, true));
    if let Some(header) = repaired_header(line, round).filter(|_| is_new) {
        *line = header.into();
        lost.text += ": read as one more part of this table";
        return lost;
    }
    *line = "".into();
    lost.text += match blank_orphans(rest) {
        0 => ": left out".to_owned(),
        count => format!(": left out, with {count} more lines after it"),
    }
    .as_str();
    lost
}

/// Blanks the lines after a blanked one that cannot begin an entry: the rest of an array, or more garbage.
///
/// Each of them would be an error in a round of its own; a long list of keys would use the rounds up.
fn blank_orphans(lines: &mut [Cow<'_, str>]) -> usize {
    let mut count = 0;
    for line in lines {
        let (table, errors) = DeTable::parse_recoverable(line);
        if line.trim_start().starts_with('[') || !table.get_ref().is_empty() {
            break;
        }
        if !errors.is_empty() {
            *line = "".into();
            count += 1;
        }
    }
    count
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// Index of the last line that is not blank, at or before line `number` (from 1).
///
/// An error may be found lines after its cause (at the end of the file, for one), never before it.
fn last_line_with_text(lines: &[Cow<'_, str>], number: usize) -> Option<usize> {
    let upto = lines.get(..number).unwrap_or(lines);
    upto.iter()
        .rposition(|line| !line.trim().is_empty())
        .or_else(|| lines.iter().position(|line| !line.trim().is_empty()))
}

/// Where the `key = value` begins in which `offset` lies.
fn entry_around(table: &DeTable<'_>, offset: usize) -> Option<usize> {
    table.iter().find_map(|(key, value)| {
        let (begin, end) = (key.span().start, value.span().end);
        // The span of a table with a header is the header, which begins before the key in it.
        if value.span().start >= key.span().end {
            return (begin..=end).contains(&offset).then_some(begin);
        }
        match value.get_ref() {
            DeValue::Table(table) => entry_around(table, offset),
            DeValue::Array(tables) => tables.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(table) => entry_around(table, offset),
                _ => None,
            }),
            _ => None,
        }
    })
}

/// A header that can be parsed, in place of one that cannot: a broken or second `[ssh]`.
///
/// Without it the keys below would count for the table above. The underscores make it another word for the
/// parser and the same one for us (see `same_key`); an unknown name is reported later like any other.
fn repaired_header(line: &str, round: usize) -> Option<String> {
    let inner = line.trim().strip_prefix('[')?.trim_start_matches('[');
    let name = inner.split([']', '#', '=', '"', '\'']).next()?.trim();
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || ". _-".contains(c)) {
        return None;
    }
    let mark = "_".repeat(round);
    let words: Vec<String> =
        name.split(['.', ' ']).filter(|word| !word.is_empty()).map(|word| format!("{mark}{word}")).collect();
    (!words.is_empty()).then(|| format!("[{}]", words.join(".")))
}

/// What stands before the `=` of a line, or between the brackets of a header.
fn key_of(line: &str) -> String {
    let key = line.split(['=', '#']).next().unwrap_or_default().trim_matches(['[', ']', ' ', '\t', '\r']);
    let plain = key.len() <= MAX_KEY && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if plain { key.to_owned() } else { String::new() }
}

const MAX_KEY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        fn walk(prefix: &str, table: &DeTable<'_>, into: &mut Vec<String>) {
            for (key, value) in table.iter() {
                let name = format!("{prefix}{}", key.get_ref().trim_start_matches('_'));
                match value.get_ref() {
                    DeValue::Table(table) => walk(&format!("{name}."), table, into),
                    value => into.push(format!("{name}={}", show(value))),
                }
            }
        }
        fn show(value: &DeValue<'_>) -> String {
            match value {
                DeValue::Integer(number) => number.to_string(),
                DeValue::String(text) => text.to_string(),
                other => other.type_str().to_owned(),
            }
        }
        let mut into = Vec::new();
        walk("", &parse(text.as_bytes()).table(), &mut into);
        into.sort_unstable();
        into
    }

    fn lost(text: &str) -> Vec<usize> {
        parse(text.as_bytes()).lost.iter().map(|lost| lost.line).collect()
    }

    #[test]
    fn a_line_that_is_nested_too_deep_is_lost_alone() {
        for deep in [".".repeat(200), "a.".repeat(200) + "b = 1", "x = ".to_owned() + &"[".repeat(200)] {
            let text = format!("a = 1\n[ssh]\nport = 2\n{deep}\nbanner = 3\n");
            assert_eq!(lost(&text), [4], "{deep}");
            assert_eq!(keys(&text), ["a=1", "ssh.banner=3", "ssh.port=2"], "{deep}");
        }
    }

    #[test]
    fn a_file_of_errors_without_a_place_costs_little() {
        let deep = ".".repeat(100);
        let text = format!("ciphers[ssh\n[staKssht o\nrt = = 3\n{deep}\u{1}\u{11}{deep}pshauthorizedkey ");
        assert!(parse(text.as_bytes()).lost.len() < 10);
        let text = format!("[a b\n{deep}\n").repeat(2000);
        parse(text.as_bytes());
    }

    #[test]
    fn a_wrong_line_is_lost_alone() {
        let text = "[ssh]\nport = = 3\nshell = \"/bin/sh\"\n";
        assert_eq!((keys(text), lost(text)), (vec!["ssh.shell=/bin/sh".into()], vec![2]));
        let text = "a = 1\nx\n= 3\nb : 2\n]\nc = 3\nd = = 4\n";
        assert_eq!((keys(text), lost(text)), (vec!["a=1".into(), "c=3".into()], vec![2, 3, 7]));
        let text = "a = \"unclosed\r\nb = 2\r\n".replace("closed", "closed\r\nc = 'x");
        assert_eq!((keys(&text), lost(&text)), (vec!["b=2".into()], vec![1, 2]));
    }

    #[test]
    fn an_unclosed_bracket_takes_nothing_with_it() {
        let text = "[ssh]\nlisten_address = [\"a\"\nport = 3\n[firmware]\ntask = \"x\"\n";
        assert_eq!((keys(text), lost(text)), (vec!["firmware.task=x".into(), "ssh.port=3".into()], vec![2]));
        let text = "[ssh]\nlegacy = { enabled = true\nport = 3\n[firmware]\ntask = \"x\"\n";
        assert_eq!((keys(text), lost(text)), (vec!["firmware.task=x".into(), "ssh.port=3".into()], vec![2]));
        let text = "[ssh]\nbanner = \"\"\"hello\nport = 3\n[firmware]\ntask = \"x\"\n";
        assert_eq!((keys(text), lost(text)), (vec!["firmware.task=x".into(), "ssh.port=3".into()], vec![2]));
    }

    #[test]
    fn keys_below_a_broken_header_never_count_for_the_table_above() {
        let text = "[ssh]\nport = 1\n[ssh.legacy\nport = 2\n[firmware]\ntask = \"x\"\n";
        assert_eq!(keys(text), ["firmware.task=x", "ssh.legacy.port=2", "ssh.port=1"].map(String::from));
        assert_eq!(lost(text), [3]);
        let twice = "[ssh]\nport = 1\n[firmware]\n[ssh]\nshell = \"x\"\n[ssh]\nexec = \"y\"\n";
        assert_eq!(keys(twice), ["ssh.exec=y", "ssh.port=1", "ssh.shell=x"].map(String::from));
    }

    #[test]
    fn entries_over_several_lines_are_lost_whole() {
        let text = "a = 1\nkeys = [\n \"x\",\n bad bad\n]\nb = 2\n";
        assert_eq!(keys(text), ["a=1", "b=2"].map(String::from));
        assert_eq!(lost(text), [2]);
        let many = format!("keys = [\n\"bad\n{}]\nport = 3\n", "\"ssh-ed25519 AAAA==\",\n".repeat(2000));
        assert_eq!((keys(&many), lost(&many)), (vec!["port=3".into()], vec![1]));
    }

    #[test]
    fn what_is_no_toml_at_all_leaves_nothing() {
        let mut noise = 1_u32;
        let garbage: Vec<u8> = (0..200_000)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 17;
                noise ^= noise << 5;
                noise as u8
            })
            .collect();
        let recovered = parse(&garbage);
        assert!(recovered.table().is_empty());
        assert!(!recovered.lost.is_empty());
        assert!(parse(&[0; 4096]).table().is_empty());
        assert!(parse("[".repeat(100_000).as_bytes()).table().is_empty());
        assert!(parse(b"").lost.is_empty());
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_of_a_file_ends() {
        let text =
            "[ssh]\nport = 22\nlisten_address = [\n \"::1\",\n]\nbanner = '''a\nb'''\n[[x]]\ny = {z = 1}\n";
        for end in 0..text.len() {
            parse(&text.as_bytes()[..end]);
            for flip in [1, 8, 0x20, 0x80] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[end] ^= flip;
                parse(&bytes);
            }
        }
    }

    #[test]
    fn spans_have_line_numbers() {
        let recovered = parse(b"a = 1\nb = = 2\nc = 3\n");
        let lines: Vec<usize> =
            recovered.table().iter().map(|(key, _)| recovered.line(key.span().start)).collect();
        assert_eq!(lines, [1, 3]);
        assert_eq!((recovered.lost[0].line, recovered.lost[0].key.as_str()), (2, "b"));
    }
}
