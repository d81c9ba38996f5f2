//! Comparing what the program printed.

use data_encoding::HEXLOWER;

use crate::scenario::{Frame, FrameProgress, Stream};

pub fn compare(expected: &Stream, got: &[u8]) -> Result<(), String> {
    match expected {
        Stream::Any => Ok(()),
        Stream::Exact { hex: Some(hex), .. } => same(hex, &HEXLOWER.encode(got)),
        Stream::Exact { text, .. } => same(text.as_deref().unwrap_or_default(), &text_of(got)),
        Stream::Normalized { text } => same(text, &without_counts(&without_time(&text_of(got)))),
        Stream::NormalizedCounts { text } => same(text, &without_time(&text_of(got))),
        Stream::NormalizedNickname { text } => same(text, &without_nickname(&text_of(got))),
        Stream::Contains { texts } => {
            let got = text_of(got);
            match texts.iter().find(|text| !got.contains(text.as_str())) {
                Some(missing) => Err(format!("lacks {missing:?}: {:?}", cut(&got))),
                None => Ok(()),
            }
        }
        Stream::ErrorLine => error_line(&text_of(got)),
        Stream::NumericProgress { first, last } => numeric_progress(*first, *last, &text_of(got)),
        Stream::Frames { frames, rest_hex, progress } => {
            compare_frames(frames, rest_hex, matches!(progress, Some(FrameProgress::Rising)), got)
        }
    }
}

fn same(want: &str, got: &str) -> Result<(), String> {
    if want == got {
        return Ok(());
    }
    Err(format!("differs\n      want {:?}\n      got  {:?}", cut(want), cut(got)))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Enough of a text to see what is wrong.
fn cut(text: &str) -> String {
    text.chars().take(600).collect()
}

/// The time that a run took becomes `T`.
fn without_time(text: &str) -> String {
    const LABEL: &str = "Elapsed time: ";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(LABEL) {
        let (before, after) = rest.split_at(at + LABEL.len());
        out.push_str(before);
        out.push('T');
        rest = &after[after.find('\n').unwrap_or(after.len())..];
    }
    out + rest
}

/// The bytes counted behind a progress bar become `COUNTS`: what is between `] ` and five backspaces.
fn without_counts(text: &str) -> String {
    const BACK: &str = "\x08\x08\x08\x08\x08";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("] ") {
        let (before, after) = rest.split_at(at + 2);
        out.push_str(before);
        let end = after.find(['\r', '\n', '\x08']).unwrap_or(after.len());
        match after[end..].strip_prefix(BACK) {
            Some(behind) => {
                out.push_str("COUNTS");
                rest = behind;
            }
            None => rest = after,
        }
    }
    out + rest
}

/// Nicknames come from a word list that everyone has to write for himself.
fn without_nickname(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("meta-nickname=") {
        Some(value) if value.ends_with('\n') => "meta-nickname=\"N\"\n".to_owned(),
        Some(_) => "meta-nickname=\"N\"".to_owned(),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The last thing printed is `fwup: ` and a text, at the beginning of a line or where a progress bar
/// was cleared.
fn error_line(got: &str) -> Result<(), String> {
    const PREFIX: &str = "fwup: ";
    let begins = |at: usize| {
        let before = &got[..at];
        before.is_empty() || before.ends_with('\n') || before.ends_with("\x1b[K")
    };
    let found = got.strip_suffix('\n').is_some_and(|text| {
        text.match_indices(PREFIX).any(|(at, _)| begins(at) && at + PREFIX.len() < text.len())
    });
    if found { Ok(()) } else { Err(format!("has no closing line 'fwup: …': {:?}", cut(got))) }
}

fn numeric_progress(first: u32, last: u32, got: &str) -> Result<(), String> {
    let numbers: Vec<u32> = got.split('\n').filter_map(|line| line.parse().ok()).collect();
    if rises(&numbers) && numbers.first() == Some(&first) && numbers.last() == Some(&last) {
        return Ok(());
    }
    Err(format!("progress must rise from {first} to {last}: {numbers:?}"))
}

fn rises(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

/// One message of the program in framing mode.
struct Got<'a> {
    kind: String,
    code: u16,
    text: &'a [u8],
}

/// Cuts output into frames; what is left over comes last.
fn split(mut bytes: &[u8]) -> (Vec<Got<'_>>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>()
        && let Some((body, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)
        && let [a, b, high, low, text @ ..] = body
    {
        frames.push(Got { kind: text_of(&[*a, *b]), code: u16::from_be_bytes([*high, *low]), text });
        bytes = rest;
    }
    (frames, bytes)
}

fn compare_frames(want: &[Frame], rest_hex: &str, rising: bool, got: &[u8]) -> Result<(), String> {
    let (got, rest) = split(got);
    let mut wrong = Vec::new();
    if HEXLOWER.encode(rest) != rest_hex {
        wrong.push(format!("bytes after the last frame: want {rest_hex:?}, got {}", HEXLOWER.encode(rest)));
    }
    let mut got: Vec<&Got> = got.iter().collect();
    let mut want: Vec<&Frame> = want.iter().collect();
    if rising {
        let ended_well = want.last().is_some_and(|frame| frame.kind == "OK");
        let expected: Vec<u32> = want.iter().filter(|f| f.kind == "PR").map(|f| f.code.into()).collect();
        let values: Vec<u32> = got.iter().filter(|f| f.kind == "PR").map(|f| f.code.into()).collect();
        if !rises(&values) || values.first() != expected.first() {
            wrong.push(format!("PR values must rise from {:?}: {values:?}", expected.first()));
        }
        if ended_well && values.last() != expected.last() {
            wrong.push(format!("the last PR value must be {:?}: {values:?}", expected.last()));
        }
        got.retain(|frame| frame.kind != "PR");
        want.retain(|frame| frame.kind != "PR");
    }
    let kinds = |(want, got): (Vec<&str>, Vec<&str>)| {
        (want != got).then(|| format!("frame types:\n      want {want:?}\n      got  {got:?}"))
    };
    wrong.extend(kinds((
        want.iter().map(|f| f.kind.as_str()).collect(),
        got.iter().map(|f| f.kind.as_str()).collect(),
    )));
    for (want, got) in want.iter().zip(&got) {
        let kind = &want.kind;
        if want.code != got.code {
            wrong.push(format!("{kind} code: want {}, got {}", want.code, got.code));
        }
        let text = text_of(got.text);
        if want.exact.unwrap_or(true) {
            wrong.extend(same(&want.text, &text).err().map(|e| format!("{kind} text {e}")));
        } else if text.is_empty() {
            wrong.push(format!("{kind} has no text"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n    ")) }
}
