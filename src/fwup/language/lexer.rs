//! Splits a configuration into tokens and replaces variables while doing so. Included files are read in
//! place.

use std::path::PathBuf;

use super::variables::Variables;
use super::{ConfigError, Problem, shown};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Text(Vec<u8>),
    OpenBrace,
    CloseBrace,
    OpenParen,
    CloseParen,
    Equals,
    PlusEquals,
    Comma,
    End,
}

impl Token {
    /// For messages.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("'{}'", shown(text)),
            Self::OpenBrace => "'{'".into(),
            Self::CloseBrace => "'}'".into(),
            Self::OpenParen => "'('".into(),
            Self::CloseParen => "')'".into(),
            Self::Equals => "'='".into(),
            Self::PlusEquals => "'+='".into(),
            Self::Comma => "','".into(),
            Self::End => "end of the file".into(),
        }
    }
}

/// One file being read.
pub struct Source {
    /// As messages name it.
    pub name: String,
    /// Relative paths in it are taken relative to this folder.
    pub folder: PathBuf,
    bytes: Vec<u8>,
    at: usize,
    line: u32,
}

impl Source {
    pub fn new(name: String, folder: PathBuf, bytes: Vec<u8>) -> Self {
        Self { name, folder, bytes, at: 0, line: 1 }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Goes on by so many bytes and returns them.
    fn take(&mut self, count: usize) -> &[u8] {
        let end = (self.at + count).min(self.bytes.len());
        let taken = &self.bytes[self.at..end];
        self.line += taken.iter().filter(|&&byte| byte == b'\n').count() as u32;
        self.at = end;
        taken
    }

    fn next(&mut self) -> Option<u8> {
        self.take(1).first().copied()
    }
}

pub struct Lexer {
    /// The file being read comes last, the files that include it before.
    sources: Vec<Source>,
    /// Bytes that variables may still add.
    expansion_left: usize,
}

impl Lexer {
    pub fn new(source: Source) -> Self {
        Self { sources: vec![source], expansion_left: MOST_EXPANSION }
    }

    pub fn include(&mut self, source: Source) -> Result<(), Problem> {
        if self.sources.len() > MOST_INCLUDES {
            return Err(Problem::IncludeDepth { limit: MOST_INCLUDES });
        }
        self.sources.push(source);
        Ok(())
    }

    /// The file being read.
    pub fn source(&self) -> Option<&Source> {
        self.sources.last()
    }

    /// The problem, with the place where reading has come to.
    pub fn error(&self, problem: Problem) -> ConfigError {
        let (file, line) = self.source().map(|source| (source.name.clone(), source.line)).unwrap_or_default();
        ConfigError { file, line, problem }
    }

    pub fn next(&mut self, variables: &Variables) -> Result<Token, Problem> {
        loop {
            let last = self.sources.len() == 1;
            let Some(source) = self.sources.last_mut() else { return Ok(Token::End) };
            let token = match source.rest() {
                [] if last => return Ok(Token::End),
                [] => {
                    self.sources.pop();
                    continue;
                }
                [b' ' | b'\t' | b'\n' | b'\r', ..] => {
                    source.take(1);
                    continue;
                }
                [b'#', ..] | [b'/', b'/', ..] => {
                    skip_line(source);
                    continue;
                }
                [b'/', b'*', ..] => {
                    skip_comment(source);
                    continue;
                }
                [b'+', b'=', ..] => {
                    source.take(2);
                    return Ok(Token::PlusEquals);
                }
                [b'{', ..] => Token::OpenBrace,
                [b'}', ..] => Token::CloseBrace,
                [b'(', ..] => Token::OpenParen,
                [b')', ..] => Token::CloseParen,
                [b'=', ..] => Token::Equals,
                [b',', ..] => Token::Comma,
                // Stray characters are ignored, as fwup does.
                [b'+' | b'*', ..] => {
                    source.take(1);
                    continue;
                }
                [b'"', ..] => return self.double_quoted(variables),
                [b'\'', ..] => return self.single_quoted(),
                [b'$', b'{', ..] if reference_length(source.rest()).is_some() => {
                    return Ok(Token::Text(self.reference(variables)?));
                }
                rest => {
                    let length = unquoted_length(rest).max(1);
                    return Ok(Token::Text(source.take(length).to_vec()));
                }
            };
            source.take(1);
            return Ok(token);
        }
    }

    /// The value of the `${…}` that begins here.
    fn reference(&mut self, variables: &Variables) -> Result<Vec<u8>, Problem> {
        let Some(source) = self.sources.last_mut() else { return Ok(Vec::new()) };
        let length = reference_length(source.rest()).unwrap_or_default();
        let inside = source.take(length).get(2..length - 1).unwrap_or_default();
        let value = variables.expand(inside);
        self.expansion_left =
            self.expansion_left.checked_sub(value.len()).ok_or(Problem::TooLong { limit: MOST_EXPANSION })?;
        Ok(value)
    }

    fn double_quoted(&mut self, variables: &Variables) -> Result<Token, Problem> {
        let mut text = Vec::new();
        self.take_one();
        loop {
            let rest = self.source().map(Source::rest).unwrap_or_default();
            if rest.starts_with(b"${") && reference_length(rest).is_some() {
                text.extend(self.reference(variables)?);
                continue;
            }
            match self.take_one().ok_or(Problem::OpenString)? {
                b'"' => return Ok(Token::Text(text)),
                b'\\' => text.extend(self.escape()?),
                byte => text.push(byte),
            }
        }
    }

    fn single_quoted(&mut self) -> Result<Token, Problem> {
        let mut text = Vec::new();
        self.take_one();
        loop {
            match self.take_one().ok_or(Problem::OpenString)? {
                b'\'' => return Ok(Token::Text(text)),
                b'\\' => match self.take_one().ok_or(Problem::OpenString)? {
                    b'\n' => {}
                    byte @ (b'\\' | b'\'') => text.push(byte),
                    byte => text.extend([b'\\', byte]),
                },
                byte => text.push(byte),
            }
        }
    }

    /// What a backslash and the characters behind it mean in double quotes.
    fn escape(&mut self) -> Result<Option<u8>, Problem> {
        let byte = self.take_one().ok_or(Problem::OpenString)?;
        let meaning = match byte {
            b'\n' => return Ok(None),
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'a' => 7,
            b'e' => 27,
            b'v' => 11,
            b'x' => {
                let digits = self.digits(|byte| byte.is_ascii_hexdigit(), 2);
                u8::from_str_radix(&digits, 16).unwrap_or(b'x')
            }
            b'0'..=b'9' => {
                let text =
                    char::from(byte).to_string() + &self.digits(|byte| byte.is_ascii_digit(), usize::MAX);
                let value = (text.len() <= 3).then(|| u8::from_str_radix(&text, 8).ok()).flatten();
                value.ok_or(Problem::Escape { text })?
            }
            other => other,
        };
        Ok(Some(meaning))
    }

    fn digits(&mut self, is_digit: impl Fn(&u8) -> bool, most: usize) -> String {
        let Some(source) = self.sources.last_mut() else { return String::new() };
        let length = source.rest().iter().take(most).take_while(|byte| is_digit(byte)).count();
        shown(source.take(length))
    }

    fn take_one(&mut self) -> Option<u8> {
        self.sources.last_mut().and_then(Source::next)
    }
}

/// How long the `${…}` at the start is, if it ends at all.
fn reference_length(rest: &[u8]) -> Option<usize> {
    rest.iter().position(|&byte| byte == b'}').map(|at| at + 1)
}

fn unquoted_length(rest: &[u8]) -> usize {
    let ends = |at: usize| match rest[at] {
        b' ' | b'\t' | b'\n' | b'\r' | b'#' | b'"' | b'\'' | b'=' | b'{' | b'}' | b'(' | b')' | b'+'
        | b',' | b'*' => true,
        b'/' => matches!(rest.get(at + 1), Some(b'/' | b'*')),
        _ => false,
    };
    (0..rest.len()).find(|&at| ends(at)).unwrap_or(rest.len())
}

fn skip_line(source: &mut Source) {
    let length = source.rest().iter().position(|&byte| byte == b'\n');
    source.take(length.unwrap_or(usize::MAX - source.at));
}

fn skip_comment(source: &mut Source) {
    let end = source.rest().windows(2).skip(2).position(|pair| pair == b"*/");
    source.take(end.map_or(usize::MAX - source.at, |at| at + 4));
}

const MOST_INCLUDES: usize = 10;
/// Definitions can double a text again and again; a real configuration needs a few KiB.
const MOST_EXPANSION: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token>, Problem> {
        let mut variables = Variables::default();
        variables.set(b"X", "value x");
        let mut lexer = Lexer::new(Source::new("test".into(), PathBuf::new(), text.into()));
        let mut all = Vec::new();
        loop {
            match lexer.next(&variables)? {
                Token::End => return Ok(all),
                token => all.push(token),
            }
        }
    }

    fn texts(text: &str) -> Vec<String> {
        tokens(text).unwrap().iter().map(|token| token.shown()).collect()
    }

    #[test]
    fn words_comments_and_strays() {
        assert_eq!(
            texts("a.b/c//x\nd=1+2 /* * / */ define!(e,f)\t# g\n+=*h-i"),
            [
                "'a.b/c'",
                "'d'",
                "'='",
                "'1'",
                "'2'",
                "'define!'",
                "'('",
                "'e'",
                "','",
                "'f'",
                "')'",
                "'+='",
                "'h-i'"
            ]
        );
    }

    #[test]
    fn variables_are_replaced_once_and_stand_alone_outside_of_quotes() {
        assert_eq!(texts("${X}/f ${Y:-\"a b\"}"), ["'value x'", "'/f'", "'\"a b\"'"]);
        assert_eq!(texts(r#""<${X}${Y}>" '${X}' "\${X}""#), ["'<value x>'", "'${X}'", "'${X}'"]);
    }

    #[test]
    fn escapes() {
        assert_eq!(tokens("\"\\x41\\102\\n\\q\\\nz\"").unwrap(), [Token::Text(b"AB\nqz".to_vec())]);
        assert_eq!(tokens(r"'a\'\\\n'").unwrap(), [Token::Text(br"a'\\n".to_vec())]);
        for wrong in [r#""\9""#, r#""\1234""#, r#""\777""#] {
            assert!(matches!(tokens(wrong), Err(Problem::Escape { .. })), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_end_is_an_error_and_never_a_loop() {
        for open in ["\"a", "'a", "\"a\\", "\"${X", "'\\"] {
            assert!(matches!(tokens(open), Err(Problem::OpenString)), "{open}");
        }
        assert_eq!(texts("a /* b"), ["'a'"]);
        assert_eq!(texts("${X"), ["'$'", "'{'", "'X'"]);
        assert_eq!(texts("/*/ */ a"), ["'a'"]);
    }
}
